//! Bytes ↔ values: the only place that reads and writes kernel bytes. Records come from the kernel or from a recording,
//! which is an untrusted file: every length is checked, and what is not understood is an error with its reason, never a
//! panic. What the bytes of a kind mean, its domain knows.

use std::{
    mem::size_of,
    net::{IpAddr, Ipv6Addr},
};

use bytes::Bytes;
use ebpf_probes::abi::{Header, Kind, Plain};

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
    #[error("a record of kind {} holds an impossible {field}: {value}", kind.0)]
    Impossible {
        /// The record's kind.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// A record's header, and the bytes that it says carry meaning.
pub fn whole(record: &Bytes) -> Result<(Header, Bytes), Error> {
    let header: Header = read(record, 0)?;
    let end = header.len as usize;
    if end > record.len() || end < size_of::<Header>() {
        return Err(Error::Short { len: record.len(), need: end.max(size_of::<Header>()) });
    }
    Ok((header, record.slice(..end)))
}

/// A value at an offset.
pub fn read<T: Plain>(record: &[u8], at: usize) -> Result<T, Error> {
    let need = at + size_of::<T>();
    let Some(bytes) = record.get(at..need) else { return Err(Error::Short { len: record.len(), need }) };
    // SAFETY: the slice is as long as T, and any bytes are a T.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A record that older versions wrote with `least` bytes: what they did not know is zero.
pub fn read_grown<T: Plain>(record: &[u8], least: usize) -> Result<T, Error> {
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

/// Everything from an offset on.
pub fn rest(record: &Bytes, from: usize) -> Result<Bytes, Error> {
    if from > record.len() {
        return Err(Error::Short { len: record.len(), need: from });
    }
    Ok(record.slice(from..))
}

/// The bytes of a record the agent writes itself.
pub fn encode<T: Plain>(value: T) -> Bytes {
    let at = (&raw const value).cast::<u8>();
    // SAFETY: `value` lives until the copy is made; every byte of what is Plain is written.
    Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(at, size_of::<T>()) })
}

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
