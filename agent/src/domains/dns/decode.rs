//! Records of DNS messages, and of where questions really go.

use bytes::Bytes;
use ebpf_probes::{
    abi::{Kind, Owner, Tuple},
    probes::dns::{DNS_BYTES_HEAD, DnsWire},
};

use crate::{
    domains::Mentions,
    records::{Error, read, rest},
};

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A DNS message, or part of one.
    Message(DnsMessage),
    /// Whither a socket's questions go, where that is not the server asked for.
    Wire(DnsWire),
}

/// A captured DNS message or TCP segment.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsMessage {
    /// The socket.
    pub cookie: u64,
    /// Who asked.
    pub owner: Owner,
    /// From where to where.
    pub tuple: Tuple,
    /// TCP sequence number.
    pub seq: u32,
    /// Its length on the wire.
    pub wire_len: u32,
    /// It arrived (an answer).
    pub ingress: bool,
    /// A question the kernel held: how often it was sent so far; 0 for a message that has just passed.
    pub queries: u32,
    /// The bytes, possibly fewer than on the wire.
    pub data: Bytes,
}

impl Record {
    /// What has to be known before it is applied.
    pub fn mentions(&self) -> Mentions<'_> {
        match self {
            Self::Message(message) => Mentions { vouched: true, ..Mentions::owner(&message.owner) },
            // Its process acted in a record before.
            Self::Wire(_) => Mentions::default(),
        }
    }
}

/// Decodes a record of one of the probe's kinds.
pub fn decode(kind: Kind, record: &Bytes) -> Result<Record, Error> {
    match kind {
        Kind::DNS_MESSAGE => Ok(Record::Message(DnsMessage {
            cookie: read(record, 16)?,
            owner: read(record, 24)?,
            tuple: read(record, 64)?,
            seq: read(record, 104)?,
            wire_len: read(record, 108)?,
            ingress: read::<u32>(record, 112)? != 0,
            queries: read(record, 116)?,
            data: rest(record, DNS_BYTES_HEAD)?,
        })),
        Kind::DNS_WIRE => Ok(Record::Wire(read(record, 0)?)),
        other => Err(Error::UnknownKind(other.0)),
    }
}
