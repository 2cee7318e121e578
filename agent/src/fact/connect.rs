//! Words for connects.

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
