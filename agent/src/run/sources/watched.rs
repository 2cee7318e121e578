//! What the processes that the user asked for wait for on connections they made: looked at every two seconds by a
//! thread of its own, a few of them a time.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::source::{Found, Kind, Source};
use crate::{
    kernel::{
        cgroup,
        load::{Kernel, Loss},
    },
    known::context::{Context, Watched},
    observe::{self, Wanted},
    snapshot,
};

/// How often.
const EVERY: Duration = Duration::from_secs(2);
/// How often it is looked which processes are meant.
const CHOOSE_EVERY: Duration = Duration::from_secs(10);
/// Processes looked at a time; of more each waits its turn.
const AT_A_TIME: usize = 16;
/// Looks that wait to be taken, at most.
const WAITING: usize = 64;

/// Connections of processes that were asked for, among the sources.
pub(super) const KIND: Kind = Kind {
    open: |_, wanted| {
        if !wanted.by_owner() {
            return Ok(None);
        }
        let root = cgroup::root()?;
        Ok(Some(Box::new(Watch::start(wanted.clone(), root)?)))
    },
};

/// The thread that looks, as the session sees it.
struct Watch {
    found: Receiver<Watched>,
    /// Processes to be followed as well; the thread ends when this goes.
    follow: Sender<u32>,
}

impl Watch {
    fn start(wanted: Wanted, cgroup_root: PathBuf) -> std::io::Result<Self> {
        let (report, found) = sync_channel(WAITING);
        let (follow, followed) = channel();
        let mut looker =
            Looker { wanted, cgroup_root, chosen: Vec::new(), chosen_at: None, seen: BTreeSet::new() };
        let look = move || {
            loop {
                for watched in looker.look() {
                    // A session that does not keep up has more important things to take.
                    let _ = report.try_send(watched);
                }
                match followed.recv_timeout(EVERY) {
                    Ok(process) => looker.follow(process),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name("watched".into()).spawn(look)?;
        Ok(Self { found, follow })
    }
}

impl Source for Watch {
    fn follow(&mut self, process: u32) {
        // It ends only with the session.
        let _ = self.follow.send(process);
    }

    fn look(&mut self, _kernel: &mut Kernel, _grown: &[Loss]) -> anyhow::Result<Found> {
        let contexts = self.found.try_iter().map(|watched| Context::Watched(Box::new(watched))).collect();
        Ok(Found { contexts, ..Found::default() })
    }
}

/// Which processes are meant, and which had connections when they were looked at last.
struct Looker {
    wanted: Wanted,
    cgroup_root: PathBuf,
    chosen: Vec<u32>,
    chosen_at: Option<Instant>,
    seen: BTreeSet<u32>,
}

impl Looker {
    fn follow(&mut self, process: u32) {
        self.wanted.processes.push(process);
        self.chosen_at = None;
    }

    /// Looks at the next few of them; those without connections, now as before, are left out.
    fn look(&mut self) -> Vec<Watched> {
        if self.chosen_at.is_none_or(|at| at.elapsed() >= CHOOSE_EVERY) {
            self.chosen_at = Some(Instant::now());
            self.chosen = observe::chosen(&self.wanted, &self.cgroup_root);
        }
        let next: Vec<u32> = self.chosen.iter().copied().take(AT_A_TIME).collect();
        self.chosen.rotate_left(next.len());
        let mut found = Vec::new();
        for process in next {
            let watched = snapshot::connections(process);
            let before = match watched.connections.is_empty() {
                true => self.seen.remove(&process),
                false => !self.seen.insert(process),
            };
            if before || !watched.connections.is_empty() {
                found.push(watched);
            }
        }
        found
    }
}
