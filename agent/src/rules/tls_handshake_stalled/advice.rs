//! Why a handshake stalls, in two or three sentences, and what to do about it with the real values.

use ebpf_probes::{abi::ProbeId, probes::tls::stage};

use super::{
    aside::Unseen,
    idle::Idle,
    say::Says,
    situation::{Situation, Speaks, explained},
    stall::unread,
    suspects::{Blame, Relation, Suspect},
};
use crate::{
    fact::Process,
    known::context::Posture,
    pipeline::{
        incident::{Cause, Confidence},
        remedy::Remedy,
    },
    rules::{
        biography::{Fate, Past, past},
        drops,
        fetch::{self, For, HTTP},
        neighbours, resolvers,
        text::address,
        threads,
    },
    text::{shell::Command, shown},
};

impl Says<'_> {
    pub(super) fn why(&self, cause: &Cause) -> Vec<String> {
        let mut why = Vec::new();
        match self.blame() {
            Some(Blame { suspect: Suspect::Connect(op, silent), relation, .. }) => {
                if op.connect.tuple.remote_port == HTTP {
                    why.push(
                        "Plain HTTP inside a handshake is nearly always an issuer-certificate (AIA), CRL or OCSP fetch.".into(),
                    );
                }
                if silent.is_some() {
                    why.push(
                        "Below the connect a neighbour does not answer: no packet leaves for it.".into(),
                    );
                } else if let Some(verdict) = drops::verdict(&op.connect, self.view.world) {
                    why.push(verdict.why);
                } else if op.ended_ns.is_none() && !op.connect.is_seen() {
                    why.push("Whether this host itself drops its SYNs is seen with the next one.".into());
                } else if op.ended_ns.is_none() {
                    why.push("Silence is what a firewall that drops, a missing route back or a dead host looks like; a closed port would have refused.".into());
                }
                if let Some(past) = self.fetch_past() {
                    why.extend(past.why);
                }
                if let Some(heard) = resolvers::truncated(&op.connect, self.view.world) {
                    why.insert(0, resolvers::truncated_words(heard));
                }
                if *relation == Relation::SameProcess && self.posture() == Posture::EventLoop {
                    why.push(
                        "The handshake's thread runs an event loop and goes on serving others meanwhile."
                            .into(),
                    );
                }
            }
            Some(Blame { suspect: Suspect::Lookup(op), .. }) => {
                let world = self.view.world;
                if resolvers::upstream(op, world).is_some() {
                    why.push(resolvers::BEHIND.into());
                } else if resolvers::half(op, world).is_some() {
                    why.push(resolvers::HALF.into());
                } else {
                    why.push("A resolver that is silent costs its whole timeout (glibc: 5 s a try) inside each handshake.".into());
                }
            }
            Some(Blame { suspect: Suspect::Peer(..), .. }) => {
                why.push(
                    "The network is fine as far as that peer: it is the service there that owes the answer."
                        .into(),
                );
            }
            None => why.extend(self.idle_why()),
        }
        if self.situation.count > 1 {
            let unread = self.situation.waiting.values().filter(|unread| **unread).count();
            let behind = if unread > 0 && !unread_key(self.situation) {
                format!("; {unread} of those that wait are unread behind it")
            } else {
                String::new()
            };
            why.push(format!("{} handshakes so far{behind}.", self.situation.count));
        }
        if cause.confidence == Confidence::Possible && self.blame().is_some() {
            why.push("It fits in time and place, and so may other things: not proven.".into());
        }
        if !self.view.world.known.sees(ProbeId::CONNECT) || !self.view.world.known.sees(ProbeId::DNS) {
            why.push(
                "The connect or dns probe is not attached: what they would have seen is missing here.".into(),
            );
        }
        for narrowed in self.view.world.known.narrowed() {
            why.push(format!("Only {narrowed} were watched: what else the process did is missing here."));
        }
        why
    }

    /// What became of the entry of the neighbour that the connect goes by, where nothing else explains its silence.
    pub(super) fn fetch_past(&self) -> Option<Past> {
        let Some(Blame { suspect: Suspect::Connect(op, None), .. }) = self.blame() else { return None };
        let (connect, world) = (&op.connect, self.view.world);
        if connect.drops > 0 || !explained(&self.blame()?.suspect, self.view).is_empty() {
            return None;
        }
        let is_silent = op.ended_ns.is_none() && connect.is_seen() && world.stray_answer(connect).is_none();
        past(connect, connect.started_ns, if is_silent { Fate::Silent } else { Fate::Other }, self.view)
    }

    fn posture(&self) -> Posture {
        self.seen().map_or(Posture::Unknown, |thread| thread.posture)
    }

    /// What the threads of a process that blames nothing are doing, the commonest first.
    fn idle_why(&self) -> Vec<String> {
        let mut why = match self.obstacle() {
            Some(obstacle) => self.chained(&obstacle),
            None => self.doubts(),
        };
        let Some(snapshot) = self.snapshot() else { return why };
        why.extend(threads::doing(snapshot));
        why
    }

    /// What was left out, and so may be why after all.
    fn doubts(&self) -> Vec<String> {
        let left = &self.situation.left_out;
        let mut doubts = Vec::new();
        if !unread(self.hs) && matches!(left.posture, Posture::Descriptors | Posture::Processes) {
            doubts.push(
                "The process that is to answer it there may itself be waiting for something: that was not looked into.".into(),
            );
        }
        for unseen in &left.unseen {
            doubts.push(match unseen {
                Unseen::Thread => {
                    "The thread could not be looked at: it may wait for what was not seen.".into()
                }
                Unseen::BeforeStart => {
                    "It was under way before culprit started: of what the process began until then, \
                                        only connects are known."
                        .into()
                }
                Unseen::EventLoop => {
                    "What its event loop waits for beside connects, lookups and TCP peers (a timer, a \
                                      pipe, a unix socket, another thread) was not looked into."
                        .into()
                }
                Unseen::OtherThread => {
                    "It waits for another thread, and one of them waits for what was not looked \
                                        into."
                        .into()
                }
                Unseen::Sockets => "Not all of its sockets could be looked at.".into(),
                Unseen::Lost => "Some records of connects, lookups or handshakes were lost.".into(),
                // Said of every incident of this kind.
                Unseen::Probes | Unseen::Filtered => continue,
            });
        }
        doubts
    }

    /// Other incidents that explain what no thread reads.
    pub(super) fn caused_by(&self) -> Vec<String> {
        if let Some(blame) = self.blame() {
            return explained(&blame.suspect, self.view);
        }
        let process = self.hs.owner.process;
        let mut ids: Vec<String> = self
            .view
            .world
            .connect_ops()
            .filter(|op| unread(self.hs) && op.ended_ns.is_none() && op.connect.owner.process == process)
            .filter_map(|op| self.view.store.claimed(op.connect.cookie))
            .filter(|id| *id != self.situation.id)
            .map(str::to_owned)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) fn remedies(&self, process: Option<&Process>) -> Vec<Remedy> {
        let pid = process.map_or(0, |process| process.pid);
        let Some(blame) = self.blame() else {
            let remedies = |process: &Process| match self.obstacle() {
                Some(obstacle) => self.obstacle_remedies(&obstacle, process.pid),
                None => self.idle_remedies(process.pid),
            };
            return process.map(remedies).unwrap_or_default();
        };
        let cause = self.cause();
        let Some(to) = cause.destination else { return vec![] };
        let (ip, port) = (to.ip, to.port);
        match &blame.suspect {
            Suspect::Connect(_, Some((ip, silent))) => vec![
                neighbours::silent(*ip, silent, self.view.world),
                format!("or correct the address that is fetched from: {}", address(&to)).into(),
            ],
            Suspect::Connect(op, None) => {
                let mut remedies = match drops::verdict(&op.connect, self.view.world) {
                    Some(verdict) => verdict.remedies,
                    None => vec![format!("allow egress tcp/{port} to {ip}").into()],
                };
                if let Some(past) = self.fetch_past() {
                    remedies.splice(0..0, past.remedies);
                }
                if port == HTTP {
                    remedies.extend(self.fetch_remedies());
                } else {
                    let whose = process.map_or("the process".into(), |process| shown(&process.comm));
                    remedies.push(
                        format!(
                            "give that connect a short timeout, or move it out of the handshake of {whose}"
                        )
                        .into(),
                    );
                }
                remedies
            }
            Suspect::Lookup(op) => {
                let world = self.view.world;
                match resolvers::upstream(op, world) {
                    Some(upstream) => resolvers::behind(&upstream, world),
                    None if resolvers::half(op, world).is_some() => resolvers::half_lost(),
                    None => resolvers::silent(op, world),
                }
            }
            Suspect::Peer(socket, _) => vec![
                format!("look at the service at {}: it accepts and does not answer", address(&to)).into(),
                Remedy::from(format!("see the connection (descriptor {} of {pid}): ", socket.fd)).and(
                    resolvers::there(
                        &self.hs.reader,
                        Command::new("ss").arg("-tnoi").arg(format!("dst {ip} dport = :{port}")),
                        self.view.world,
                    ),
                ),
                "give that request a short timeout".into(),
            ],
        }
    }

    /// What to do when nothing is blamed.
    fn idle_remedies(&self, pid: u32) -> Vec<Remedy> {
        let go_on = || Command::new("kill").arg("-CONT").arg(pid);
        let group = || Command::new("cat").arg(format!("/proc/{pid}/cgroup"));
        let stacks =
            || Command::new("gdb").arg("-p").arg(pid).arg("-batch").arg("-ex").arg("thread apply all bt");
        let look = || {
            Remedy::from("see what its threads do: ")
                .and(Command::new("ps").words("-L -o tid,stat,wchan:32,comm -p").arg(pid))
                .and(" or ")
                .and(stacks())
        };
        match self.idle() {
            Idle::Stopped if unread(self.hs) => {
                vec![Remedy::from("once it is clear who stopped it: ").and(go_on())]
            }
            _ if self.posture() == Posture::Stopped => vec![go_on().into()],
            Idle::Frozen => vec![
                Remedy::from("see who froze the control group, and thaw it (docker unpause, or 0 into its cgroup.freeze): ")
                    .and(group()),
            ],
            Idle::Throttled(quota) => vec![
                Remedy::from(format!(
                    "raise the CPU quota of its control group, now {} µs in each {} µs (CPUQuota= of the unit, \
                     resources.limits.cpu of the pod): ",
                    quota.allowed_us, quota.period_us
                ))
                .and(group()),
            ],
            _ if self.situation.speaks() == Speaks::HardlyTls => {
                let port = self.hs.tuple.local_port;
                vec![
                    format!("if the service on port {port} is to speak TLS, turn it on there").into(),
                    format!("if not, see why {} speaks TLS to port {port}", self.peer().ip).into(),
                ]
            }
            _ if !unread(self.hs) => vec![
                Remedy::from("see where it is: ")
                    .and(stacks())
                    .and(" (or ")
                    .and(Command::new("jstack").arg(pid))
                    .and(", ")
                    .and(Command::new("py-spy").words("dump -p").arg(pid))
                    .and(")"),
            ],
            Idle::NotAccepting => vec![
                "look at its limits on connections: maxconn, worker_connections, a pause of its listener".into(),
                Remedy::from("see whether it may open more files: ")
                    .and(Command::new("cat").arg(format!("/proc/{pid}/limits"))),
            ],
            Idle::NobodyFree | Idle::NobodyAccepts if self.works_itself() => {
                vec!["give the service more threads, or shorten what they are busy with".into(), look()]
            }
            Idle::NobodyFree | Idle::NobodyAccepts => {
                vec!["bound the time of what its threads wait for, see above".into(), look()]
            }
            _ => vec![look()],
        }
    }

    /// Every thread that does not accept is busy with work of its own, not with waiting for something.
    fn works_itself(&self) -> bool {
        let at_work = |posture| matches!(posture, Posture::Running | Posture::Sleep);
        self.snapshot().is_some_and(|snapshot| {
            snapshot.threads.iter().all(|thread| thread.accepts || at_work(thread.posture))
        })
    }

    /// How to do without the fetch.
    fn fetch_remedies(&self) -> Vec<Remedy> {
        let process = if unread(self.hs) { self.hs.owner.process } else { self.hs.reader.process };
        let whom = if self.is_client() {
            For::Server(self.peer().ip)
        } else if self.hs.stage == stage::CLIENT_FINISH {
            For::Client
        } else {
            For::OwnChain
        };
        fetch::remedies(&fetch::loaded(process, self.view), whom)
    }
}

fn unread_key(situation: &Situation) -> bool {
    situation.key == "unread"
}
