//! What is in the way of a handshake, in words: the sentence's second half, the cause, and what the process that does not
//! answer waits for itself.

use std::net::SocketAddr;

use ebpf_probes::abi::Owner;

use super::{
    idle::{Idle, throttled_words},
    obstacle::{Obstacle, Slowed, What},
    say::Says,
    stall::unread,
};
use crate::{
    fact::{Endpoint, Process},
    known::context::{LocalObject, LocalWait, SeenMount, SeenProcess, SeenThread},
    pipeline::incident::{Cause, Confidence, ObstacleDetails},
    records::comm_bytes,
    rules::{
        drops::fate,
        text::{self, duration, on_the_wire, place},
    },
    text::shown,
};

/// What a process that does not answer waits for: said of the first ones.
const CHAINED: usize = 2;

impl Says<'_> {
    /// What is in the way where nothing on the network is blamed.
    pub(super) fn obstacle(&self) -> Option<Obstacle<'_>> {
        match self.blame() {
            Some(_) => None,
            None => self.situation.obstacle(self.snapshot()),
        }
    }

    /// Why a hello is not read, as far as no obstacle says it.
    pub(super) fn idle(&self) -> Idle {
        match Idle::of(self.snapshot(), self.hs) {
            // Two looks during the stall say otherwise.
            Idle::Throttled(_) if self.situation.slowed.is_some() => Idle::NotSeen,
            idle => idle,
        }
    }

    /// It as the cause.
    pub(super) fn obstacle_cause(&self, obstacle: &Obstacle<'_>) -> Cause {
        let mut cause =
            Cause { kind: obstacle.what.kind(), confidence: obstacle.confidence, ..Cause::default() };
        match &obstacle.what {
            What::Waits(_, wait) => {
                cause.process = wait.ends.first().and_then(|end| self.end(end));
                if let LocalObject::DnsServer { server } = wait.what {
                    cause.destination = Some(self.endpoint(server));
                }
            }
            What::SilentClient(_, socket) => cause.destination = Some(self.endpoint(socket.remote)),
            _ => {}
        }
        cause
    }

    /// What else the schema has of it.
    pub(super) fn obstacle_details(&self, obstacle: &Obstacle<'_>) -> Option<ObstacleDetails> {
        let limits = self.snapshot().map(|seen| &seen.limits);
        let nothing = ObstacleDetails::default();
        Some(match &obstacle.what {
            What::Waits(thread, wait) => {
                let of = ObstacleDetails {
                    thread: Some(thread.shown.tid),
                    process_state: wait.ends.first().map(|end| end.state.clone()),
                    ..nothing
                };
                match &wait.what {
                    LocalObject::UnixSocket { path } => {
                        ObstacleDetails { path: path.clone(), sends: Some(wait.sends), ..of }
                    }
                    LocalObject::Pipe => ObstacleDetails { sends: Some(wait.sends), ..of },
                    LocalObject::DnsServer { .. } => of,
                    LocalObject::FileSystem(mount) => ObstacleDetails {
                        path: mount.path.clone(),
                        mount: mount.point.clone(),
                        file_system: mount.fs_type.clone(),
                        source: mount.source.clone(),
                        ..of
                    },
                }
            }
            What::SilentClient(thread, _) => ObstacleDetails { thread: Some(thread.shown.tid), ..nothing },
            What::Frozen => ObstacleDetails { cgroup: limits?.frozen_group.clone(), ..nothing },
            What::Throttled(Slowed { quota, over_ns }) => ObstacleDetails {
                cgroup: limits?.quota_group.clone(),
                cpu_quota_us: Some(quota.allowed_us),
                cpu_period_us: Some(quota.period_us),
                cpu_periods: Some(quota.periods),
                cpu_throttled_periods: Some(quota.throttled),
                observed_ms: over_ns.map(|over_ns| over_ns / 1_000_000),
                ..nothing
            },
            What::Memory(memory) => ObstacleDetails {
                cgroup: Some(memory.group.clone()),
                memory_bytes: Some(memory.current_bytes),
                memory_high_bytes: Some(memory.high_bytes),
                ..nothing
            },
            What::Descriptors(used) => ObstacleDetails {
                descriptors: Some(used.open),
                descriptors_limit: Some(used.limit),
                ..nothing
            },
            What::NotAccepting(listener) => ObstacleDetails {
                accept_queue: Some(listener.queued),
                accept_queue_limit: Some(listener.limit),
                ..nothing
            },
        })
    }

    /// A process at the other end, with what is known of it.
    fn end(&self, end: &SeenProcess) -> Option<Process> {
        let owner = Owner {
            process: end.pid,
            thread: end.pid,
            comm: comm_bytes(&end.comm),
            netns: self.hs.owner.netns,
            ..Owner::default()
        };
        self.view.world.known.named(&owner)
    }

    /// A client of this service, or a server that it asks.
    fn endpoint(&self, at: SocketAddr) -> Endpoint {
        let address = crate::records::address_bytes(at.ip());
        self.view.world.known.at(address, at.port(), &self.hs.owner)
    }

    /// The second half of the sentence "has not answered the ClientHello: …".
    pub(super) fn obstacle_words(&self, obstacle: &Obstacle<'_>) -> String {
        match &obstacle.what {
            What::Waits(thread, wait) => {
                let doubt = obstacle.confidence == Confidence::Possible;
                let verb = match (doubt, self.ended.is_some()) {
                    (true, false) => "may be waiting",
                    (true, true) => "may have waited",
                    (false, false) => "is waiting",
                    (false, true) => "waited",
                };
                format!("{} {verb} {}", self.thread_of(thread), self.wait_words(thread, wait))
            }
            What::SilentClient(thread, socket) => {
                let client = place(&self.endpoint(socket.remote));
                let silence = duration(u64::from(socket.received_ms_ago) * 1_000_000);
                let verb = if self.ended.is_some() { "waited" } else { "is waiting" };
                format!(
                    "{} {verb} for the client {client}, which has connected and had sent nothing for {silence} when \
                     looked at",
                    self.thread_of(thread)
                )
            }
            What::Frozen => "its control group is frozen".into(),
            What::Throttled(slowed) => slowed_words(slowed),
            What::Memory(memory) => format!(
                "its control group is throttled for its memory: {} MiB are in use, and above memory.high ({} MiB) its \
                 threads are slowed",
                memory.current_bytes >> 20,
                memory.high_bytes >> 20
            ),
            What::Descriptors(used) => format!(
                "it waits in the accept queue, and {} of {} descriptors are in use: accept fails (EMFILE)",
                used.open, used.limit
            ),
            What::NotAccepting(listener) => format!(
                "{} in the accept queue (limit {}) while an event loop of the process is idle: the service has stopped \
                 accepting, as one does at a limit on connections",
                match listener.queued {
                    1 => "1 connection waits".to_owned(),
                    queued => format!("{queued} connections wait"),
                },
                listener.limit
            ),
        }
    }

    /// The thread that owes the message, or another one of the process.
    fn thread_of(&self, thread: &SeenThread) -> String {
        let tid = thread.shown.tid;
        let threads = self.snapshot().map_or(0, |seen| seen.threads.len() as u32 + seen.threads_left_out);
        if tid == self.hs.reader.thread && !unread(self.hs) {
            self.thread()
        } else if threads == 1 {
            "its only thread".into()
        } else {
            format!("thread {tid} of it")
        }
    }

    fn wait_words(&self, thread: &SeenThread, wait: &LocalWait) -> String {
        let who = ends_words(wait);
        match &wait.what {
            LocalObject::UnixSocket { path } => {
                let socket = match path {
                    Some(path) => format!("unix socket {}", shown(path)),
                    None => "a unix socket".to_owned(),
                };
                match (who, wait.sends) {
                    (Some(who), true) => {
                        format!("until {who} takes what is sent to {socket}: its queue is full")
                    }
                    (None, true) => format!("until what is sent to {socket} is taken: its queue is full"),
                    (Some(who), false) => format!("for {who} to answer on {socket}"),
                    (None, false) => format!("for an answer on {socket}"),
                }
            }
            LocalObject::Pipe => match (who, wait.sends) {
                (Some(who), true) => format!("until {who} reads from a pipe that is full"),
                (None, true) => "until a pipe that is full is read from".into(),
                (Some(who), false) => format!("for {who} to write to a pipe"),
                (None, false) => "for what comes through a pipe".into(),
            },
            LocalObject::DnsServer { server } => {
                let serves = who.map(|who| format!(", which {who} serves,")).unwrap_or_default();
                format!("for the DNS server {}{serves} to answer", on_the_wire(&self.endpoint(*server)))
            }
            LocalObject::FileSystem(mount) => {
                let call = thread.shown.syscall.as_deref().map(|call| format!(" in {call}"));
                let path = mount.path.as_ref().map(|path| format!(" of {}", shown(path)));
                let serves = who.map(|who| format!("; {who} serves it")).unwrap_or_default();
                format!(
                    "{}{} for {}, which does not answer{serves}",
                    call.unwrap_or_default(),
                    path.unwrap_or_default(),
                    mount_words(mount)
                )
                .trim_start()
                .to_owned()
            }
        }
    }

    /// What the processes that do not answer wait for themselves, as far as connects and lookups show it.
    pub(super) fn chained(&self, obstacle: &Obstacle<'_>) -> Vec<String> {
        let What::Waits(_, wait) = &obstacle.what else { return vec![] };
        let mut said = Vec::new();
        for end in &wait.ends {
            let (world, name) = (self.view.world, end.called());
            let mut lookups = world.lookup_ops(|owner| owner.process == end.pid);
            lookups.retain(|op| op.ended_ns.is_none());
            lookups.sort_by_key(|op| (op.started_ns, op.cookie));
            for op in lookups.into_iter().take(CHAINED) {
                let server = world.known.at(op.server, 53, &op.owner);
                let asked = text::count(op.queries.into(), "query", "queries");
                let to = on_the_wire(&server);
                said.push(format!(
                    "{name} itself waits for the DNS server {to} to look up {} {}: {asked}, no answer.",
                    op.query_type, op.name
                ));
            }
            let mut connects: Vec<_> = world
                .connect_ops()
                .filter(|op| op.connect.owner.process == end.pid && op.ended_ns.is_none())
                .collect();
            connects.sort_by_key(|op| (op.connect.started_ns, op.connect.cookie));
            for op in connects.into_iter().take(CHAINED) {
                let to = place(&world.known.destination(&op.connect));
                said.push(format!(
                    "{name} itself waits for a connect to {to}: {}.",
                    fate(&op.connect, world)
                ));
            }
        }
        said.truncate(CHAINED);
        said
    }
}

/// `nscd[77], which is stopped`; of several the first two.
fn ends_words(wait: &LocalWait) -> Option<String> {
    let first = wait.ends.first()?;
    let stopped = wait.ends.iter().all(SeenProcess::is_stopped);
    let fate = if stopped { " (stopped)" } else { "" };
    Some(match wait.ends.get(1) {
        Some(second) => format!("{} or {}{fate}", first.called(), second.called()),
        None => format!("{}{fate}", first.called()),
    })
}

/// `the NFS file system /home (192.0.2.7:/home)`.
fn mount_words(mount: &SeenMount) -> String {
    let family = mount.family.name();
    let Some(point) = &mount.point else { return format!("a {family} file system") };
    let source = mount.source.as_ref().map(|source| format!(", {}", shown(source))).unwrap_or_default();
    let fs_type = mount.fs_type.as_deref().unwrap_or_default();
    format!("the {family} file system at {} ({}{source})", shown(point), shown(fs_type))
}

fn slowed_words(slowed: &Slowed) -> String {
    let Slowed { quota, over_ns: Some(over_ns) } = slowed else { return throttled_words(&slowed.quota) };
    format!(
        "its control group is throttled: it has used up its CPU quota of {} µs in {} % of the last {} periods of {} µs \
         ({})",
        quota.allowed_us,
        quota.share(),
        quota.periods,
        quota.period_us,
        duration(*over_ns)
    )
}
