//! Neighbours: entries of the ARP and NDP tables, and what their MACs are worth.

mod apply;
mod biography;
mod decode;
mod describe;
mod fact;
mod memory;
mod silence;
mod text;
mod transition;
mod ways;

pub use apply::{mac, state_name};
pub use biography::{Biography, Change, Turn, UnicastLost};
pub use decode::{Record, decode};
pub use fact::{
    NeighbourCause, NeighbourChanged, NeighbourClaimed, NeighbourConnectionReset, NeighbourMacMismatch,
    NeighbourPacketQueued, NeighbourRecovered, NeighbourRetransmit, NeighbourTableFull, NeighbourTransition,
    Retransmitted, What,
};
pub use memory::Memory;
pub use silence::{Forwarded, SilentNeighbour};
pub use ways::Hop;
