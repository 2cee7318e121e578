//! Which processes began at certain times, and which of some are gone: one pass over `/proc`.

use std::{collections::HashSet, fs};

use crate::{known::request::Exposure, observe};

/// A process that began in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// When, CLOCK_BOOTTIME in nanoseconds, to the clock tick.
    pub started_ns: u64,
}

/// Processes that live and began in the windows, the oldest first, and those of `known` that are gone: not
/// there, or another one by the same id.
pub fn look(request: &Exposure) -> (Vec<Started>, Vec<u32>) {
    let gone = request
        .known
        .iter()
        .filter(|(pid, started_ns)| !lives(*pid, *started_ns))
        .map(|(pid, _)| *pid)
        .collect();
    if request.windows.is_empty() {
        return (vec![], gone);
    }
    let inside = |at_ns: u64| request.windows.iter().any(|(from, to)| (*from..*to).contains(&at_ns));
    let mut seen = HashSet::new();
    let mut started: Vec<Started> = observe::pids()
        .filter(|pid| *pid != std::process::id() && seen.insert(*pid))
        .filter_map(|pid| {
            let (parent, started_ns) = observe::parent_and_start(pid)?;
            // Kernel threads hold no credentials.
            if !inside(started_ns) || pid == KTHREADD || parent == KTHREADD {
                return None;
            }
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some(Started { pid, comm: comm.trim_end().to_owned(), started_ns })
        })
        .collect();
    started.sort_by_key(|one| (one.started_ns, one.pid));
    (started, gone)
}

/// The parent of all kernel threads.
const KTHREADD: u32 = 2;

fn lives(pid: u32, started_ns: u64) -> bool {
    observe::parent_and_start(pid)
        .is_some_and(|(_, at)| (started_ns == 0 || at == started_ns) && !observe::is_zombie(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_by_when_it_began_and_missed_when_it_is_gone() {
        let boot = crate::time::boot_ns;
        let tick = 20_000_000;
        let from = boot() - tick;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("it runs");
        let pid = child.id();
        let windows = vec![(from, boot() + tick)];
        let (started, gone) = look(&Exposure { windows, known: vec![(std::process::id(), 0), (pid, 1)] });
        let found = started.iter().find(|one| one.pid == pid).expect("it began just now");
        assert!(found.started_ns >= from);
        // One that began at another time is another one.
        assert_eq!(gone, [pid]);
        let known = vec![(pid, found.started_ns)];
        assert_eq!(look(&Exposure { windows: vec![], known: known.clone() }), (vec![], vec![]));
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert_eq!(look(&Exposure { windows: vec![(0, from - tick)], known }).1, [pid]);
    }
}
