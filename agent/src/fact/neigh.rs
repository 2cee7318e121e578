//! What happened to a neighbour.

use schemars::JsonSchema;
use serde::Serialize;

/// What made a neighbour change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourCause {
    /// An ARP or NDP packet arrived.
    Packet,
    /// Somebody asked for it through netlink, e.g. `ip neigh`.
    Netlink,
    /// The entry's timer ran out.
    Timer,
    /// Something was sent to it.
    Sent,
    /// Something was sent to an entry already removed.
    SentToRemoved,
    /// It was removed.
    Removed,
}
