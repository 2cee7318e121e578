//! What keeps a process from going on where no connect, lookup or peer is blamed: a process of this host that does not
//! answer, a file system, a limit, or a client that connected and is silent. By what a look at the process showed; what
//! was not looked at is never to blame.

use ebpf_probes::probes::tls::{ADOPTED, Handshake};

use super::{
    idle::{Idle, accepted, slowed as is_slow, throttled},
    stall::{since_ns, unread},
};
use crate::{
    known::context::{
        DescriptorUse, LocalObject, LocalWait, MemoryHigh, Posture, Quota, SeenListener, SeenSocket,
        SeenThread, Snapshot,
    },
    pipeline::incident::{CauseKind, Confidence},
};

/// A quota used up in this share of the periods of a stall, in percent, is why it lasts.
const MOSTLY: u64 = 50;
/// A client is silent since before a hello came, to this much, milliseconds.
const SLACK_MS: u64 = 100;
const ESTABLISHED: u8 = 1;

/// What is in the way, and how sure that is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Obstacle<'a> {
    pub(super) what: What<'a>,
    pub(super) confidence: Confidence,
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What<'a> {
    /// A thread waits for this.
    Waits(&'a SeenThread, &'a LocalWait),
    /// A thread waits for the first bytes of a client.
    SilentClient(&'a SeenThread, &'a SeenSocket),
    /// The control group is frozen.
    Frozen,
    /// The control group uses up its CPU quota.
    Throttled(Slowed),
    /// The control group is above `memory.high`.
    Memory(&'a MemoryHigh),
    /// No descriptor is free for an accept.
    Descriptors(DescriptorUse),
    /// An event loop is idle while connections wait in the accept queue.
    NotAccepting(SeenListener),
}

/// A CPU quota, how often it was used up, and over what time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slowed {
    pub(super) quota: Quota,
    /// Between two looks during the stall; `None`: since the group was made.
    pub(super) over_ns: Option<u64>,
}

impl Slowed {
    /// What happened between two looks at the same group.
    pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Option<Self> {
        let over_ns = now.boot_ns.checked_sub(before.boot_ns).filter(|over_ns| *over_ns > 0)?;
        let same = before.process == now.process && before.limits.quota_group == now.limits.quota_group;
        let quota = now.limits.quota?.since(&before.limits.quota.filter(|_| same)?);
        Some(Self { quota, over_ns: Some(over_ns) })
    }
}

impl What<'_> {
    pub(super) fn kind(&self) -> CauseKind {
        match self {
            Self::Waits(_, wait) => match wait.what {
                LocalObject::UnixSocket { .. } => CauseKind::LocalService,
                LocalObject::Pipe => CauseKind::Pipe,
                LocalObject::FileSystem(_) => CauseKind::FileSystem,
                LocalObject::DnsServer { .. } => CauseKind::DnsLookup,
            },
            Self::SilentClient(..) => CauseKind::Peer,
            Self::Frozen => CauseKind::Frozen,
            Self::Throttled(_) | Self::Memory(_) => CauseKind::Throttled,
            Self::Descriptors(_) => CauseKind::ResourceLimit,
            Self::NotAccepting(_) => CauseKind::ListenLimit,
        }
    }
}

impl<'a> Obstacle<'a> {
    /// What is in the way of a handshake; `between` is what two looks during the stall showed.
    pub(super) fn of(
        snapshot: Option<&'a Snapshot>,
        hs: &Handshake,
        between: Option<Slowed>,
    ) -> Option<Self> {
        let seen = Seen { snapshot: snapshot?, hs };
        if seen.snapshot.threads.is_empty() || seen.all(Posture::Stopped) {
            return None;
        }
        if seen.snapshot.limits.frozen || seen.all(Posture::Frozen) {
            return Some(Self { what: What::Frozen, confidence: Confidence::Certain });
        }
        seen.throttled(between)
            .or_else(|| seen.slowed_for_memory())
            .or_else(|| seen.out_of_descriptors())
            .or_else(|| if unread(hs) { seen.keeps_unread() } else { seen.keeps_reader() })
            .or_else(|| seen.not_accepting())
    }
}

/// Whether all that keeps a handshake is a processor: the thread that owes, or each that may, runs or would. That it is
/// none of a quota's doing is known only where there is no quota.
pub(super) fn computes(snapshot: &Snapshot, hs: &Handshake) -> bool {
    let seen = Seen { snapshot, hs };
    let runs = |thread: &SeenThread| thread.posture == Posture::Running;
    let owes = match unread(hs) {
        true => None,
        false => seen.reader(),
    };
    snapshot.limits.quota.is_none()
        && match owes {
            Some(reader) => runs(reader),
            None => {
                let mut could = snapshot.threads.iter().filter(|thread| !is_idle(thread)).peekable();
                could.peek().is_some() && could.all(runs)
            }
        }
}

/// A look at the process of a stalled handshake.
struct Seen<'a, 'b> {
    snapshot: &'a Snapshot,
    hs: &'b Handshake,
}

impl<'a> Seen<'a, '_> {
    fn all(&self, posture: Posture) -> bool {
        self.snapshot.threads.iter().all(|thread| thread.posture == posture)
    }

    /// The thread that owes the next message, seen since it has read the last one.
    fn reader(&self) -> Option<&'a SeenThread> {
        let tid = self.hs.reader.thread;
        let mut threads = self.snapshot.threads.iter();
        let reader = threads.find(|thread| thread.shown.tid == tid && tid != 0)?;
        (self.snapshot.boot_ns >= since_ns(self.hs)).then_some(reader)
    }

    /// The thread that owes would run, and may not.
    fn owes_and_runs(&self) -> bool {
        let runs = |thread: &SeenThread| thread.posture == Posture::Running;
        match unread(self.hs) {
            true => self.snapshot.threads.iter().any(runs),
            false => self.reader().is_some_and(runs),
        }
    }

    fn throttled(&self, between: Option<Slowed>) -> Option<Obstacle<'a>> {
        if let Some(slowed) = between {
            let share = slowed.quota.share();
            let confidence = match share >= MOSTLY && self.owes_and_runs() {
                true => Confidence::Certain,
                false => Confidence::Likely,
            };
            let runs = self.snapshot.threads.iter().any(|thread| thread.posture == Posture::Running);
            return (runs && is_slow(&slowed.quota))
                .then_some(Obstacle { what: What::Throttled(slowed), confidence });
        }
        let quota = throttled(self.snapshot)?;
        let what = What::Throttled(Slowed { quota, over_ns: None });
        Some(Obstacle { what, confidence: Confidence::Likely })
    }

    /// Above `memory.high` a thread sleeps before it returns from the kernel.
    fn slowed_for_memory(&self) -> Option<Obstacle<'a>> {
        let sleeps = |thread: &SeenThread| {
            thread.shown.wchan.as_deref().is_some_and(|name| name.contains("mem_cgroup_handle_over_high"))
        };
        let memory = self.snapshot.limits.memory.as_ref()?;
        let sure = self.reader().is_some_and(sleeps) && !unread(self.hs);
        let confidence = if sure { Confidence::Certain } else { Confidence::Likely };
        let any = self.snapshot.threads.iter().any(sleeps);
        any.then_some(Obstacle { what: What::Memory(memory), confidence })
    }

    /// `accept` fails for want of a descriptor: the hello waits in the queue of a listener of this process.
    fn out_of_descriptors(&self) -> Option<Obstacle<'a>> {
        let used = self.snapshot.descriptors.filter(|used| used.open >= used.limit)?;
        self.listener()?;
        let (queued, confidence) = self.queued()?;
        let waits = unread(self.hs) && queued;
        waits.then_some(Obstacle { what: What::Descriptors(used), confidence })
    }

    /// Whether the connection waits in the accept queue, and how sure that is: of one that came to lead when the one
    /// that was looked at was over, it is likely that it fares alike.
    fn queued(&self) -> Option<(bool, Confidence)> {
        let sure = accepted(self.snapshot, self.hs).is_some();
        let confidence = if sure { Confidence::Certain } else { Confidence::Likely };
        Some((!self.snapshot.accepted?, confidence))
    }

    /// The listener of this handshake's port, with its accept queue.
    fn listener(&self) -> Option<SeenListener> {
        let port = self.hs.tuple.local_port;
        self.snapshot.listeners.iter().find(|listener| listener.local.port() == port).copied()
    }

    fn not_accepting(&self) -> Option<Obstacle<'a>> {
        if !unread(self.hs) || Idle::of(Some(self.snapshot), self.hs) != Idle::NotAccepting {
            return None;
        }
        let listener = self.listener().filter(|listener| listener.queued > 0)?;
        Some(Obstacle { what: What::NotAccepting(listener), confidence: Confidence::Likely })
    }

    /// What the thread that has read the hello waits for; or, if it waits for other threads, what the only one of
    /// them that waits for something of this host waits for.
    fn keeps_reader(&self) -> Option<Obstacle<'a>> {
        let Some(reader) = self.reader() else { return self.keeps_all() };
        if let Some(wait) = waits(reader) {
            return Some(Obstacle { what: What::Waits(reader, wait), confidence: sureness(wait) });
        }
        if reader.posture != Posture::Threads {
            return None;
        }
        let others = self.snapshot.threads.iter().filter(|thread| thread.shown.tid != reader.shown.tid);
        let (thread, wait) = self.one_wait(others.filter(|thread| !is_idle(thread)))?;
        let confidence = sureness(wait).min(Confidence::Likely);
        Some(Obstacle { what: What::Waits(thread, wait), confidence })
    }

    /// Who read it before culprit started is not known: the one thing that every thread with something to do waits for.
    fn keeps_all(&self) -> Option<Obstacle<'a>> {
        if self.hs.flags & ADOPTED == 0 || self.hs.reader.thread != 0 || self.snapshot.threads_left_out != 0 {
            return None;
        }
        let (thread, wait) = self.one_wait(self.snapshot.threads.iter().filter(|thread| !is_idle(thread)))?;
        let confidence = sureness(wait).min(Confidence::Likely);
        Some(Obstacle { what: What::Waits(thread, wait), confidence })
    }

    /// What every thread that could take or read the connection waits for.
    fn keeps_unread(&self) -> Option<Obstacle<'a>> {
        let threads = &self.snapshot.threads;
        let (queued, known) = self.queued()?;
        if queued && threads.iter().any(|thread| thread.accepts) {
            return None;
        }
        let whole = self.snapshot.threads_left_out == 0;
        // Who waits for another thread, or for time, may be a worker without work.
        let could = || threads.iter().filter(|thread| !is_idle(thread));
        let idle = threads.iter().any(|thread| is_idle(thread) && !thread.accepts);
        // Those that are left out show less than those that are not.
        let most = if idle || !whole { Confidence::Likely } else { known };
        if let Some((thread, wait)) = self.one_wait(could()) {
            let by_its_own = !wait.sends && wait.ends.iter().any(|end| end.related);
            let confidence = sureness(wait).min(most);
            // A worker that waits for work from its parent is idle.
            let what = What::Waits(thread, wait);
            return (!by_its_own).then_some(Obstacle { what, confidence });
        }
        let first = could().next()?;
        let silent = self.silent_client(first)?;
        let all = could().all(|thread| self.silent_client(thread).is_some());
        let what = What::SilentClient(first, silent);
        (all && whole).then_some(Obstacle { what, confidence: most })
    }

    /// The one thing that all of these wait for.
    fn one_wait(
        &self,
        mut threads: impl Iterator<Item = &'a SeenThread>,
    ) -> Option<(&'a SeenThread, &'a LocalWait)> {
        let first = threads.next()?;
        let wait = waits(first)?;
        let same = |other: &SeenThread| waits(other).is_some_and(|other| is_same(other, wait));
        threads.all(same).then_some((first, wait))
    }

    /// The client of this service that a thread waits for, and that has sent nothing since before the hello came.
    fn silent_client(&self, thread: &SeenThread) -> Option<&'a SeenSocket> {
        let [cookie] = thread.sockets.as_slice() else { return None };
        let alone = thread.posture == Posture::Descriptors && !thread.accepts && *cookie != self.hs.cookie;
        let socket = self.snapshot.sockets.iter().find(|socket| socket.cookie == *cookie && alone)?;
        let of_the_service = socket.inbound == Some(true)
            && socket.state == ESTABLISHED
            && socket.local.port() == self.hs.tuple.local_port;
        let waited_ms = self.snapshot.boot_ns.saturating_sub(self.hs.moved_ns) / 1_000_000;
        let silent = socket.received_bytes == 0
            && socket.unread_bytes == 0
            && u64::from(socket.received_ms_ago) + SLACK_MS >= waited_ms;
        (of_the_service && silent).then_some(socket)
    }
}

/// What a thread waits for on this machine, if it waits.
fn waits(thread: &SeenThread) -> Option<&LocalWait> {
    let held = matches!(thread.posture, Posture::Running | Posture::Stopped | Posture::Frozen);
    thread.local.as_ref().filter(|_| !held)
}

/// It may have nothing to do.
fn is_idle(thread: &SeenThread) -> bool {
    let idle = matches!(thread.posture, Posture::Threads | Posture::Sleep);
    thread.accepts || (idle && thread.local.is_none())
}

fn is_same(one: &LocalWait, other: &LocalWait) -> bool {
    match (&one.what, &other.what) {
        // Files of one file system.
        (LocalObject::FileSystem(one), LocalObject::FileSystem(other)) => {
            (one.family, &one.point) == (other.family, &other.point)
        }
        (LocalObject::UnixSocket { path: Some(one) }, LocalObject::UnixSocket { path: Some(other) }) => {
            one == other
        }
        _ => one == other,
    }
}

/// How sure it is that a thread in this wait waits for who is named.
fn sureness(wait: &LocalWait) -> Confidence {
    let related = wait.ends.iter().any(|end| end.related);
    match &wait.what {
        LocalObject::FileSystem(mount) if mount.sleeps_in_it => Confidence::Certain,
        LocalObject::FileSystem(_) | LocalObject::DnsServer { .. } => Confidence::Likely,
        // Workers of a program hand each other work that way.
        _ if related => Confidence::Likely,
        LocalObject::UnixSocket { path: None } | LocalObject::Pipe if wait.ends.is_empty() => {
            Confidence::Possible
        }
        LocalObject::UnixSocket { .. } | LocalObject::Pipe => Confidence::Certain,
    }
}
