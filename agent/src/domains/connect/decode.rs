//! Records of connects and of their packets that were dropped.

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind},
    probes::connect::{
        CONNECT_WITHOUT_WIRE, Connect, ConnectRecord, DropRecord, Dropped, Overflow, OverflowRecord,
    },
};

use crate::{
    domains::Mentions,
    records::{Error, read, read_grown},
};

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Record {
    /// A connect began, went on, or ended.
    Connect(ConnectStep, Connect),
    /// A packet of a pending connect was not delivered: which, where and why.
    Dropped(Dropped),
    /// A listener ignores SYNs, because its accept queue is full.
    Overflow(Overflow),
}

/// What a connect did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectStep {
    /// It began.
    Start,
    /// A SYN was sent again.
    Retry,
    /// It ended.
    End,
    /// This host dropped one of its packets.
    Drop,
    /// It is still pending, long enough to be reported.
    Pending,
    /// It waits: for the correlation alone.
    Waiting,
}

impl Record {
    /// What has to be known before it is applied.
    pub fn mentions(&self) -> Mentions<'_> {
        match self {
            Self::Connect(_, connect) => Mentions {
                vouched: true,
                since_ns: Some(connect.started_ns),
                ..Mentions::owner(&connect.owner)
            },
            // Its process acted in a record before.
            Self::Dropped(_) => Mentions::default(),
            Self::Overflow(overflow) => {
                Mentions { listeners: true, ..Mentions::of_netns(overflow.netns, None) }
            }
        }
    }
}

/// Decodes a record of one of the probe's kinds.
pub fn decode(kind: Kind, record: &Bytes) -> Result<Record, Error> {
    let step = match kind {
        Kind::CONNECT_START => ConnectStep::Start,
        Kind::CONNECT_RETRY => ConnectStep::Retry,
        Kind::CONNECT_END => ConnectStep::End,
        Kind::CONNECT_DROP => ConnectStep::Drop,
        Kind::CONNECT_PENDING => ConnectStep::Pending,
        Kind::CONNECT_WAITING => ConnectStep::Waiting,
        Kind::CONNECT_DROP_PLACE => {
            return Ok(Record::Dropped(read_grown::<DropRecord>(record, 104)?.dropped));
        }
        Kind::LISTEN_QUEUE_FULL => {
            return Ok(Record::Overflow(read::<OverflowRecord>(record, 0)?.overflow));
        }
        other => return Err(Error::UnknownKind(other.0)),
    };
    Ok(Record::Connect(step, connect(record)?))
}

/// A connect. Recordings of versions that knew nothing of translations end where it begins.
fn connect(record: &[u8]) -> Result<Connect, Error> {
    const WHOLE: usize = size_of::<ConnectRecord>();
    const OLD: usize = size_of::<Header>() + CONNECT_WITHOUT_WIRE;
    if record.len() != OLD {
        return Ok(read::<ConnectRecord>(record, 0)?.connect);
    }
    let mut whole = [0; WHOLE];
    whole[..OLD].copy_from_slice(record);
    Ok(read::<ConnectRecord>(&whole, 0)?.connect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::encode;

    fn header(kind: Kind, len: usize) -> Header {
        Header { boot_ns: 7, kind: kind.0, len: len as u32 }
    }

    #[test]
    fn what_the_agent_writes_is_read_back() {
        let connect = Connect { cookie: 9, retries: 2, ..Connect::default() };
        let header = header(Kind::CONNECT_PENDING, size_of::<ConnectRecord>());
        let record = encode(ConnectRecord { header, connect });
        assert_eq!(
            decode(Kind::CONNECT_PENDING, &record),
            Ok(Record::Connect(ConnectStep::Pending, connect))
        );
    }

    #[test]
    fn a_connect_of_an_older_recording_has_no_translation() {
        let connect = Connect { cookie: 9, translated: 1, icmp: 7, ..Connect::default() };
        let record = encode(ConnectRecord { header: header(Kind::CONNECT_END, 144), connect });
        let old = Connect { cookie: 9, ..Connect::default() };
        assert_eq!(
            decode(Kind::CONNECT_END, &record.slice(..144)),
            Ok(Record::Connect(ConnectStep::End, old))
        );
        assert!(decode(Kind::CONNECT_END, &record.slice(..143)).is_err());
    }
}
