//! Real containers, by runc: a process tree in namespaces and cgroups of its own, with a root file system that
//! holds a busybox. Gone with the test, and so are their cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Netns, Scratch, process::run, unique};

/// Where Debian has busybox; it has to be a static one.
const BUSYBOX: &str = "/bin/busybox";
const CGROUPS: &str = "/sys/fs/cgroup";

/// A container that can be started.
pub struct Container {
    id: String,
    files: Scratch,
    /// A cgroup of the test's own, above that of the container.
    above: String,
    config: Value,
}

impl Container {
    /// Makes one that runs `script` in a network namespace. `place` is the path of the cgroup that an engine would
    /// put right above that of the container, e.g. `docker`.
    #[track_caller]
    pub fn make(place: &str, netns: &Netns, script: &str) -> Self {
        let mut container = Self::bare(place);
        let root = container.files.join("rootfs/bin");
        fs::copy(BUSYBOX, root.join("busybox")).expect("a busybox");
        for name in ["sh", "nc", "sleep"] {
            std::os::unix::fs::symlink("busybox", root.join(name)).expect("our own directory");
        }
        container.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        for namespace in container.config["linux"]["namespaces"].as_array_mut().expect("a list") {
            if namespace["type"] == "network" {
                namespace["path"] = json!(format!("/run/netns/{}", netns.name()));
            }
        }
        container
    }

    /// One that is privileged, in the host's process and network namespaces: `args` run in an empty root.
    #[track_caller]
    pub fn privileged(place: &str, args: &[&str]) -> Self {
        let mut container = Self::bare(place);
        let config = &mut container.config;
        config["process"]["args"] = json!(args);
        config["process"]["noNewPrivileges"] = json!(false);
        let status = fs::read_to_string("/proc/self/status").expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("the bounding set");
        let held = u64::from_str_radix(line.trim(), 16).expect("hexadecimal");
        let names = CAPABILITIES.split_whitespace().enumerate();
        let all: Vec<String> = names
            .filter(|(number, _)| held & 1 << number != 0)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect();
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(all);
        }
        config["process"]["capabilities"]["ambient"] = json!([]);
        let linux = config["linux"].as_object_mut().expect("an object");
        linux.insert("namespaces".into(), json!([{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}]));
        linux.insert("resources".into(), json!({"devices": [{"allow": true, "access": "rwm"}]}));
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != CGROUPS);
        // Sees the processes, and the kernel's files, of the namespaces it is in.
        for mount in mounts {
            if mount["destination"] == "/sys" {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
        container
    }

    #[track_caller]
    fn bare(place: &str) -> Self {
        let files = Scratch::make();
        fs::create_dir_all(files.join("rootfs/bin")).expect("our own directory");
        run(Command::new("runc").arg("spec").current_dir(files.path()));
        let text = fs::read_to_string(files.join("config.json")).expect("runc made it");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        let number = unique();
        let id = format!("{:032x}{number:032x}", std::process::id());
        let above = format!("culprit-test-{}-{number}", std::process::id());
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{above}/{place}/{id}"));
        Self { id, files, above, config }
    }

    /// Its id, as an engine would give it one.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Mounts a file or a directory of the host; `how` is `ro` or `rw`.
    pub fn mount(&mut self, from: &Path, to: &str, how: &str) {
        let mount = json!({"type": "bind", "source": from, "destination": to, "options": ["rbind", how]});
        self.config["mounts"].as_array_mut().expect("a list").push(mount);
    }

    /// Bounds the memory of everything in it.
    pub fn limit_memory(&mut self, bytes: u64) {
        self.config["linux"]["resources"]["memory"] = json!({"limit": bytes});
    }

    /// What runs it in the foreground, its output being the container's.
    #[track_caller]
    pub fn command(&self) -> Command {
        fs::write(self.files.join("config.json"), self.config.to_string()).expect("our own directory");
        let mut command = self.runc("run");
        command.arg("--bundle").arg(self.files.path());
        if in_initramfs() {
            command.arg("--no-pivot");
        }
        command.arg(&self.id);
        command
    }

    /// Runs it to its end, good or bad, until nothing is left of it.
    #[track_caller]
    pub fn run(&self) {
        let output = self.command().output().expect("runc is here");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("level=error"), "runc: {said}");
        assert!(self.cgroups().iter().all(|cgroup| !cgroup.exists()), "runc left a cgroup of {}", self.id);
    }

    fn runc(&self, verb: &str) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.files.join("state")).arg(verb);
        command
    }

    /// Its cgroup in every hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let path = self.config["linux"]["cgroupsPath"].as_str().expect("a path").trim_start_matches('/');
        hierarchies().into_iter().map(|hierarchy| hierarchy.join(path)).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.files.join("state").join(&self.id).exists() {
            let _ = self.runc("delete").arg("--force").arg(&self.id).output();
        }
        // The kernel takes a moment to be done with the processes of a cgroup.
        for _ in 0..100 {
            for hierarchy in hierarchies() {
                remove(&hierarchy.join(&self.above));
            }
            if hierarchies().iter().all(|hierarchy| !hierarchy.join(&self.above).exists()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A cgroup and those below it, as far as they are empty.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

/// The root of version 2, or those of version 1 and 2 side by side.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.procs").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The root file system of a VM cannot be exchanged, only covered.
fn in_initramfs() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.starts_with("rootfs / ") || line.starts_with("none / rootfs"))
}

/// Whether runc can run a container here: tried once.
pub fn works() -> bool {
    static TRIED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *TRIED.get_or_init(|| {
        let here = Path::new(BUSYBOX).is_file() && Command::new("runc").arg("--version").output().is_ok();
        here && {
            let netns = Netns::make();
            let container = Container::make("docker", &netns, "true");
            let output = container.command().output().expect("runc is here");
            if !output.status.success() {
                eprintln!("runc: {}", String::from_utf8_lossy(&output.stderr));
            }
            output.status.success()
        }
    })
}

/// By number, from 0, without `CAP_` (include/uapi/linux/capability.h).
const CAPABILITIES: &str = "\
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ \
    PERFMON BPF CHECKPOINT_RESTORE";
