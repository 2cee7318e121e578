//! What is written is read again: the format, and what the other files share.

mod any;
mod damage;
mod speed;
mod streams;

use std::io::{Read, Write};

use super::{
    frame::{HEAD, HEADER, Head, MAGIC},
    *,
};

fn start() -> Start {
    Start {
        created_wall_ns: 1_533_873_483_000_000_000,
        boot_ns: 42_000_000_000,
        origin: Origin {
            version: "0.1.0".into(),
            byte_order: ByteOrder::NATIVE,
            kernel: "6.18.5".into(),
            arch: "x86_64".into(),
            node: "db-1".into(),
        },
    }
}

fn record(bytes: impl Into<Bytes>) -> Item {
    Item::Record(bytes.into())
}

fn context(bytes: impl Into<Bytes>) -> Item {
    Item::Context(bytes.into())
}

fn write(writer: &mut Writer<impl Write>, item: &Item) {
    match item {
        Item::Record(bytes) => writer.record(bytes),
        Item::Context(bytes) => writer.context(bytes),
    }
    .unwrap();
}

/// A finished recording with a flush after each group of items.
fn recording(groups: &[Vec<Item>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    for group in groups {
        for item in group {
            write(&mut writer, item);
        }
        writer.flush().unwrap();
    }
    writer.finish(0).unwrap()
}

/// Three blocks of a few items each.
fn groups() -> Vec<Vec<Item>> {
    vec![
        vec![record("one"), context(r#"{"pid":1}"#), record("")],
        vec![record(vec![7; 300]), record("two")],
        vec![context(""), record("three"), record("four")],
    ]
}

struct Read_ {
    items: Vec<Item>,
    errors: Vec<Error>,
    tail: Option<Tail>,
    seen: Seen,
}

/// Everything a reader says about `bytes`, errors that are not the end included.
fn drain(bytes: impl Read) -> Result<Read_, Error> {
    let mut reader = Reader::open(bytes)?;
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    for step in &mut reader {
        match step {
            Ok(item) => items.push(item),
            Err(error) => errors.push(error),
        }
    }
    assert!(reader.next().is_none(), "an iterator that has ended stays ended");
    Ok(Read_ { items, errors, tail: reader.tail(), seen: reader.seen() })
}

/// Where each block begins, the end block last.
fn block_offsets(file: &[u8]) -> Vec<usize> {
    let origin_len = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    let mut at = HEADER + origin_len;
    let mut offsets = Vec::new();
    while at < file.len() {
        offsets.push(at);
        at += HEAD + u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    offsets
}

fn salt(file: &[u8]) -> u32 {
    u32::from_le_bytes(file[32..36].try_into().unwrap())
}

/// A block with right checksums, whatever else is wrong with it.
fn forged(salt: u32, mut head: Head, payload: &[u8]) -> Vec<u8> {
    head.payload_crc = frame::crc(salt, payload);
    // Lengths out of bounds are the point: they are put in after `encode` has looked.
    let bounded = Head { end: false, raw_len: 2, payload_len: 2, items: 1, ..head };
    let mut bytes = bounded.encode(salt);
    if head.end {
        bytes[1..4].copy_from_slice(b"end");
    }
    bytes[4..8].copy_from_slice(&(head.raw_len as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&(head.payload_len as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&head.items.to_le_bytes());
    let crc = frame::crc(salt, &bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    [&bytes, payload].concat()
}

fn header_only() -> Vec<u8> {
    let mut out = Vec::new();
    let _ = Writer::new(&mut out, &start()).unwrap();
    out
}

#[test]
fn what_was_written_is_read_in_order_and_the_end_says_how_much_that_was() {
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    let items = groups().concat();
    for item in &items {
        write(&mut writer, item);
    }
    let file = writer.finish(3).unwrap();
    let mut reader = Reader::open(&*file).unwrap();
    assert_eq!(reader.start(), &start());
    assert_eq!(reader.by_ref().collect::<Result<Vec<_>, _>>().unwrap(), items);
    let tail = reader.tail().unwrap();
    assert_eq!(tail, Tail::Clean(Totals { items: 8, blocks: 1, lost: 3 }));
    assert_eq!(tail.to_string(), "complete: 8 items, 3 records lost while recording");
    assert_eq!(reader.seen(), Seen { items: 8, blocks: 1, ..Seen::default() });
}

#[test]
fn a_recording_of_nothing_is_a_recording() {
    let read = drain(&*recording(&[])).unwrap();
    assert_eq!((read.items.len(), read.errors.len()), (0, 0));
    assert_eq!(read.tail, Some(Tail::Clean(Totals::default())));
}

#[test]
fn version_1_is_laid_out_as_the_module_says() {
    let origin = br#"{"version":"0","byte_order":"little","kernel":"","arch":"","node":""}"#;
    let mut expected = Vec::new();
    expected.extend(b"\x89culprit\x01\0\0\0");
    expected.extend([origin.len() as u8, 0, 0, 0]);
    expected.extend([0xff; 8]);
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    let header_crc = crc32fast::hash(&[&*expected, origin].concat());
    expected.extend(header_crc.to_le_bytes());
    expected.extend(origin);
    let mut block = |magic: &[u8; 4], lengths: u8, items: u8, number: u8, payload: &[u8]| {
        let crc = |bytes: &[u8]| {
            let mut hasher = crc32fast::Hasher::new_with_initial(header_crc);
            hasher.update(bytes);
            hasher.finalize().to_le_bytes()
        };
        let mut head = magic.to_vec();
        head.extend([lengths, 0, 0, 0, lengths, 0, 0, 0, items, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0]);
        head.extend(crc(payload));
        head.extend(crc(&head));
        expected.extend([&head, payload].concat());
    };
    block(b"\xf1blk", 9, 2, 0, b"\x01\x03abc\x02\x02{}");
    let mut totals = [0; 24];
    (totals[0], totals[8], totals[16]) = (2, 1, 7);
    block(b"\xf1end", 24, 0, 1, &totals);

    let start = Start {
        created_wall_ns: -1,
        boot_ns: 5,
        origin: Origin {
            version: "0".into(),
            byte_order: ByteOrder::Little,
            kernel: String::new(),
            arch: String::new(),
            node: String::new(),
        },
    };
    let mut writer = Writer::new(Vec::new(), &start).unwrap();
    writer.record(b"abc").unwrap();
    writer.context(b"{}").unwrap();
    let file = writer.finish(7).unwrap();
    assert_eq!(file.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn an_item_that_is_too_long_is_refused_and_the_recording_goes_on() {
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    let error = writer.record(&vec![0; MAX_RECORD + 1]).unwrap_err();
    assert_eq!(error.to_string(), "a record of 65537 bytes is too long to record, the limit is 65536");
    assert!(matches!(writer.context(&vec![0; MAX_CONTEXT + 1]), Err(WriteError::TooLong { .. })));
    let longest = [record(vec![1; MAX_RECORD]), context(vec![2; MAX_CONTEXT])];
    for item in &longest {
        write(&mut writer, item);
    }
    assert_eq!(drain(&*writer.finish(0).unwrap()).unwrap().items, longest);

    let mut start = start();
    start.origin.node = "n".repeat(MAX_ORIGIN);
    assert!(matches!(Writer::new(Vec::new(), &start), Err(WriteError::TooLong { what: "an origin", .. })));
}

#[test]
fn a_flush_with_nothing_new_writes_nothing() {
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    writer.record(b"a").unwrap();
    writer.flush().unwrap();
    let len = writer.get_ref().len();
    writer.flush().unwrap();
    assert_eq!(writer.get_ref().len(), len);
    assert_eq!(writer.totals(), Totals { items: 1, blocks: 1, lost: 0 });
}
