//! How are the header, a block's head and an item laid out in bytes?
//!
//! Pure: bytes to values and back, every length checked against its bound before it is returned.
//! Knows nothing of files, order or recovery.

use super::{MAX_BLOCK, MAX_CONTEXT, MAX_ORIGIN, MAX_RECORD, Totals, VERSION};

pub(super) const MAGIC: [u8; 8] = *b"\x89culprit";
/// Bytes of the file header in front of the origin.
pub(super) const HEADER: usize = 36;
const HEADER_CHECKED: usize = 32;

/// The first byte of both block magics: what a reader looks for to find its feet again.
pub(super) const MARK: u8 = 0xf1;
const BLOCK: [u8; 4] = *b"\xf1blk";
const END: [u8; 4] = *b"\xf1end";
/// Bytes of a block in front of its payload.
pub(super) const HEAD: usize = 32;
const HEAD_CHECKED: usize = 28;

pub(super) const RECORD: u8 = 1;
pub(super) const CONTEXT: u8 = 2;
/// Bytes of an item in front of its own, at most.
pub(super) const ITEM_HEAD_MAX: usize = 4;
/// Bytes of an item in front of its own, at least.
const ITEM_HEAD_MIN: usize = 2;
/// Bytes of an end block's payload.
pub(super) const TOTALS: usize = 24;

/// CRC-32 of `bytes`, continued from `salt`.
pub(super) fn crc(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// Whether a checksum is right. A fuzzer cannot guess checksums, so it is let past them.
pub(super) fn agrees(found: u32, computed: u32) -> bool {
    cfg!(fuzzing) || found == computed
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// The fixed part of a file header, its magic aside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) flags: u16,
    pub(super) origin_len: u32,
    pub(super) created_wall_ns: i64,
    pub(super) boot_ns: u64,
    pub(super) crc: u32,
}

impl Header {
    /// `bytes` holds at least [`HEADER`] bytes, or the answer is `None`.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            version: u16_at(bytes, 8)?,
            flags: u16_at(bytes, 10)?,
            origin_len: u32_at(bytes, 12)?,
            created_wall_ns: u64_at(bytes, 16)?.cast_signed(),
            boot_ns: u64_at(bytes, 24)?,
            crc: u32_at(bytes, HEADER_CHECKED)?,
        })
    }

    /// The checksum of a whole header, which also salts those of the blocks.
    pub(super) fn checksum(fixed: &[u8], origin: &[u8]) -> u32 {
        crc(crc(0, fixed.get(..HEADER_CHECKED).unwrap_or(fixed)), origin)
    }
}

/// A whole file header, and the salt of the blocks that follow; `None` if the origin is too long.
pub(super) fn header(created_wall_ns: i64, boot_ns: u64, origin: &[u8]) -> Option<(Vec<u8>, u32)> {
    let origin_len = u32::try_from(origin.len()).ok().filter(|_| origin.len() <= MAX_ORIGIN)?;
    let mut bytes = Vec::with_capacity(HEADER + origin.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(origin_len.to_le_bytes());
    bytes.extend(created_wall_ns.to_le_bytes());
    bytes.extend(boot_ns.to_le_bytes());
    let crc = Header::checksum(&bytes, origin);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(origin);
    Some((bytes, crc))
}

/// The head of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) end: bool,
    pub(super) raw_len: usize,
    pub(super) payload_len: usize,
    pub(super) items: u32,
    pub(super) number: u64,
    pub(super) payload_crc: u32,
}

impl Head {
    /// Bytes to a head, if they are one of this recording's with lengths within their bounds.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let checked = bytes.get(..HEAD_CHECKED)?;
        let magic: &[u8; 4] = checked.first_chunk()?;
        if *magic != BLOCK && *magic != END {
            return None;
        }
        if !agrees(u32_at(bytes, HEAD_CHECKED)?, crc(salt, checked)) {
            return None;
        }
        let head = Self {
            end: *magic == END,
            raw_len: usize::try_from(u32_at(checked, 4)?).ok()?,
            payload_len: usize::try_from(u32_at(checked, 8)?).ok()?,
            items: u32_at(checked, 12)?,
            number: u64_at(checked, 16)?,
            payload_crc: u32_at(checked, 24)?,
        };
        head.is_bounded().then_some(head)
    }

    fn is_bounded(&self) -> bool {
        let items = usize::try_from(self.items).unwrap_or(usize::MAX);
        let items_fit = if self.end {
            items == 0 && self.raw_len == TOTALS && self.payload_len == TOTALS
        } else {
            items >= 1 && items <= self.raw_len / ITEM_HEAD_MIN
        };
        self.raw_len <= MAX_BLOCK && self.payload_len <= self.raw_len && items_fit
    }

    /// A head to bytes; lengths must be within their bounds.
    pub(super) fn encode(&self, salt: u32) -> [u8; HEAD] {
        debug_assert!(self.is_bounded(), "{self:?}");
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(if self.end { &END } else { &BLOCK });
        bytes[4..8].copy_from_slice(&(self.raw_len as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&(self.payload_len as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.items.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc(salt, &bytes[..HEAD_CHECKED]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

impl Totals {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { items: u64_at(bytes, 0)?, blocks: u64_at(bytes, 8)?, lost: u64_at(bytes, 16)? })
    }

    pub(super) fn encode(&self) -> [u8; TOTALS] {
        let mut bytes = [0; TOTALS];
        bytes[..8].copy_from_slice(&self.items.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[16..].copy_from_slice(&self.lost.to_le_bytes());
        bytes
    }
}

/// How long an item with this tag may be.
pub(super) fn limit(tag: u8) -> usize {
    if tag == RECORD { MAX_RECORD } else { MAX_CONTEXT }
}

/// Appends an item; its length must be within [`limit`].
pub(super) fn push_item(raw: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    debug_assert!(bytes.len() <= limit(tag));
    raw.push(tag);
    let mut rest = bytes.len();
    while rest >= 0x80 {
        raw.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    raw.push(rest as u8);
    raw.extend_from_slice(bytes);
}

/// Where an item lies in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) tag: u8,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The item that begins at `at`, if a whole one within its bound does.
#[inline]
pub(super) fn item_at(raw: &[u8], at: usize) -> Option<Span> {
    let (&tag, rest) = raw.get(at..)?.split_first()?;
    let (mut len, mut used) = (0, 0);
    loop {
        let byte = *rest.get(used)?;
        len |= usize::from(byte & 0x7f) << (7 * used);
        used += 1;
        if byte < 0x80 {
            break;
        }
        if used == 3 {
            return None;
        }
    }
    let from = at + 1 + used;
    let to = from + len;
    (len <= limit(tag) && to <= raw.len()).then_some(Span { tag, from, to })
}

/// Whether `raw` is exactly `items` items.
pub(super) fn holds(raw: &[u8], items: u32) -> bool {
    let mut at = 0;
    for _ in 0..items {
        match item_at(raw, at) {
            Some(span) => at = span.to,
            None => return false,
        }
    }
    at == raw.len()
}
