//! How does a stream of items become a recording that survives the recorder's death?
//!
//! Items gather in memory and go out as whole blocks, one `write` each. Refuses to know when a
//! second has passed (callers call [`Writer::flush`]) and whether the disk has it (callers own the
//! file, and may sync it).

use std::io::{self, Write};

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::{
    MAX_ORIGIN, Start, Totals,
    frame::{self, CONTEXT, HEAD, Head, RECORD},
};

/// A block is written before it grows past this, unless one item alone is longer.
const BLOCK_TARGET: usize = 256 << 10;

/// Why something could not be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The item is longer than the format allows. It was left out; the recording goes on.
    #[error("{what} of {len} bytes is too long to record, the limit is {limit}")]
    TooLong {
        /// What it was.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// The recording could not be written. It ends here: writing on would follow a torn block.
    #[error("the recording cannot be written")]
    Io(#[source] io::Error),
    /// An earlier write failed.
    #[error("the recording ended when an earlier write failed")]
    Ended,
}

/// Writes a recording to a file or a pipe; never seeks.
///
/// Up to a block of items is in memory only, until [`flush`](Self::flush). Dropping a writer leaves
/// an unfinished recording, as a crash would: [`finish`](Self::finish) it.
#[must_use = "a writer that is not finished leaves an unfinished recording"]
pub struct Writer<W> {
    out: W,
    salt: u32,
    /// Items of the block that is being filled.
    raw: Vec<u8>,
    items: u32,
    /// A head and its payload, on their way out.
    packed: Vec<u8>,
    table: CompressTable,
    totals: Totals,
    broken: bool,
}

impl<W: Write> Writer<W> {
    /// Writes the header. Fails when the origin is too long, or when `out` does.
    pub fn new(mut out: W, start: &Start) -> Result<Self, WriteError> {
        let origin = serde_json::to_vec(&start.origin).map_err(|error| WriteError::Io(error.into()))?;
        let (header, salt) = frame::header(start.created_wall_ns, start.boot_ns, &origin)
            .ok_or(WriteError::TooLong { what: "an origin", len: origin.len(), limit: MAX_ORIGIN })?;
        out.write_all(&header).and_then(|()| out.flush()).map_err(WriteError::Io)?;
        Ok(Self {
            out,
            salt,
            raw: Vec::with_capacity(BLOCK_TARGET),
            items: 0,
            packed: Vec::new(),
            table: CompressTable::large(),
            totals: Totals::default(),
            broken: false,
        })
    }

    /// Adds a raw record of at most [`MAX_RECORD`](super::MAX_RECORD) bytes.
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.add("a record", RECORD, bytes)
    }

    /// Adds a context of at most [`MAX_CONTEXT`](super::MAX_CONTEXT) bytes.
    pub fn context(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.add("a context", CONTEXT, bytes)
    }

    fn add(&mut self, what: &'static str, tag: u8, bytes: &[u8]) -> Result<(), WriteError> {
        let limit = frame::limit(tag);
        if bytes.len() > limit {
            return Err(WriteError::TooLong { what, len: bytes.len(), limit });
        }
        if self.raw.len() + frame::ITEM_HEAD_MAX + bytes.len() > BLOCK_TARGET {
            self.write_block()?;
        }
        if self.broken {
            return Err(WriteError::Ended);
        }
        frame::push_item(&mut self.raw, tag, bytes);
        self.items += 1;
        Ok(())
    }

    /// Writes what has gathered: after this, a crash of the recorder loses nothing added before.
    /// Writes nothing when nothing has gathered.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.write_block()?;
        self.attempt(Write::flush)
    }

    /// Writes what has gathered and the end block, and gives `out` back, to be synced or closed.
    /// `lost` is the number of records that could not be recorded.
    pub fn finish(mut self, lost: u64) -> Result<W, WriteError> {
        self.write_block()?;
        self.totals.lost = lost;
        let payload = self.totals.encode();
        let head = Head {
            end: true,
            raw_len: payload.len(),
            payload_len: payload.len(),
            items: 0,
            number: self.totals.blocks,
            payload_crc: frame::crc(self.salt, &payload),
        };
        let end = [head.encode(self.salt).as_slice(), &payload].concat();
        self.attempt(|out| out.write_all(&end).and_then(|()| out.flush()))?;
        Ok(self.out)
    }

    /// What has been written so far: whole blocks only. `lost` is 0 until the end.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Where the recording goes, to be synced for example.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    fn write_block(&mut self) -> Result<(), WriteError> {
        if self.items == 0 {
            return Ok(());
        }
        let room = HEAD + get_maximum_output_size(self.raw.len());
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let (head_bytes, payload) = self.packed.split_at_mut(HEAD);
        let payload_len = match compress_into_with_table(&self.raw, payload, &mut self.table) {
            Ok(len) if len < self.raw.len() => len,
            // It does not shrink: stored as it is.
            _ => {
                payload[..self.raw.len()].copy_from_slice(&self.raw);
                self.raw.len()
            }
        };
        let head = Head {
            end: false,
            raw_len: self.raw.len(),
            payload_len,
            items: self.items,
            number: self.totals.blocks,
            payload_crc: frame::crc(self.salt, &payload[..payload_len]),
        };
        head_bytes.copy_from_slice(&head.encode(self.salt));
        let packed = std::mem::take(&mut self.packed);
        let written = self.attempt(|out| out.write_all(&packed[..HEAD + payload_len]));
        self.packed = packed;
        written?;
        self.totals.items += u64::from(self.items);
        self.totals.blocks += 1;
        self.items = 0;
        self.raw.clear();
        Ok(())
    }

    fn attempt(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), WriteError> {
        if self.broken {
            return Err(WriteError::Ended);
        }
        write(&mut self.out).map_err(|error| {
            self.broken = true;
            WriteError::Io(error)
        })
    }
}
