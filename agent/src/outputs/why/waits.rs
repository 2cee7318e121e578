//! What is waited for, in words: by a thread as its snapshot shows it, and by a process as a whole.

use std::net::SocketAddr;

use serde::Serialize;

use crate::{
    domains::{
        Describe as _,
        connect::{ConnectOp, outcome, outcome_name},
        dns::LookupOp,
    },
    known::context::{LocalObject, LocalWait, Looked, Posture, Quota, SeenMount, SeenSocket, SeenThread},
    pipeline::{local_waits, remedy::Remedy, world::World},
    text::{duration::line as duration, shell::Command, shown},
};

/// A group whose quota was used up in so many percent of its periods is slowed by it.
const MOSTLY: u64 = 50;

/// Something that is waited for.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Wait {
    /// The thread that waits for it; 0 where that is not known.
    pub(super) thread: u32,
    /// The socket's, or 0.
    #[serde(skip)]
    pub(super) cookie: u64,
    /// What it is, in one word.
    pub(super) what: What,
    /// What is waited for: `waits for a connect to …`.
    pub(super) text: String,
    /// What to do about it.
    #[serde(skip)]
    pub(super) remedies: Vec<Remedy>,
}

/// Kinds of waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Connect,
    DnsLookup,
    Peer,
    Client,
    LocalService,
    Pipe,
    FileSystem,
    Kernel,
    Stopped,
    Frozen,
    Throttled,
    ResourceLimit,
    Unknown,
}

impl Wait {
    pub(super) fn new(what: What, text: String) -> Self {
        Self { thread: 0, cookie: 0, what, text, remedies: Vec::new() }
    }
}

/// What to do about the process, pipe or file system that a thread waits for.
pub(super) fn remedies(wait: &LocalWait) -> Vec<Remedy> {
    local_waits::remedies(wait, "keep what it reads there on a local disk")
}

/// A connect that waits, or waited; `None` where there is nothing to say of it.
pub(super) fn connect(op: &ConnectOp, world: &World, now_ns: u64) -> Option<String> {
    let pending = world.domains.connect.pending(&world.known, &op.connect, now_ns).phrase()?;
    let Some(ended_ns) = op.ended_ns else {
        return Some(format!("waits for a connect to {}: {}", pending.peer, pending.text));
    };
    let (outcome, _) = outcome(&op.connect);
    let after = duration(ended_ns.saturating_sub(op.connect.started_ns) as f64 / 1e6);
    Some(format!("waited for a connect to {}: {}, after {after}", pending.peer, outcome_name(outcome)))
}

/// A lookup that waits, or waited.
pub(super) fn lookup(op: &LookupOp, world: &World, now_ns: u64) -> String {
    let server = crate::fact::peer(&world.known.at(op.server, 53, &op.owner));
    let age = duration(op.ended_ns.unwrap_or(now_ns).saturating_sub(op.started_ns) as f64 / 1e6);
    let again = if op.queries > 1 { format!(", asked {} times", op.queries) } else { String::new() };
    let (verb, fate) = match op.ended_ns {
        None => ("waits", "no answer for"),
        Some(_) if op.failed => ("waited", "it failed after"),
        Some(_) => ("waited", "it was answered after"),
    };
    format!("{verb} for a lookup of {} {} at {server}: {fate} {age}{again}", op.query_type, op.name)
}

/// What a thread waits for, connects and lookups left out.
pub(super) fn of_thread(thread: &SeenThread, looked: &Looked) -> Vec<Wait> {
    let (tid, snapshot) = (thread.shown.tid, &looked.snapshot);
    let mut waits: Vec<Wait> = Vec::new();
    let peers = snapshot.sockets.iter().filter(|socket| socket.is_established() && thread.awaits(socket));
    waits.extend(peers.map(|socket| peer(socket, "waits", looked)));
    let datagrams = looked.datagrams.iter().filter(|(waiter, _)| *waiter == tid);
    waits.extend(datagrams.map(|(_, from)| datagram(*from, looked)));
    if let Some((queued, port)) = snapshot.queued() {
        let clients = snapshot.sockets.iter().filter(|socket| thread.awaits_client(socket));
        waits.extend(clients.map(|socket| client(socket, queued, port)));
    }
    // A DNS server is among the datagrams.
    let local = thread.local.as_ref().filter(|wait| !wait.is_network());
    if let Some(wait) = local {
        let what = match wait.what {
            LocalObject::UnixSocket { .. } => What::LocalService,
            LocalObject::Pipe => What::Pipe,
            LocalObject::FileSystem(_) => What::FileSystem,
            LocalObject::DnsServer { .. } => What::DnsLookup,
        };
        waits.push(Wait {
            remedies: remedies(wait),
            ..Wait::new(what, format!("waits for {}", object(wait)))
        });
    } else if thread.posture == Posture::Disk {
        let place = thread.shown.wchan.as_ref().map(|wchan| format!(" ({wchan})")).unwrap_or_default();
        waits.push(Wait::new(
            What::Kernel,
            format!("waits in the kernel{place}, usually for a disk or a file system, and cannot be ended"),
        ));
    }
    waits.into_iter().map(|wait| Wait { thread: tid, ..wait }).collect()
}

/// What holds a process as a whole, and what its event loops wait for.
pub(super) fn of_process(looked: &Looked) -> Vec<Wait> {
    let (snapshot, limits) = (&looked.snapshot, &looked.snapshot.limits);
    let mut waits = Vec::new();
    if snapshot.unfinished {
        let text = "could not be looked at within a second: looking hangs, as it may itself";
        waits.push(Wait::new(What::Unknown, text.into()));
        return waits;
    }
    let all = |posture: Posture| snapshot.threads.iter().all(|thread| thread.posture == posture);
    if limits.frozen || all(Posture::Frozen) {
        let group = limits.frozen_group.as_ref().map(|group| format!(" {}", shown(group)));
        let group = group.unwrap_or_default();
        waits.push(Wait {
            remedies: vec![
                "see who froze the control group, and thaw it: docker unpause, systemctl thaw".into(),
            ],
            ..Wait::new(What::Frozen, format!("is frozen by its control group{group}"))
        });
    } else if all(Posture::Stopped) {
        let cont = Command::new("kill").arg("-CONT").arg(snapshot.process);
        waits.push(Wait {
            remedies: vec![Remedy::from("once it is clear who stopped it: ").and(cont)],
            ..Wait::new(What::Stopped, "is stopped, by a signal or a debugger".into())
        });
    }
    if let Some(quota) = looked.quota.filter(|quota| quota.share() >= MOSTLY) {
        waits.push(throttled(quota, limits.quota_group.as_deref()));
    }
    if let Some(used) = snapshot.descriptors.filter(|used| used.limit > 0 && used.open >= used.limit) {
        waits.push(Wait {
            remedies: vec![
                format!("raise its limit on open files, now {} (LimitNOFILE= of its unit)", used.limit)
                    .into(),
            ],
            ..Wait::new(
                What::ResourceLimit,
                format!(
                    "has no descriptor free: {} of {} are in use, and accept() fails",
                    used.open, used.limit
                ),
            )
        });
    }
    // Some protocols end with something that is not answered.
    waits.extend(snapshot.of_event_loops().map(|socket| peer(socket, "may wait", looked)));
    waits
}

fn throttled(quota: Quota, group: Option<&str>) -> Wait {
    let group = group.map(|group| format!(" of {}", shown(group))).unwrap_or_default();
    let (throttled, periods) = (quota.throttled, quota.periods);
    Wait {
        remedies: vec![
            format!(
                "raise the CPU quota of its control group, now {} µs in each {} µs (CPUQuota= of the unit, \
                 resources.limits.cpu of the pod)",
                quota.allowed_us, quota.period_us
            )
            .into(),
        ],
        ..Wait::new(
            What::Throttled,
            format!("is throttled: its CPU quota{group} was used up in {throttled} of {periods} periods"),
        )
    }
}

/// When something was sent last over a connection, and that nothing came.
pub(super) fn said(socket: &SeenSocket) -> String {
    let heard = if socket.received_bytes == 0 { "not a byte has come" } else { "nothing has come since" };
    let unacknowledged = if socket.unacked > 0 { ", which is not acknowledged" } else { "" };
    match socket.has_sent() {
        true => {
            let ago = duration(f64::from(socket.sent_ms_ago));
            format!("last sent to {ago} ago{unacknowledged}, {heard}")
        }
        false => "nothing was sent yet, and not a byte has come".into(),
    }
}

/// A command, as it is run where a process is.
fn beside(looked: &Looked, command: Command) -> Command {
    match looked.elsewhere {
        true => command.by(Command::new("nsenter").arg("-t").arg(looked.snapshot.process).arg("-n")),
        false => command,
    }
}

fn peer(socket: &SeenSocket, verb: &str, looked: &Looked) -> Wait {
    let see = Command::new("ss").arg("-tnoi").arg(format!(
        "dst {} dport = :{}",
        socket.remote.ip(),
        socket.remote.port()
    ));
    Wait {
        cookie: socket.cookie,
        remedies: vec![
            Remedy::from("see that connection, and what its peer does: ").and(beside(looked, see)),
        ],
        ..Wait::new(What::Peer, format!("{verb} for {}: {}", socket.remote, said(socket)))
    }
}

/// What was sent is not known: it was before culprit started.
fn datagram(from: SocketAddr, looked: &Looked) -> Wait {
    const DNS: u16 = 53;
    if from.port() != DNS {
        return Wait::new(What::Peer, format!("waits for a datagram of {from}"));
    }
    let dig = Command::new("dig").arg(format!("@{}", from.ip())).words("-t NS -q .");
    Wait {
        remedies: vec![Remedy::from("ask that server: ").and(beside(looked, dig))],
        ..Wait::new(
            What::DnsLookup,
            format!("waits for DNS server {from}, which it asked before culprit started"),
        )
    }
}

fn client(socket: &SeenSocket, queued: u32, port: u16) -> Wait {
    let silent = match socket.received_bytes {
        0 => "which has not sent a byte".into(),
        _ => format!("of which nothing has come for {}", duration(f64::from(socket.received_ms_ago))),
    };
    let waiting = if queued == 1 { "1 connection waits" } else { &format!("{queued} connections wait") };
    Wait {
        cookie: socket.cookie,
        remedies: vec!["bound the time a client may be silent, or serve clients beside each other".into()],
        ..Wait::new(
            What::Client,
            format!(
                "waits for its client {}, {silent}, while {waiting} in the queue of :{port}",
                socket.remote
            ),
        )
    }
}

/// What is between a thread and what it waits for.
pub(super) fn object(wait: &LocalWait) -> String {
    match &wait.what {
        LocalObject::UnixSocket { path } => {
            let place = path.as_ref().map(|path| format!(" {}", shown(path))).unwrap_or_default();
            match wait.sends {
                true => format!("unix socket{place}, which is full"),
                false => format!("unix socket{place}"),
            }
        }
        LocalObject::Pipe if wait.sends => "a pipe, which is full".into(),
        LocalObject::Pipe => "a pipe".into(),
        LocalObject::FileSystem(mount) => file_system(mount),
        LocalObject::DnsServer { server } => format!("the DNS server {server}"),
    }
}

fn file_system(mount: &SeenMount) -> String {
    let at = mount.path.as_ref().or(mount.point.as_ref());
    let at = at.map(|at| format!(" {}", shown(at))).unwrap_or_default();
    let source = mount.source.as_ref().map(|source| format!(" ({})", shown(source))).unwrap_or_default();
    format!("the {} file system{at}{source}", mount.family.name())
}
