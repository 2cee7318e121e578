//! Words for connects.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

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
    /// ETIMEDOUT: nobody answered any SYN.
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
    /// That is not the connecting process's own network namespace: a router, a container's node, or the server.
    pub elsewhere: bool,
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
        match (&self.netns, self.elsewhere) {
            (Some(netns), true) => write!(f, ", network namespace {}", crate::text::shown(netns)),
            (None, true) => f.write_str(", the host's own network namespace"),
            (_, false) => Ok(()),
        }
    }
}
