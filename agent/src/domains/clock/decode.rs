//! Records of the wall clock: calls, moves, and what servers say of the time.

use bytes::Bytes;
use ebpf_probes::{
    abi::Kind,
    probes::clock::{ClockMoved, ClockRecord, ClockSuspended, DateRecord},
};

use crate::{
    domains::Mentions,
    records::{Error, read},
};

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "decoded by value: a box would be an allocation a record")]
pub enum Record {
    /// A call set or slewed the clock, or was refused.
    Set(ClockRecord),
    /// The wall clock moved between two looks.
    Moved(ClockMoved),
    /// The machine slept.
    Suspended(ClockSuspended),
    /// A plaintext HTTP server said what time it is.
    HttpDate(DateRecord),
}

impl Record {
    /// What has to be known before it is applied.
    pub fn mentions(&self) -> Mentions<'_> {
        match self {
            Self::Set(record) => Mentions::owner(&record.owner),
            Self::Moved(_) | Self::Suspended(_) | Self::HttpDate(_) => Mentions::default(),
        }
    }
}

/// Decodes a record of one of the probe's kinds.
pub fn decode(kind: Kind, record: &Bytes) -> Result<Record, Error> {
    Ok(match kind {
        Kind::CLOCK_SET => Record::Set(read(record, 0)?),
        Kind::CLOCK_MOVED => Record::Moved(read(record, 0)?),
        Kind::CLOCK_SUSPENDED => Record::Suspended(read(record, 0)?),
        Kind::HTTP_DATE => Record::HttpDate(read(record, 0)?),
        other => return Err(Error::UnknownKind(other.0)),
    })
}
