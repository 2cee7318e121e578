//! What facts about neighbours can be asked.

use super::{NeighbourTransition, What, text};
use crate::{
    domains::{Describe, Failure, Weight},
    fact::Phrase,
    known::select::Select,
    text::shown,
};

impl Describe for What {
    fn weight(&self) -> Weight {
        Weight::of(match self {
            Self::NeighbourChanged(change) => {
                let lost = matches!(
                    change.transition,
                    NeighbourTransition::Failed | NeighbourTransition::PacketDropped
                );
                let moved = change.new_mac.is_some() && change.old_mac.is_some();
                lost || (moved && change.old_mac != change.new_mac)
            }
            Self::NeighbourTableFull(_)
            | Self::NeighbourMacMismatch(_)
            | Self::NeighbourClaimed(_)
            | Self::NeighbourRetransmit(_)
            | Self::NeighbourConnectionReset(_)
            | Self::NeighbourPacketQueued(_) => true,
            Self::NeighbourRecovered(_) => false,
        })
    }

    fn passes(&self, select: &Select) -> bool {
        match self {
            Self::NeighbourPacketQueued(waited) => select.peer(&waited.destination),
            Self::NeighbourRetransmit(unheard) => select.network(unheard.destination.ip),
            Self::NeighbourRecovered(heard) => select.network(heard.destination.ip),
            // A neighbour has no port: who asks for one wants what goes there.
            Self::NeighbourChanged(change) => select.ports.is_empty() && select.network(change.address),
            Self::NeighbourMacMismatch(mismatch) => select.network(mismatch.address),
            Self::NeighbourClaimed(claimed) => select.ports.is_empty() && select.network(claimed.address),
            // Without room in the table every new address of the family is concerned.
            Self::NeighbourTableFull(full) => select.family(full.address),
            Self::NeighbourConnectionReset(_) => true,
        }
    }

    /// Neighbours that fail or do not hear us concern every process.
    fn concerns_everyone(&self) -> bool {
        match self {
            Self::NeighbourChanged(change) => {
                change.failed || change.transition == NeighbourTransition::PacketDropped
            }
            Self::NeighbourTableFull(_)
            | Self::NeighbourMacMismatch(_)
            | Self::NeighbourClaimed(_)
            | Self::NeighbourRetransmit(_)
            | Self::NeighbourRecovered(_)
            | Self::NeighbourConnectionReset(_) => true,
            Self::NeighbourPacketQueued(_) => false,
        }
    }

    fn phrase(&self) -> Option<Phrase> {
        Some(text::phrase(self))
    }

    fn failure(&self) -> Option<Failure> {
        let (address, device, error) = match self {
            Self::NeighbourChanged(change) if change.failed => {
                (change.address, &change.device, "neighbour does not answer")
            }
            Self::NeighbourTableFull(full) => (full.address, &full.device, "neighbour table full"),
            _ => return None,
        };
        Some(Failure { destination: format!("{address} on {}", shown(device)), error: error.into() })
    }
}
