//! Bytes → [`Event`]: the only place that reads kernel bytes. Records come from the kernel or from a
//! recording, which is an untrusted file: every length is checked, every number that names something
//! is looked up, and what is not understood is an error with its reason, never a panic.

use std::{mem::size_of, net::IpAddr, net::Ipv6Addr};

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind, LostRecord, Owner, ProbeId, Stat, Tuple},
    probes::{
        clock::{ClockMoved, ClockRecord, ClockSuspended, DateRecord},
        connect::{CONNECT_WITHOUT_WIRE, Connect, ConnectRecord, DropRecord, Dropped},
        dns::{DNS_BYTES_HEAD, DnsWire},
        neigh::{ClaimRecord, MacRecord, NeighRecord, UnheardRecord, WaiterRecord},
        tls::{Handshake, TLS_BYTES_HEAD, TLS_RECORD_FIRST, TlsRecord},
    },
};

/// One thing that happened, as the kernel saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A connect began, went on, or ended.
    Connect(ConnectStep, Connect),
    /// A packet of a pending connect was not delivered: which, where and why.
    Dropped(Dropped),
    /// Bytes of a hello.
    Hello(HelloBytes),
    /// A handshake moved, was read, or is stuck.
    Tls(TlsStep, Handshake),
    /// A DNS message, or part of one.
    Dns(DnsMessage),
    /// Whither a socket's questions go, where that is not the server asked for.
    DnsWire(DnsWire),
    /// A neighbour changed, or could not be made.
    Neigh(NeighRecord),
    /// A SYN came from another MAC than the cached one.
    Mac(MacRecord),
    /// Another MAC claims a neighbour's address.
    Claim(ClaimRecord),
    /// A neighbour does not hear us, or does again.
    Unheard(UnheardRecord),
    /// A packet waits for a neighbour that does not answer.
    Waiter(WaiterRecord),
    /// A call set or slewed the clock, or was refused.
    ClockSet(ClockRecord),
    /// The wall clock moved between two looks.
    ClockMoved(ClockMoved),
    /// The machine slept.
    ClockSuspended(ClockSuspended),
    /// A plaintext HTTP server said what time it is.
    HttpDate(DateRecord),
    /// Records were lost.
    Lost {
        /// Whose.
        probe: ProbeId,
        /// How.
        stat: Stat,
        /// How many.
        count: u64,
    },
    /// Time passed.
    Tick,
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

/// What a handshake did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsStep {
    /// It reached another stage.
    Phase,
    /// A thread read what the peer had sent.
    Read,
    /// It makes no progress.
    Pending,
}

/// Captured bytes of a hello.
#[derive(Debug, Clone, PartialEq)]
pub struct HelloBytes {
    /// The socket.
    pub cookie: u64,
    /// [`ebpf_probes::probes::tls::CLIENT_HELLO`] or `SERVER_HELLO`.
    pub hello: u32,
    /// Where they begin in the hello's record.
    pub at: u32,
    /// The bytes.
    pub data: Bytes,
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

/// Why a record is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than it must be.
    #[error("a record of {len} bytes is too short: {need} are needed")]
    Short {
        /// Its length.
        len: usize,
        /// What its kind needs.
        need: usize,
    },
    /// Of a kind this version does not know.
    #[error("a record of unknown kind {0}: it was made by another version of culprit")]
    UnknownKind(u32),
    /// A field that makes no sense.
    #[error("a record of kind {kind:?} holds an impossible {field}: {value}")]
    Impossible {
        /// The record's kind.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// Decodes one record.
pub fn decode(record: &Bytes) -> Result<Event, Error> {
    let header: Header = read(record, 0)?;
    let kind = Kind::try_from(header.kind).map_err(Error::UnknownKind)?;
    let end = header.len as usize;
    if end > record.len() || end < size_of::<Header>() {
        return Err(Error::Short { len: record.len(), need: end.max(size_of::<Header>()) });
    }
    let record = record.slice(..end);
    let connect = |step| -> Result<What, Error> { Ok(What::Connect(step, connect(&record)?)) };
    let tls = |step| -> Result<What, Error> {
        Ok(What::Tls(step, read_grown::<TlsRecord>(&record, TLS_RECORD_FIRST)?.handshake))
    };
    let what = match kind {
        Kind::ConnectStart => connect(ConnectStep::Start)?,
        Kind::ConnectRetry => connect(ConnectStep::Retry)?,
        Kind::ConnectEnd => connect(ConnectStep::End)?,
        Kind::ConnectDrop => connect(ConnectStep::Drop)?,
        Kind::ConnectDropPlace => What::Dropped(read::<DropRecord>(&record, 0)?.dropped),
        Kind::ConnectPending => connect(ConnectStep::Pending)?,
        Kind::ConnectWaiting => connect(ConnectStep::Waiting)?,
        Kind::TlsPhase => tls(TlsStep::Phase)?,
        Kind::TlsRead => tls(TlsStep::Read)?,
        Kind::TlsPending => tls(TlsStep::Pending)?,
        Kind::TlsBytes => What::Hello(HelloBytes {
            cookie: read(&record, 16)?,
            hello: read(&record, 24)?,
            at: read(&record, 28)?,
            data: rest(&record, TLS_BYTES_HEAD)?,
        }),
        Kind::DnsMessage => What::Dns(DnsMessage {
            cookie: read(&record, 16)?,
            owner: read(&record, 24)?,
            tuple: read(&record, 64)?,
            seq: read(&record, 104)?,
            wire_len: read(&record, 108)?,
            ingress: read::<u32>(&record, 112)? != 0,
            queries: read(&record, 116)?,
            data: rest(&record, DNS_BYTES_HEAD)?,
        }),
        Kind::DnsWire => What::DnsWire(read(&record, 0)?),
        Kind::Lost => {
            let lost: LostRecord = read(&record, 0)?;
            let bad = |field, value: u32| Error::Impossible { kind, field, value: value.into() };
            What::Lost {
                probe: ProbeId::try_from(lost.probe).map_err(|value| bad("probe", value))?,
                stat: Stat::try_from(lost.stat).map_err(|value| bad("counter", value))?,
                count: lost.count,
            }
        }
        Kind::Tick => What::Tick,
        Kind::NeighChange => What::Neigh(read(&record, 0)?),
        Kind::NeighMismatch => What::Mac(read_grown(&record, 104)?),
        Kind::NeighClaim => What::Claim(read_grown(&record, 80)?),
        Kind::NeighUnheard => What::Unheard(read_grown(&record, 176)?),
        Kind::NeighWaiter => What::Waiter(read(&record, 0)?),
        Kind::ClockSet => What::ClockSet(read(&record, 0)?),
        Kind::ClockMoved => What::ClockMoved(read(&record, 0)?),
        Kind::ClockSuspended => What::ClockSuspended(read(&record, 0)?),
        Kind::HttpDate => What::HttpDate(read(&record, 0)?),
    };
    Ok(Event { boot_ns: header.boot_ns, what })
}

/// A connect. Recordings of versions that knew nothing of translations end where it begins.
fn connect(record: &Bytes) -> Result<Connect, Error> {
    const WHOLE: usize = size_of::<ConnectRecord>();
    const OLD: usize = size_of::<Header>() + CONNECT_WITHOUT_WIRE;
    if record.len() != OLD {
        return Ok(read::<ConnectRecord>(record, 0)?.connect);
    }
    let mut whole = [0; WHOLE];
    whole[..OLD].copy_from_slice(record);
    Ok(read::<ConnectRecord>(&whole, 0)?.connect)
}

/// Types any bytes are a value of: `#[repr(C)]`, integers and byte arrays only.
///
/// # Safety
/// Implementors must have no padding that matters and no invalid bit patterns.
unsafe trait Plain: Copy {}
macro_rules! plain { ($($ty:ty),+) => { $(
    // SAFETY: an integer, or a struct of integers and byte arrays (asserted in ebpf_probes::abi).
    unsafe impl Plain for $ty {}
)+ } }
plain!(u32, u64, Header, Owner, Tuple, ConnectRecord, TlsRecord, LostRecord);
plain!(
    NeighRecord,
    MacRecord,
    ClaimRecord,
    UnheardRecord,
    WaiterRecord,
    ClockRecord,
    ClockMoved,
    ClockSuspended,
    DateRecord,
    DropRecord,
    DnsWire
);

fn read<T: Plain>(record: &[u8], at: usize) -> Result<T, Error> {
    let need = at + size_of::<T>();
    let Some(bytes) = record.get(at..need) else { return Err(Error::Short { len: record.len(), need }) };
    // SAFETY: the slice is as long as T, and any bytes are a T.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A record that older versions wrote with `least` bytes: what they did not know is zero.
fn read_grown<T: Plain>(record: &[u8], least: usize) -> Result<T, Error> {
    if record.len() < least {
        return Err(Error::Short { len: record.len(), need: least });
    }
    if record.len() >= size_of::<T>() {
        return read(record, 0);
    }
    let mut whole = vec![0; size_of::<T>()];
    whole[..record.len()].copy_from_slice(record);
    read(&whole, 0)
}

fn rest(record: &Bytes, from: usize) -> Result<Bytes, Error> {
    if from > record.len() {
        return Err(Error::Short { len: record.len(), need: from });
    }
    Ok(record.slice(from..))
}

/// The bytes of a record the agent writes itself.
pub fn encode<T: Encode>(value: T) -> Bytes {
    let at = (&raw const value).cast::<u8>();
    // SAFETY: `value` lives until the copy is made; Encode promises there is no padding.
    Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(at, size_of::<T>()) })
}

/// Records the agent writes itself.
///
/// # Safety
/// Implementors must be `#[repr(C)]` without implicit padding.
pub unsafe trait Encode: Copy {}
// SAFETY: explicit padding only; sizes are asserted in ebpf_probes.
unsafe impl Encode for Header {}
// SAFETY: as above.
unsafe impl Encode for Owner {}
// SAFETY: as above.
unsafe impl Encode for Tuple {}
// SAFETY: as above.
unsafe impl Encode for LostRecord {}
// SAFETY: as above.
unsafe impl Encode for ConnectRecord {}
// SAFETY: as above.
unsafe impl Encode for TlsRecord {}
// SAFETY: as above.
unsafe impl Encode for DropRecord {}
// SAFETY: as above.
unsafe impl Encode for ClockMoved {}
// SAFETY: as above.
unsafe impl Encode for ClockSuspended {}
// SAFETY: as above.
unsafe impl Encode for DateRecord {}
// SAFETY: as above.
unsafe impl Encode for DnsWire {}

/// An address as people write it: IPv4-mapped ones as IPv4.
pub fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The bytes of an address; IPv4 as IPv4-mapped.
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A thread's name without its padding.
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A thread's name as the kernel keeps it: NUL-padded, of a longer one the first 15 bytes.
pub fn comm_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

#[cfg(test)]
macro_rules! encode_in_tests { ($($ty:ty),+) => { $(
    // SAFETY: explicit padding only; sizes are asserted in ebpf_probes.
    unsafe impl Encode for $ty {}
)+ } }
#[cfg(test)]
encode_in_tests!(
    ebpf_probes::probes::clock::ClockRecord,
    NeighRecord,
    ClaimRecord,
    UnheardRecord,
    WaiterRecord
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: Kind, len: usize) -> Header {
        Header { boot_ns: 7, kind: kind as u32, len: len as u32 }
    }

    #[test]
    fn what_the_agent_writes_is_read_back() {
        let connect = Connect { cookie: 9, retries: 2, ..Connect::default() };
        let record =
            ConnectRecord { header: header(Kind::ConnectPending, size_of::<ConnectRecord>()), connect };
        let event = decode(&encode(record)).expect("whole");
        assert_eq!(event, Event { boot_ns: 7, what: What::Connect(ConnectStep::Pending, connect) });
    }

    #[test]
    fn a_connect_of_an_older_recording_has_no_translation() {
        let connect = Connect { cookie: 9, translated: 1, icmp: 7, ..Connect::default() };
        let record = ConnectRecord { header: header(Kind::ConnectEnd, 144), connect };
        let event = decode(&encode(record).slice(..144)).expect("whole");
        let old = Connect { cookie: 9, ..Connect::default() };
        assert_eq!(event.what, What::Connect(ConnectStep::End, old));
        assert!(decode(&encode(record).slice(..143)).is_err());
    }

    #[test]
    fn a_handshake_recorded_before_it_grew_is_read() {
        let handshake = Handshake { cookie: 9, alert: 7, established_ns: 5, ..Handshake::default() };
        let header = header(Kind::TlsRead, TLS_RECORD_FIRST);
        let record = encode(TlsRecord { header, handshake }).slice(..TLS_RECORD_FIRST);
        let older = Handshake { established_ns: 0, ..handshake };
        assert_eq!(decode(&record), Ok(Event { boot_ns: 7, what: What::Tls(TlsStep::Read, older) }));
        let cut = record.slice(..TLS_RECORD_FIRST - 8);
        assert!(matches!(decode(&cut), Err(Error::Short { .. })));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let record = encode(Header { boot_ns: 0, kind: 999, len: 16 });
        assert_eq!(decode(&record), Err(Error::UnknownKind(999)));
    }

    #[test]
    fn a_length_beyond_the_record_is_refused() {
        let record = encode(header(Kind::TlsBytes, 4000));
        assert_eq!(decode(&record), Err(Error::Short { len: 16, need: 4000 }));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let _ = decode(&Bytes::from(bytes));
        }

        #[test]
        fn any_bytes_behind_a_good_header_decode_or_are_refused(
            kind in 0usize..Kind::ALL.len(), len in 0u32..400, mut bytes in proptest::collection::vec(any::<u8>(), 16..400),
        ) {
            bytes[8..12].copy_from_slice(&(Kind::ALL[kind] as u32).to_ne_bytes());
            bytes[12..16].copy_from_slice(&len.to_ne_bytes());
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
