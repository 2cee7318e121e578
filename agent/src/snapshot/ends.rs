//! Who is at the other end: which processes hold certain sockets, pipes or devices. One pass over `/proc/PID/fd`,
//! by the text of its links, bounded by descriptors and by time; what was not looked at is said.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{known::context::SeenProcess, observe};

/// Descriptors gone through, at most.
const DESCRIPTORS: usize = 65_536;
/// How long that may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// Processes named at one end, at most.
const NAMED: usize = 4;

/// One end that is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// A socket, by its inode.
    Socket(u64),
    /// The end of a pipe that is read from, or written to.
    Pipe {
        /// Its inode.
        inode: u64,
        /// It is the end that is written to.
        writes: bool,
    },
    /// The device that a process serves FUSE by.
    FuseDevice,
}

/// Who holds what was looked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    by_end: HashMap<End, Vec<u32>>,
    /// Not everything was looked at.
    pub(super) cut: bool,
}

impl Found {
    /// Looks for all of them at once.
    pub(super) fn look(sought: &HashSet<End>) -> Self {
        let mut found = Self::default();
        if sought.is_empty() {
            return found;
        }
        let (began, mut left) = (Instant::now(), DESCRIPTORS);
        for pid in observe::pids().filter(|pid| *pid != std::process::id()) {
            if left == 0 || began.elapsed() > PATIENCE {
                found.cut = true;
                break;
            }
            let proc = format!("/proc/{pid}");
            let Ok(entries) = fs::read_dir(Path::new(&proc).join("fd")) else { continue };
            for entry in entries.flatten() {
                if left == 0 {
                    break;
                }
                left -= 1;
                let Ok(target) = fs::read_link(entry.path()) else { continue };
                let target = target.to_string_lossy();
                // Only of a pipe that is sought its mode is read.
                let either = |inode| [true, false].map(|writes| End::Pipe { inode, writes });
                if pipe(&target).is_some_and(|inode| !either(inode).iter().any(|end| sought.contains(end))) {
                    continue;
                }
                let Some(end) = end(&target, || writes(Path::new(&proc), &entry.file_name())) else {
                    continue;
                };
                if sought.contains(&end) {
                    let holders = found.by_end.entry(end).or_default();
                    if !holders.contains(&pid) {
                        holders.push(pid);
                    }
                }
            }
        }
        found
    }

    /// The processes at an end.
    pub(super) fn at(&self, end: &End) -> &[u32] {
        self.by_end.get(end).map_or(&[], Vec::as_slice)
    }
}

/// These processes as they are now, without the one that waits. A service manager that keeps a socket for its
/// service is named only when no other process has it.
pub(super) fn named(pids: &[u32], waits: u32) -> Vec<SeenProcess> {
    let manager = |pid: &&u32| **pid != 1 || !pids.iter().any(|other| *other != 1 && *other != waits);
    let others = pids.iter().filter(|pid| **pid != waits).filter(manager);
    others.take(NAMED).filter_map(|&pid| process(pid, waits)).collect()
}

/// Whether a process has this name.
pub(super) fn is_called(pid: u32, comm: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == comm)
}

/// A process as it is now; `None` when it is gone.
fn process(pid: u32, waits: u32) -> Option<SeenProcess> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let parent = |of: u32, pid: u32| observe::parent_and_start(of).is_some_and(|(parent, _)| parent == pid);
    Some(SeenProcess {
        pid,
        comm: comm.trim_end().to_owned(),
        state: stat.rsplit_once(") ")?.1.chars().next()?.to_string(),
        related: exe(pid).is_some() && exe(pid) == exe(waits) && (parent(pid, waits) || parent(waits, pid)),
    })
}

/// What the link of a descriptor stands for. A pipe is held by both ends: by its mode it is known which.
fn end(target: &str, writes: impl FnOnce() -> Option<bool>) -> Option<End> {
    if let Some(inode) = socket(target) {
        return Some(End::Socket(inode));
    }
    if let Some(inode) = pipe(target) {
        return Some(End::Pipe { inode, writes: writes()? });
    }
    (target == "/dev/fuse").then_some(End::FuseDevice)
}

/// `socket:[4711]`.
pub(super) fn socket(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// `pipe:[4711]`.
pub(super) fn pipe(target: &str) -> Option<u64> {
    target.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether a descriptor is written to.
fn writes(proc: &Path, fd: &std::ffi::OsStr) -> Option<bool> {
    let text = fs::read_to_string(proc.join("fdinfo").join(fd)).ok()?;
    Some(flags(&text)? & 3 != 0)
}

/// The octal flags that `/proc/PID/fdinfo/FD` gives.
fn flags(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_process_that_reads_from_a_pipe_is_found() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().expect("it runs");
        let target = fs::read_link(format!("/proc/{}/fd/0", child.id())).expect("its standard input");
        let inode = pipe(&target.to_string_lossy()).expect("a pipe");
        let end = End::Pipe { inode, writes: false };
        // Another test's child may hold it until it runs its own program.
        let deadline = Instant::now() + Duration::from_secs(10);
        let pids = loop {
            let found = Found::look(&HashSet::from([end.clone()]));
            if found.at(&end) == [child.id()] {
                break found.at(&end).to_vec();
            }
            assert!(Instant::now() < deadline, "{found:?}");
        };
        let named = named(&pids, std::process::id());
        assert_eq!((named[0].comm.as_str(), named[0].related), ("sleep", false));
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    #[test]
    fn the_mode_of_a_descriptor_is_the_last_two_bits_of_its_flags() {
        assert_eq!(flags("pos:\t0\nflags:\t02100001\nmnt_id:\t15\n").map(|flags| flags & 3), Some(1));
        assert_eq!(flags("pos:\t0\n"), None);
        assert_eq!(end("pipe:[9]", || Some(true)), Some(End::Pipe { inode: 9, writes: true }));
        assert_eq!(end("/tmp/pipe:[9]", || None), None);
    }

    #[test]
    fn a_service_manager_is_named_only_when_it_is_alone() {
        let own = std::process::id();
        assert_eq!(named(&[own], own), []);
        assert_eq!(named(&[1, own], own).first().map(|named| named.pid), Some(1));
    }
}
