//! A control group of the test's own, in whichever version it is needed; removed when dropped, what is in it thawed and
//! moved to the root.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The group.
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// One that may run for so long in each period; `None` where that cannot be.
    pub fn with_quota(allowed_us: u64, period_us: u64) -> Option<Self> {
        let first = Path::new("/sys/fs/cgroup/cpu");
        if first.join("cgroup.procs").exists() {
            let group = Self::below(first)?;
            group.write("cpu.cfs_period_us", &period_us.to_string())?;
            group.write("cpu.cfs_quota_us", &allowed_us.to_string())?;
            return Some(group);
        }
        let group = Self::below(&culprit::kernel::cgroup::root().ok()?)?;
        group.write("cpu.max", &format!("{allowed_us} {period_us}"))?;
        Some(group)
    }

    /// One that can be frozen.
    #[track_caller]
    pub fn freezable() -> Self {
        let root = culprit::kernel::cgroup::root().expect("a cgroup v2 root");
        Self::below(&root).expect("a group of the test's own")
    }

    fn below(root: &Path) -> Option<Self> {
        let path = root.join(format!("culprit-test-{}-{}", std::process::id(), super::unique()));
        fs::create_dir(&path).ok()?;
        Some(Self { path })
    }

    fn write(&self, name: &str, text: &str) -> Option<()> {
        fs::write(self.path.join(name), text).ok()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it.
    #[track_caller]
    pub fn holds(&self, pid: u64) {
        self.write("cgroup.procs", &pid.to_string()).expect("a process of the test moves");
    }

    /// Freezes it, and waits until all in it have stopped; or thaws it.
    #[track_caller]
    pub fn freeze(&self, frozen: bool) {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" }).expect("the group can be frozen");
        let wanted = format!("frozen {}", u8::from(frozen));
        let deadline = super::deadline();
        while !fs::read_to_string(self.path.join("cgroup.events")).expect("ours").contains(&wanted) {
            assert!(std::time::Instant::now() < deadline, "the group is not {wanted}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.write("cgroup.freeze", "0");
        let inside = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            let _ = fs::write(self.path.with_file_name("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.path);
    }
}
