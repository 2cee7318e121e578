//! What happens to connects, as facts.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fact::{Endpoint, HostIcmp, Protocol, is_false};

/// What became of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The peer accepted.
    Established,
    /// ECONNREFUSED: a reset, or an ICMP port unreachable.
    Refused,
    /// ECONNRESET.
    Reset,
    /// ETIMEDOUT: no SYN was answered.
    TimedOut,
    /// EHOSTUNREACH: no neighbour, or a router said so.
    HostUnreachable,
    /// ENETUNREACH: no route.
    NetUnreachable,
    /// Closed while pending, by the application or an administrator.
    Aborted,
    /// EPERM, EACCES: a policy of this host.
    Denied,
    /// Another error; `errno` names it.
    Failed,
    /// Over, and its end was not seen: the kernel left a program out.
    Unseen,
}

impl Outcome {
    /// As JSON writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::HostUnreachable => "host_unreachable",
            Self::NetUnreachable => "net_unreachable",
            Self::Aborted => "aborted",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Unseen => "unseen",
        }
    }
}

/// Which packet of a connect it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DroppedPacket {
    /// The SYN.
    Syn,
    /// The peer's answer to it.
    SynAck,
    /// A reset.
    Reset,
}

/// How far a packet had come, in the order of the network stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropPlace {
    /// On its way out of the stack that made it: netfilter's output and postrouting, cgroup egress, tc egress.
    Output,
    /// It had arrived and was not routed yet: XDP, tc ingress, netfilter's ingress and prerouting.
    Prerouting,
    /// It was to be forwarded.
    Forward,
    /// It had reached the host it was for.
    Input,
}

/// Where this host dropped a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DropSite {
    /// Which packet, when it could be read.
    pub packet: Option<DroppedPacket>,
    /// How far it had come.
    pub place: DropPlace,
    /// The device it was on; absent when it had none yet.
    pub device: Option<String>,
    /// The network namespace it was in: its name, or `net:[inode]`; absent for the host's own.
    pub netns: Option<String>,
    /// It was another one than the connecting process's own network namespace: a router's, a container's node's, or the
    /// server's.
    pub other_netns: bool,
}

impl DroppedPacket {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Reset => "reset",
        }
    }
}

impl DropPlace {
    /// As JSON writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Input => "input",
        }
    }
}

impl fmt::Display for DropSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = self.packet.map_or("packet", DroppedPacket::name);
        write!(f, "{packet}, {}", self.place.name())?;
        if let Some(device) = &self.device {
            write!(f, ", {}", crate::text::shown(device))?;
        }
        match (&self.netns, self.other_netns) {
            (Some(netns), true) => write!(f, ", network namespace {}", crate::text::shown(netns)),
            (None, true) => f.write_str(", the host's own network namespace"),
            (_, false) => Ok(()),
        }
    }
}
/// What happened; `kind` names it. Durations are in milliseconds; what is absent is not known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "ConnectFact")]
pub enum What {
    /// A connect began (TCP), or a UDP socket got a peer.
    ConnectStarted {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
    },
    /// A SYN was retransmitted.
    SynRetransmitted {
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// How many retransmissions so far.
        syn_retransmits: u32,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// This host dropped a packet of a pending connect.
    ConnectDropped {
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// The kernel's reason, without its prefix.
        reason: String,
        /// Packets of this connect dropped here so far.
        drops: u32,
        /// Which packet it was and where.
        site: Option<DropSite>,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// A connect is still unanswered.
    ConnectPending {
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// SYNs retransmitted so far.
        syn_retransmits: u32,
        /// Packets of this connect dropped on this host so far.
        drops: u32,
        /// The ICMP error with which this host itself answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_host: Option<HostIcmp>,
        /// It was pending before culprit started.
        #[serde(skip_serializing_if = "is_false")]
        since_before_start: bool,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// A connect ended, or failed before it began.
    ConnectEnded {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where from; port 0 when none was chosen.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// What became of it.
        outcome: Outcome,
        /// The error by name, e.g. `ECONNREFUSED`.
        errno: Option<String>,
        /// The ICMP error with which this host itself answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_host: Option<HostIcmp>,
        /// An error that had come by ICMP and that the process did not read from the socket before it closed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        unread_errno: Option<String>,
        /// SYNs retransmitted.
        syn_retransmits: u32,
        /// It was pending before culprit started.
        #[serde(skip_serializing_if = "is_false")]
        since_before_start: bool,
        /// Time from call to end.
        duration_ms: f64,
    },
    /// A listener ignored a SYN, because its accept queue is full: the process is the listener's.
    ListenQueueFull {
        /// Where the SYN was sent.
        local: Endpoint,
        /// Who sent it.
        peer: Endpoint,
        /// Connections that wait to be accepted.
        queued: u32,
        /// The queue's limit; it lets in one more.
        limit: u32,
        /// SYNs ignored so far.
        ignored_syns: u64,
        /// Time since the first of them.
        elapsed_ms: f64,
    },
    /// Data of an established connection is sent again and not acknowledged.
    DataUnacknowledged {
        /// This host's end.
        local: Endpoint,
        /// The other end.
        peer: Endpoint,
        /// Bytes sent and not acknowledged.
        unacked_bytes: u32,
        /// Timeouts in a row after which they were sent again.
        retransmits: u32,
        /// Bytes of data in the segment that was last sent again; absent when none was seen.
        segment_bytes: Option<u32>,
        /// It was so before culprit started.
        #[serde(skip_serializing_if = "is_false")]
        since_before_start: bool,
        /// Time since it was sent first.
        elapsed_ms: f64,
    },
    /// Such data was acknowledged, or its connection ended.
    DataSettled {
        /// This host's end.
        local: Endpoint,
        /// The other end.
        peer: Endpoint,
        /// What became of it.
        end: DataEnd,
        /// Time since it was sent first.
        duration_ms: f64,
    },
}

/// What became of data that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataEnd {
    /// The peer acknowledged it.
    Acknowledged,
    /// The peer's window is closed: its program does not read.
    WindowClosed,
    /// The process closed the connection.
    Closed,
    /// The peer, or something on the way, reset the connection.
    Reset,
    /// The kernel gave up sending it (ETIMEDOUT).
    TimedOut,
    /// The connection ended in another way, or how was not seen.
    Ended,
}

impl DataEnd {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::WindowClosed => "not taken: the peer's window is closed",
            Self::Closed => "given up: the process closed the connection",
            Self::Reset => "lost: the connection was reset",
            Self::TimedOut => "given up by the kernel (ETIMEDOUT)",
            Self::Ended => "over: the connection ended",
        }
    }
}
