//! What does a recording look like on disk, and how is it read when it is torn, damaged or hostile?
//!
//! A recording is a stream of [`Item`]s in the order they happened: raw records as the kernel (or
//! the agent) wrote them, and the context that was known beside them. This module moves opaque
//! bytes: what a record means is `domains`' business, what a context means is `known`'s. It reads
//! no clock and opens no file; callers add the file's name to its errors.
//!
//! # Format, version 1
//!
//! Every number of the framing is little-endian, whatever the machine; the records inside keep the
//! byte order of the machine that made them, which [`Origin::byte_order`] names.
//!
//! | header | bytes |
//! |---|---|
//! | magic | 8: `89 "culprit"` |
//! | version | u16: 1 |
//! | flags | u16: 0; a set bit is something a reader must understand, so unknown ones are refused |
//! | origin length | u32, at most [`MAX_ORIGIN`] |
//! | created | i64: CLOCK_REALTIME in nanoseconds when the recording began |
//! | boot | u64: CLOCK_BOOTTIME in nanoseconds at that same moment |
//! | crc | u32: CRC-32 (IEEE) of the 32 bytes above and the origin |
//! | origin | JSON, see [`Origin`] |
//!
//! Then blocks, the last of which is an end block if the recorder could finish:
//!
//! | block | bytes |
//! |---|---|
//! | magic | 4: `F1 "blk"`, or `F1 "end"` |
//! | raw length | u32, at most [`MAX_BLOCK`] |
//! | payload length | u32; equal to the raw length when the payload is stored, less when it is LZ4 |
//! | items | u32, at least 1; 0 in an end block |
//! | number | u64: 0, 1, 2 …; an end block's is the number of blocks before it |
//! | payload crc | u32 |
//! | head crc | u32, of the 28 bytes above |
//! | payload | items: tag u8 (1 record, 2 context), length LEB128 of at most 3 bytes, bytes. In an end block: [`Totals`] as three u64, stored |
//!
//! Both block CRCs continue from the header's. So a block of another recording, be it left behind
//! on the disk or sent to this host by a person who would like to see it in the recording, does
//! not pass for one of this recording's.
//!
//! An item with an unknown tag is counted and skipped: version 1 can grow new kinds of items.
//!
//! # What the checksums promise
//!
//! CRC-32 finds every change confined to 32 consecutive bits, so one changed byte anywhere never
//! goes unnoticed. Wider damage to a block passes with a chance of 2⁻³². A forger who sees the file
//! can compute checksums; such a file can lie but not crash, hang or exhaust the reader: every length is bounded
//! before it is believed, and each byte is looked at a bounded number of times.

mod frame;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, io};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use reader::{Reader, Seen};
pub use writer::{WriteError, Writer};

/// The format version this module writes, and the newest it reads.
pub const VERSION: u16 = 1;
/// Longest raw record, in bytes.
pub const MAX_RECORD: usize = 64 << 10;
/// Longest context, in bytes.
pub const MAX_CONTEXT: usize = 1 << 20;
/// Longest origin, in bytes of JSON.
pub const MAX_ORIGIN: usize = 64 << 10;
/// Longest block, in bytes before compression.
pub const MAX_BLOCK: usize = 4 << 20;

/// One item of a recording.
///
/// The bytes are a slice of the block they came in: holding on to one holds on to all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record as it crossed the ring, or as the agent wrote it; at most [`MAX_RECORD`] bytes.
    Record(Bytes),
    /// Something the agent knew at this point: JSON, at most [`MAX_CONTEXT`] bytes.
    Context(Bytes),
}

/// When and where a recording was made: what its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// CLOCK_REALTIME when the recording began, in nanoseconds since 1970.
    pub created_wall_ns: i64,
    /// CLOCK_BOOTTIME at that same moment, in nanoseconds.
    pub boot_ns: u64,
    /// The machine and the program.
    pub origin: Origin,
}

/// The machine and the program a recording comes from.
///
/// Stored as JSON; fields a reader does not know are ignored, all but the first two may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the culprit that recorded.
    pub version: String,
    /// Byte order of the records inside.
    pub byte_order: ByteOrder,
    /// Kernel release, as `uname -r` says it.
    #[serde(default)]
    pub kernel: String,
    /// Architecture, as `uname -m` says it.
    #[serde(default)]
    pub arch: String,
    /// The node's name.
    #[serde(default)]
    pub node: String,
}

/// Byte order of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// Least significant byte first: x86-64, arm64, riscv64, ppc64le.
    Little,
    /// Most significant byte first: s390x.
    Big,
}

impl ByteOrder {
    /// This machine's.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

impl fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Little => "little-endian",
            Self::Big => "big-endian",
        })
    }
}

/// What the recorder counted; written when it ends in good order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items in the recording.
    pub items: u64,
    /// Blocks they are in.
    pub blocks: u64,
    /// Records that were lost before they could be recorded.
    pub lost: u64,
}

/// How a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The recorder ended in good order and left its totals.
    Clean(Totals),
    /// The recording ends after a whole block, but the recorder did not get to say goodbye.
    Unfinished,
    /// The recording ends inside a block, or in bytes that never became one.
    Torn {
        /// Offset in the file of the first byte that was not used.
        at_byte: u64,
        /// How many bytes follow from there.
        bytes_dropped: u64,
    },
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean(totals) => {
                let Totals { items, lost, .. } = totals;
                write!(f, "complete: {items} items, {lost} records lost while recording")
            }
            Self::Unfinished => f.write_str(
                "unfinished: the recorder was stopped before it could end; all that was written was read",
            ),
            Self::Torn { at_byte, bytes_dropped } => write!(
                f,
                "torn: the recorder died while writing at byte {at_byte}; all before was read, the last {bytes_dropped} bytes were not"
            ),
        }
    }
}

/// Why a recording cannot be read, or not past some point. Callers add the file's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file begins with something else.
    #[error(
        "not a culprit recording: it begins with \"{}\", a recording with \"{}\"; {}",
        found.escape_ascii(), frame::MAGIC.escape_ascii(), hint(found)
    )]
    NotARecording {
        /// Its first bytes, at most 8.
        found: Vec<u8>,
    },
    /// The file ends before its header does.
    #[error(
        "it ends inside its header, after {len} bytes: the recorder was stopped before it recorded anything"
    )]
    HeaderTorn {
        /// Length of the file in bytes.
        len: u64,
    },
    /// The header is not as it was written.
    #[error("its header is damaged: {why}; copy the file again from where it was recorded")]
    HeaderDamaged {
        /// In what way.
        why: String,
    },
    /// The file has a format this program does not know.
    #[error(
        "recording format {version}, flags {flags:#x}, but culprit {} understands only format {VERSION}, flags 0x0; \
         replay it with the culprit that recorded it, or a newer one",
        env!("CARGO_PKG_VERSION")
    )]
    Unsupported {
        /// The format's version.
        version: u16,
        /// The format's flags.
        flags: u16,
    },
    /// The records inside are in the other byte order.
    #[error(
        "recorded on a {found} machine ({arch}), but this one is {}; replay it on a {found} machine",
        ByteOrder::NATIVE
    )]
    ByteOrder {
        /// Byte order of the recording.
        found: ByteOrder,
        /// Architecture it was recorded on.
        arch: String,
    },
    /// Part of the file is not as it was written, and good blocks follow. Not the end: the next
    /// call goes on at `resumes_at`.
    #[error(
        "damaged at byte {at_byte}, block {block}: {}; all before was read; copy the file again from where it \
         was recorded, or replay it with --skip-damaged to go on at byte {resumes_at}",
        loss(*at_byte, *resumes_at, *blocks_lost)
    )]
    Damaged {
        /// Offset in the file where the damage begins.
        at_byte: u64,
        /// Number of the block that should have begun there, counted from 0.
        block: u64,
        /// Offset in the file of the next good block.
        resumes_at: u64,
        /// Blocks missing in between, by the numbers of those around.
        blocks_lost: u64,
    },
    /// Something follows the end block. The recording itself was read to its end.
    #[error(
        "the recording ends at byte {at_byte}, but more bytes follow; if files were joined, replay them one by one"
    )]
    TrailingBytes {
        /// Offset in the file of the first byte after the end.
        at_byte: u64,
    },
    /// The file could not be read.
    #[error("cannot read on at byte {at_byte}")]
    Io {
        /// Offset in the file.
        at_byte: u64,
        /// What the system said.
        source: io::Error,
    },
}

fn hint(found: &[u8]) -> &'static str {
    match found {
        [] => "it is empty",
        [0x1f, 0x8b, ..] => "unpack it first, with gunzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "unpack it first, with unzstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "unpack it first, with unxz",
        [b'{', ..] => "it looks like the JSON of culprit trace, which cannot be replayed",
        _ => "make one with culprit record FILE",
    }
}

fn loss(at_byte: u64, resumes_at: u64, blocks: u64) -> String {
    let bytes = resumes_at.saturating_sub(at_byte);
    let plural = if blocks == 1 { "" } else { "s" };
    match (bytes, blocks) {
        (0, _) => format!("{blocks} block{plural} cut out"),
        (_, 0) => format!("{bytes} bytes that do not belong there"),
        _ => format!("{bytes} bytes unreadable, {blocks} block{plural} lost"),
    }
}
