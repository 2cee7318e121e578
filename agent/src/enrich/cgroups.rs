//! Which cgroup a number stands for: for processes that are gone before `/proc` could be asked. The kernel
//! notes a cgroup's id with whatever a process does; the id is the inode number of its directory.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::bounded::Bounded;

/// Cgroups remembered at most.
const CGROUPS: usize = 8192;
/// Directories looked through at most for those not known yet, and how often at most.
const DIRECTORIES: usize = 65_536;
const EVERY: Duration = Duration::from_secs(1);

/// Paths by id.
pub(super) struct Cgroups {
    root: PathBuf,
    known: Bounded<u64, String>,
    looked: Option<Instant>,
}

impl Cgroups {
    /// Those below the host's cgroup v2 root.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, known: Bounded::new(CGROUPS), looked: None }
    }

    /// The path of a cgroup below the root, as `/proc/PID/cgroup` has it; of one that is gone, if it was seen.
    pub(super) fn path(&mut self, id: u64) -> Option<String> {
        if id == 0 {
            return None;
        }
        if self.known.get(&id).is_none() && self.looked.is_none_or(|at| at.elapsed() >= EVERY) {
            self.looked = Some(Instant::now());
            self.look();
        }
        self.known.get(&id).cloned()
    }

    fn look(&mut self) {
        let mut left = vec![self.root.clone()];
        let mut seen = 0;
        while let Some(directory) = left.pop() {
            seen += 1;
            if seen > DIRECTORIES {
                return;
            }
            let Ok(metadata) = fs::metadata(&directory) else { continue };
            let below = directory.strip_prefix(&self.root).unwrap_or(Path::new(""));
            self.known.insert(metadata.ino(), format!("/{}", below.display()));
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            left.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_by_its_number_and_one_made_later_too() {
        let root = tempfile::tempdir().expect("a place for it");
        let inner = root.path().join("system.slice/web.service");
        fs::create_dir_all(&inner).expect("our own directory");
        let id = |path: &Path| fs::metadata(path).expect("just made").ino();
        let mut cgroups = Cgroups::new(root.path().to_owned());
        assert_eq!(cgroups.path(id(&inner)).as_deref(), Some("/system.slice/web.service"));
        assert_eq!(cgroups.path(id(root.path())).as_deref(), Some("/"));
        assert_eq!((cgroups.path(0), cgroups.path(u64::MAX)), (None, None));
        let later = root.path().join("later.scope");
        fs::create_dir(&later).expect("our own directory");
        // Not looked for again within a second.
        assert_eq!(cgroups.path(id(&later)), None);
        cgroups.looked = None;
        assert_eq!(cgroups.path(id(&later)).as_deref(), Some("/later.scope"));
    }
}
