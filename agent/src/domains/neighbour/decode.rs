//! Records of neighbours: entries that change, and packets that show what their MACs are worth.

use bytes::Bytes;
use ebpf_probes::{
    abi::Kind,
    probes::neigh::{ClaimRecord, MacRecord, NeighRecord, UnheardRecord, WaiterRecord, unheard},
};

use crate::{
    domains::Mentions,
    records::{Error, read, read_grown},
};

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Record {
    /// A neighbour changed, or could not be made.
    Change(NeighRecord),
    /// A SYN came from another MAC than the cached one.
    Mac(MacRecord),
    /// Another MAC claims a neighbour's address.
    Claim(ClaimRecord),
    /// A neighbour does not hear us, or does again.
    Unheard(UnheardRecord),
    /// A packet waits for a neighbour that does not answer.
    Waiter(WaiterRecord),
}

impl Record {
    /// What has to be known before it is applied.
    pub fn mentions(&self) -> Mentions<'_> {
        match self {
            Self::Change(record) => Mentions::of_netns(record.netns(), Some(&record.owner)),
            Self::Mac(record) => Mentions::of_netns(record.netns(), None),
            Self::Claim(record) => Mentions::of_netns(record.netns(), None),
            Self::Waiter(record) => Mentions::of_netns(record.netns(), Some(&record.owner)),
            Self::Unheard(record) => Mentions {
                listeners: record.what == unheard::SYN_ACK,
                ..Mentions::of_netns(record.netns(), Some(&record.owner))
            },
        }
    }
}

/// Decodes a record of one of the probe's kinds.
pub fn decode(kind: Kind, record: &Bytes) -> Result<Record, Error> {
    Ok(match kind {
        Kind::NEIGH_CHANGE => Record::Change(read(record, 0)?),
        Kind::NEIGH_MISMATCH => Record::Mac(read_grown(record, 104)?),
        Kind::NEIGH_CLAIM => Record::Claim(read_grown(record, 80)?),
        Kind::NEIGH_UNHEARD => Record::Unheard(read_grown(record, 176)?),
        Kind::NEIGH_WAITER => Record::Waiter(read(record, 0)?),
        other => return Err(Error::UnknownKind(other.0)),
    })
}
