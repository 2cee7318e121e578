//! What can be had back from a recording, whatever has happened to it?
//!
//! A block is delivered whole or not at all. A bad one is distinguished from a torn tail by what follows: if
//! a good block of this recording comes later the file was damaged, if none does the recorder died
//! there. Refuses to know what items mean, and whether damage is acceptable.

use std::io::{ErrorKind, Read};

use bytes::{Bytes, BytesMut};

use super::{
    ByteOrder, Error, Item, MAX_ORIGIN, Origin, Start, Tail, Totals, VERSION,
    frame::{self, CONTEXT, HEAD, HEADER, Head, Header, MAGIC, MARK, RECORD},
};

/// Room for input to begin with; grows to the longest block, and no further.
const INPUT: usize = 256 << 10;

/// What a [`Reader`] has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Items delivered.
    pub items: u64,
    /// Items of a kind this version does not know, skipped.
    pub unknown_items: u64,
    /// Good blocks.
    pub blocks: u64,
    /// Blocks missing between good ones, by their numbers.
    pub blocks_lost: u64,
    /// Bytes between good blocks that are none.
    pub bytes_lost: u64,
}

/// Reads a recording from a file or a pipe, as an iterator of its items; never seeks.
///
/// Holds one block, and the next one's bytes: about 8 MiB at worst. [`Error::Damaged`] is not the
/// end: who goes on calling `next` gets the items after the damage. After any other error, and after the
/// last item, `next` keeps answering `None`.
pub struct Reader<R> {
    source: Source<R>,
    start: Start,
    salt: u32,
    /// The block that is being delivered, up to `at`.
    block: Bytes,
    at: usize,
    /// The number the next block should have.
    next_number: u64,
    state: State,
    tail: Option<Tail>,
    seen: Seen,
}

#[derive(Clone, Copy)]
enum State {
    Blocks,
    AfterEnd,
    Done,
}

enum Found {
    Block(Head, Bytes),
    End(Head, Totals),
    /// What begins here is no good block; it has been stepped over.
    Bad,
    Nothing,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<Self, Error> {
        let mut source = Source::new(input);
        let (start, salt) = read_header(&mut source)?;
        Ok(Self {
            source,
            start,
            salt,
            block: Bytes::new(),
            at: 0,
            next_number: 0,
            state: State::Blocks,
            tail: None,
            seen: Seen::default(),
        })
    }

    /// When and where the recording was made.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// How the recording ends: known once `next` has answered `None`, unless reading failed.
    pub fn tail(&self) -> Option<Tail> {
        self.tail
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    fn next_in_block(&mut self) -> Option<Item> {
        // The block was checked as a whole when it was loaded: `None` is its end.
        while let Some(span) = frame::item_at(&self.block, self.at) {
            self.at = span.to;
            let item = match span.tag {
                RECORD => Item::Record,
                CONTEXT => Item::Context,
                _ => {
                    self.seen.unknown_items += 1;
                    continue;
                }
            };
            self.seen.items += 1;
            return Some(item(self.block.slice(span.from..span.to)));
        }
        None
    }

    /// Goes to the next good block or the end. Damage on the way is an error, but is passed.
    fn advance(&mut self) -> Result<(), Error> {
        let mut bad_from = None;
        loop {
            let here = self.source.offset;
            let number = match self.find()? {
                Found::Bad => {
                    bad_from.get_or_insert(here);
                    continue;
                }
                Found::Nothing => {
                    self.state = State::Done;
                    self.tail = Some(bad_from.map_or(Tail::Unfinished, |at_byte| Tail::Torn {
                        at_byte,
                        bytes_dropped: here - at_byte,
                    }));
                    return Ok(());
                }
                Found::End(head, totals) => {
                    self.state = State::AfterEnd;
                    self.tail = Some(Tail::Clean(totals));
                    head.number
                }
                Found::Block(head, raw) => {
                    (self.block, self.at) = (raw, 0);
                    self.seen.blocks += 1;
                    head.number
                }
            };
            let block = self.next_number;
            let blocks_lost = number.saturating_sub(block);
            self.next_number = number.saturating_add(1);
            if bad_from.is_none() && blocks_lost == 0 {
                return Ok(());
            }
            let at_byte = bad_from.unwrap_or(here);
            self.seen.blocks_lost = self.seen.blocks_lost.saturating_add(blocks_lost);
            self.seen.bytes_lost += here - at_byte;
            return Err(Error::Damaged { at_byte, block, resumes_at: here, blocks_lost });
        }
    }

    /// Takes one block from the input, or steps over what is none.
    ///
    /// Linear in the input, also for a hostile one: past a bad head to the next place where one
    /// could begin, past a bad payload as a whole, because its head has vouched for its length.
    fn find(&mut self) -> Result<Found, Error> {
        let bytes = self.source.want(HEAD)?;
        if bytes.is_empty() {
            return Ok(Found::Nothing);
        }
        let Some(head) = Head::decode(bytes, self.salt) else {
            self.source.skip_to(MARK);
            return Ok(Found::Bad);
        };
        let recycled = std::mem::take(&mut self.block);
        let whole = HEAD + head.payload_len;
        let bytes = self.source.want(whole)?;
        let found = match bytes.get(HEAD..whole) {
            Some(payload) if head.number >= self.next_number => {
                open_block(head, payload, self.salt, recycled)
            }
            // Cut off by the end of the file, or a block seen before.
            _ => None,
        };
        let used = bytes.len();
        self.source.consume(used);
        Ok(found.unwrap_or(Found::Bad))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Item, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.next_in_block() {
                return Some(Ok(item));
            }
            let step = match self.state {
                State::Blocks => self.advance(),
                State::AfterEnd => {
                    self.state = State::Done;
                    let at_byte = self.source.offset;
                    match self.source.want(1) {
                        Ok([]) => Ok(()),
                        Ok(_) => Err(Error::TrailingBytes { at_byte }),
                        Err(error) => Err(error),
                    }
                }
                State::Done => return None,
            };
            if let Err(error) = step {
                if matches!(error, Error::Io { .. }) {
                    self.state = State::Done;
                }
                return Some(Err(error));
            }
        }
    }
}

fn read_header<R: Read>(source: &mut Source<R>) -> Result<(Start, u32), Error> {
    let damaged = |why: String| Error::HeaderDamaged { why };
    let bytes = source.want(HEADER)?;
    let begin = &bytes[..bytes.len().min(MAGIC.len())];
    if begin.is_empty() || !MAGIC.starts_with(begin) {
        return Err(Error::NotARecording { found: begin.to_vec() });
    }
    // A later version may lay out all that follows differently: it is asked for first.
    let Some(header) = Header::decode(bytes) else {
        return Err(Error::HeaderTorn { len: bytes.len() as u64 });
    };
    if header.version != VERSION || header.flags != 0 {
        return Err(Error::Unsupported { version: header.version, flags: header.flags });
    }
    let origin_len = header.origin_len as usize;
    if origin_len > MAX_ORIGIN {
        return Err(damaged(format!(
            "its origin would be {origin_len} bytes long, the limit is {MAX_ORIGIN}"
        )));
    }
    let whole = HEADER + origin_len;
    let bytes = source.want(whole)?;
    let (fixed, origin) = bytes.split_at(HEADER.min(bytes.len()));
    if origin.len() < origin_len {
        return Err(Error::HeaderTorn { len: bytes.len() as u64 });
    }
    let salt = Header::checksum(fixed, origin);
    if !frame::agrees(header.crc, salt) {
        return Err(damaged("its checksum is wrong".into()));
    }
    let origin: Origin = serde_json::from_slice(origin)
        .map_err(|error| damaged(format!("its origin cannot be read: {error}")))?;
    source.consume(whole);
    if origin.byte_order != ByteOrder::NATIVE {
        return Err(Error::ByteOrder { found: origin.byte_order, arch: origin.arch });
    }
    Ok((Start { created_wall_ns: header.created_wall_ns, boot_ns: header.boot_ns, origin }, salt))
}

/// Checks and unpacks a block, into the memory of an earlier one if nothing holds on to that.
fn open_block(head: Head, payload: &[u8], salt: u32, recycled: Bytes) -> Option<Found> {
    if !frame::agrees(head.payload_crc, frame::crc(salt, payload)) {
        return None;
    }
    if head.end {
        return Totals::decode(payload).map(|totals| Found::End(head, totals));
    }
    let mut raw = recycled.try_into_mut().unwrap_or_default();
    raw.resize(head.raw_len, 0);
    if head.payload_len == head.raw_len {
        raw.copy_from_slice(payload);
    } else if lz4_flex::block::decompress_into(payload, &mut raw).ok()? != head.raw_len {
        return None;
    }
    frame::holds(&raw, head.items).then(|| Found::Block(head, BytesMut::freeze(raw)))
}

/// Input with a window that can be looked at before it is consumed.
struct Source<R> {
    input: R,
    buffer: Vec<u8>,
    /// The window is `buffer[from..to]`.
    from: usize,
    to: usize,
    /// Offset in the file of the window's first byte.
    offset: u64,
    ended: bool,
}

impl<R: Read> Source<R> {
    fn new(input: R) -> Self {
        Self { input, buffer: vec![0; INPUT], from: 0, to: 0, offset: 0, ended: false }
    }

    /// The next `len` bytes, fewer only where the input ends; `len` must be bounded by the caller.
    fn want(&mut self, len: usize) -> Result<&[u8], Error> {
        if self.from + len > self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            if len > self.buffer.len() {
                self.buffer.resize(len, 0);
            }
        }
        while self.to - self.from < len && !self.ended {
            match self.input.read(&mut self.buffer[self.to..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.to = (self.to + count).min(self.buffer.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let at_byte = self.offset + (self.to - self.from) as u64;
                    return Err(Error::Io { at_byte, source });
                }
            }
        }
        Ok(&self.buffer[self.from..self.to.min(self.from + len)])
    }

    fn consume(&mut self, len: usize) {
        let len = len.min(self.to - self.from);
        self.from += len;
        self.offset += len as u64;
    }

    /// Consumes at least one byte, and on to the next `mark` in the window or to its end.
    fn skip_to(&mut self, mark: u8) {
        let window = &self.buffer[self.from..self.to];
        let next = window.iter().skip(1).position(|&byte| byte == mark);
        self.consume(next.map_or(window.len(), |at| at + 1));
    }
}
