//! Who is still exposed: processes that began, or opened TLS sessions as clients, while the clock was wrong.
//! What they were given then (tokens, tickets, leases) is dated by the wrong clock, and they keep it after the
//! clock is right. They stay on the list as long as they live.

use ebpf_probes::{
    abi::{Owner, Tuple},
    probes::tls::{CLIENT, Handshake, stage},
};

use crate::{
    domains::clock::reading,
    fact::Process,
    known::{
        context::{Exposed, ProcessContext},
        request::Exposure,
    },
    pipeline::world::World,
    pipeline::{
        Request, View,
        incident::{ExposedProcess, ExposedSession},
    },
    text::host::Name,
    time::SECOND_NS,
};

/// Processes listed at most; of the others only the number is kept.
const PROCESSES: usize = 64;
/// Sessions listed of each.
const SESSIONS: usize = 4;
/// The living are counted this often.
const EVERY_NS: u64 = 2 * SECOND_NS;

/// The list.
#[derive(Default)]
pub(super) struct Exposures {
    found: Vec<One>,
    left_out: u64,
    windows: Vec<(u64, u64, i64)>,
    /// Those that began in the windows are still to be asked for.
    unasked: bool,
    asked_ns: u64,
    /// A process was listed when the clock was right.
    were: bool,
}

struct One {
    process: Process,
    started_ns: u64,
    started_inside: bool,
    sessions: Vec<Session>,
    sessions_left_out: u64,
}

struct Session {
    tuple: Tuple,
    owner: Owner,
    sni: Option<Name>,
    at_ns: u64,
}

impl Exposures {
    /// Another series of steps begins.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && !self.unasked
    }

    /// A process was exposed, and is gone or not.
    pub(super) fn were(&self) -> bool {
        self.were
    }

    /// A client finished a handshake.
    pub(super) fn session(&mut self, hs: &Handshake, at_ns: u64, world: &World) {
        if hs.role != CLIENT || hs.stage != stage::DONE || hs.owner.process == 0 {
            return;
        }
        let session = Session { tuple: hs.tuple, owner: hs.owner, sni: world.server_name(hs.cookie), at_ns };
        let started_ns = world.known.of_process(hs.owner.process).map_or(0, |known| known.started_ns);
        let known = self.found.iter_mut().find(|one| one.process.pid == hs.owner.process);
        match known {
            Some(one) if one.sessions.len() >= SESSIONS => {
                one.sessions_left_out = one.sessions_left_out.saturating_add(1);
            }
            Some(one) => one.sessions.push(session),
            None => {
                let Some(process) = world.known.named(&hs.owner) else { return };
                self.add(One {
                    process,
                    started_ns,
                    started_inside: false,
                    sessions: vec![session],
                    sessions_left_out: 0,
                });
            }
        }
    }

    fn add(&mut self, one: One) {
        if self.found.len() < PROCESSES {
            self.found.push(one);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// The clock is right: of what was noted, only that counts which fell into these windows, in which it was
    /// wrong by enough to matter; and who began in them is to be asked for.
    pub(super) fn is_right(&mut self, windows: Vec<(u64, u64, i64)>) {
        let inside = |at_ns: u64| windows.iter().any(|(from, to, _)| (*from..*to).contains(&at_ns));
        for one in &mut self.found {
            one.sessions.retain(|session| inside(session.at_ns));
        }
        self.found.retain(|one| !one.sessions.is_empty() || one.started_inside);
        self.unasked = !windows.is_empty();
        self.windows = windows;
        self.asked_ns = 0;
    }

    /// Asks who lives.
    pub(super) fn asks(&mut self, view: &mut View<'_>) {
        if view.now_ns.saturating_sub(self.asked_ns) < EVERY_NS {
            return;
        }
        self.asked_ns = view.now_ns;
        let windows = if self.unasked {
            self.windows.iter().map(|(from, to, _)| (*from, *to)).collect()
        } else {
            vec![]
        };
        let known = self.found.iter().map(|one| (one.process.pid, one.started_ns)).collect();
        view.requests.push(Request::Exposed(Exposure { windows, known }));
    }

    /// The answer; whether it changes the list.
    pub(super) fn answered(&mut self, answer: &Exposed, authors: &[u32]) -> bool {
        let before = self.found.len();
        self.found.retain(|one| !answer.gone.contains(&one.process.pid));
        let mut changed = self.found.len() != before;
        if self.unasked {
            self.unasked = false;
            changed = true;
            for started in answer.started.iter().filter(|started| !authors.contains(&started.pid)) {
                match self.found.iter_mut().find(|one| one.process.pid == started.pid) {
                    Some(one) => {
                        one.started_inside = true;
                        one.started_ns = started.started_ns;
                    }
                    None => self.add(One {
                        process: process(started),
                        started_ns: started.started_ns,
                        started_inside: true,
                        sessions: vec![],
                        sessions_left_out: 0,
                    }),
                }
            }
            self.left_out = self.left_out.saturating_add(answer.more);
        }
        self.were |= !self.found.is_empty();
        changed
    }

    /// REALTIME − BOOTTIME as it wrongly was at a moment.
    fn offset_at(&self, at_ns: u64) -> Option<i64> {
        self.windows.iter().find(|(from, to, _)| (*from..*to).contains(&at_ns)).map(|(_, _, offset)| *offset)
    }

    /// The list as the incident shows it, and how many more there are.
    pub(super) fn shown(&self, world: &World) -> (Vec<ExposedProcess>, u64) {
        let at = |at_ns: u64| reading(at_ns, self.offset_at(at_ns).unwrap_or(world.offset_ns()));
        if self.unasked {
            return (vec![], 0);
        }
        let shown = self.found.iter().map(|one| ExposedProcess {
            process: one.process.clone(),
            started_at: one.started_inside.then(|| at(one.started_ns)),
            sessions: one
                .sessions
                .iter()
                .map(|session| ExposedSession {
                    peer: world.known.at(session.tuple.remote, session.tuple.remote_port, &session.owner),
                    sni: session.sni.as_ref().map(|name| name.text.clone()),
                    sni_invalid: session.sni.as_ref().and_then(|name| name.invalid),
                    at: at(session.at_ns),
                })
                .collect(),
            sessions_left_out: one.sessions_left_out,
        });
        (shown.collect(), self.left_out)
    }

    /// When the listed processes were given what they hold, and how the clock stood: REALTIME − BOOTTIME.
    pub(super) fn moments(&self) -> impl Iterator<Item = (u64, i64)> {
        self.found
            .iter()
            .flat_map(|one| {
                let began = one.started_inside.then_some(one.started_ns);
                began.into_iter().chain(one.sessions.iter().map(|session| session.at_ns))
            })
            .filter_map(|at_ns| Some((at_ns, self.offset_at(at_ns)?)))
    }

    /// How many have opened sessions so far, while it is not known whether that matters.
    pub(super) fn clients(&self) -> u64 {
        self.left_out.saturating_add(self.found.len() as u64)
    }
}

fn process(started: &ProcessContext) -> Process {
    let mut process =
        Process { pid: started.pid, tid: started.pid, comm: started.comm.clone(), ..Process::default() };
    started.identifies(&mut process);
    process
}
