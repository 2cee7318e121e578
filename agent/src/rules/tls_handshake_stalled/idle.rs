//! ClientHellos that no thread has read: what the service does instead. A fetch may come before the first read
//! (between accept and the hello's reading), and so may anything else; "no thread is free" is said only when
//! every thread that could read was seen busy.

use ebpf_probes::{abi::Owner, probes::tls::Handshake};

use crate::known::context::{Posture, Quota, SeenThread, Snapshot};

/// A quota used up in this share of the periods, in percent, slows what runs under it.
const THROTTLED: u64 = 10;

/// Since when a service could have begun something for a hello that was not read: since the connection is
/// established, or, when that is not known, since the hello came. What is begun between accept() and the first
/// read is begun for the connection, whether or not the hello is already there.
pub(super) fn since_ns(hs: &Handshake) -> u64 {
    match hs.established_ns {
        0 => hs.moved_ns,
        established => established.min(hs.moved_ns),
    }
}

/// The handshake as if `process` had read it as soon as it could.
pub(super) fn as_if_read(hs: &Handshake, process: &Owner) -> Handshake {
    let since = since_ns(hs);
    Handshake { reader: Owner { thread: 0, ..*process }, read_ns: since, moved_ns: since, ..*hs }
}

/// Why it is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    /// The process was not looked at, or is gone.
    NotSeen,
    /// Every thread is stopped.
    Stopped,
    /// Its control group is frozen.
    Frozen,
    /// Its control group has used up its CPU quota again and again.
    Throttled(Quota),
    /// Accepted, and every thread that could read is busy.
    NobodyFree,
    /// In the accept queue, and every thread is busy.
    NobodyAccepts,
    /// In the accept queue, and a thread waits for events all the same.
    NotAccepting,
    /// Accepted, and some thread may be free.
    Accepted,
    /// In the accept queue, and some thread may be free.
    Queued,
    /// Whether it is accepted is not known.
    Unread,
}

impl Idle {
    pub(super) fn of(snapshot: Option<&Snapshot>, hs: &Handshake) -> Self {
        let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.threads.is_empty()) else {
            return Self::NotSeen;
        };
        let threads = &snapshot.threads;
        let all = |posture: Posture| threads.iter().all(|thread| thread.posture == posture);
        if all(Posture::Stopped) {
            return Self::Stopped;
        }
        if snapshot.limits.frozen || all(Posture::Frozen) {
            return Self::Frozen;
        }
        if let Some(quota) = throttled(snapshot) {
            return Self::Throttled(quota);
        }
        let whole = snapshot.threads_left_out == 0;
        // One that accepts hands on what it accepts: it is not the one to read.
        let could_read = || threads.iter().filter(|thread| !thread.accepts);
        match accepted(snapshot, hs) {
            Some(true) if whole && could_read().next().is_some() && could_read().all(is_busy) => {
                Self::NobodyFree
            }
            Some(true) => Self::Accepted,
            Some(false) if threads.iter().any(|thread| thread.posture == Posture::EventLoop) => {
                Self::NotAccepting
            }
            Some(false) if whole && threads.iter().all(|thread| !thread.accepts && is_busy(thread)) => {
                Self::NobodyAccepts
            }
            Some(false) => Self::Queued,
            None => Self::Unread,
        }
    }

    /// Something here keeps the process from reading, whatever its peers do.
    pub(super) fn is_held(self) -> bool {
        matches!(self, Self::Stopped | Self::Frozen | Self::Throttled(_))
    }

    /// The second half of the sentence "has not read the ClientHello: …".
    pub(super) fn words(self) -> String {
        match self {
            Self::NotSeen | Self::Unread => "no thread has read it".into(),
            Self::Stopped => "the process is stopped".into(),
            Self::Frozen => "its control group is frozen".into(),
            Self::Throttled(quota) => throttled_words(&quota),
            Self::NobodyFree => "the connection is accepted, and no thread is free to read from it".into(),
            Self::NobodyAccepts => "it waits in the accept queue, and no thread accepts".into(),
            Self::NotAccepting => {
                "it waits in the accept queue while an event loop of the process is idle: the \
                                   service has stopped accepting"
                    .into()
            }
            Self::Accepted => "the connection is accepted, and no thread has read from it".into(),
            Self::Queued => "it waits in the accept queue, and no thread has taken it".into(),
        }
    }
}

/// Whether the connection is the process's already, if the look was at this very connection.
pub(super) fn accepted(snapshot: &Snapshot, hs: &Handshake) -> Option<bool> {
    snapshot.accepted.filter(|_| snapshot.cookie == 0 || snapshot.cookie == hs.cookie)
}

/// It does something of its own, or waits for something in particular. Who waits for another thread may be a
/// worker without work.
fn is_busy(thread: &SeenThread) -> bool {
    !matches!(thread.posture, Posture::EventLoop | Posture::Threads | Posture::Unknown)
}

/// The CPU quota that slows the process: it has been used up often, and some thread would run.
pub(super) fn throttled(snapshot: &Snapshot) -> Option<Quota> {
    let would_run = || snapshot.threads.iter().any(|thread| thread.posture == Posture::Running);
    snapshot.limits.quota.filter(|quota| slowed(quota) && would_run())
}

/// It is used up often enough to slow what runs under it.
pub(super) fn slowed(quota: &Quota) -> bool {
    quota.share() >= THROTTLED
}

pub(super) fn throttled_words(quota: &Quota) -> String {
    let Quota { allowed_us, period_us, periods, throttled } = quota;
    format!(
        "its control group is throttled: the CPU quota of {allowed_us} µs in each {period_us} µs was used up in \
         {throttled} of {periods} periods"
    )
}
