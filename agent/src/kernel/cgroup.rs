//! Where the host's cgroup v2 root is. Programs attached below it would see only part of the machine
//! and look as if they saw all of it; so a container's own root is refused.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why there is no root to attach to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup v2 anywhere.
    #[error(
        "no cgroup v2 hierarchy is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup), or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    None,
    /// Only a container's own.
    #[error(
        "the cgroup v2 root at {0} is this container's own, not the host's: run in the host's cgroup namespace (docker run --cgroupns=host, kubernetes hostPID: true with privileged: true), or mount the host's /sys/fs/cgroup"
    )]
    NotTheHosts(PathBuf),
    /// It is there and cannot be opened.
    #[error("{path}: {source}: culprit attaches to this cgroup v2 root; run as root")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The host's cgroup v2 root: mounted here, or reached through process 1.
pub fn root() -> Result<PathBuf, Error> {
    let mut partial = None;
    for prefix in ["", "/proc/1/root"] {
        let table = if prefix.is_empty() { "/proc/self/mountinfo" } else { "/proc/1/mountinfo" };
        let Ok(table) = fs::read_to_string(table) else { continue };
        for mount in mounts(&table) {
            let path = PathBuf::from(format!("{prefix}{mount}"));
            if is_root(&path) {
                return Ok(path);
            }
            partial.get_or_insert(path);
        }
    }
    Err(partial.map_or(Error::None, Error::NotTheHosts))
}

/// Mount points of cgroup v2 in a mountinfo table, shortest first.
fn mounts(table: &str) -> Vec<String> {
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            (source.split(' ').next() == Some("cgroup2")).then(|| mount.split(' ').nth(4))?.map(unescape)
        })
        .collect();
    found.sort_by_key(String::len);
    found
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Only the real root has no `cgroup.events`: it is never empty and cannot be frozen.
fn is_root(path: &Path) -> bool {
    path.join("cgroup.procs").exists() && !path.join("cgroup.events").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_mounts_version_2_beside_version_1() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                     32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                     38 31 0:35 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounts(table), ["/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn a_mount_point_with_a_space_is_understood() {
        let table = "38 31 0:35 / /a\\040b rw - cgroup2 none rw\n";
        assert_eq!(mounts(table), ["/a b"]);
    }
}
