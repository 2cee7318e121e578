use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    time::Instant,
};

use proptest::prelude::*;

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
fn a_recording_cut_at_any_byte_gives_every_whole_block_before_the_cut() {
    let groups = groups();
    let file = recording(&groups);
    let offsets = block_offsets(&file);
    for len in 0..file.len() {
        let read = match drain(&file[..len]) {
            Ok(read) => read,
            Err(error) => {
                assert!(len < offsets[0], "{len}: {error}");
                match len {
                    0 => assert!(matches!(error, Error::NotARecording { .. }), "{error}"),
                    _ => {
                        assert!(
                            matches!(error, Error::HeaderTorn { len: at } if at == len as u64),
                            "{error}"
                        );
                    }
                }
                continue;
            }
        };
        let whole = offsets.iter().skip(1).filter(|&&end| end <= len).count();
        assert_eq!(read.items, groups[..whole].concat(), "cut at {len}");
        assert!(read.errors.is_empty(), "a torn tail is no error");
        let cut = offsets.iter().copied().rfind(|&at| at <= len).unwrap();
        let expected = match len - cut {
            0 => Tail::Unfinished,
            dropped => Tail::Torn { at_byte: cut as u64, bytes_dropped: dropped as u64 },
        };
        assert_eq!(read.tail, Some(expected), "cut at {len}");
    }
}

#[test]
fn a_tail_of_zeros_left_by_a_power_failure_is_torn_and_not_damaged() {
    let file = recording(&groups());
    let cut = block_offsets(&file)[2];
    let mut torn = file[..cut + HEAD + 4].to_vec();
    torn.resize(torn.len() + 8192, 0);
    let read = drain(&*torn).unwrap();
    assert_eq!(read.items, groups()[..2].concat());
    assert!(read.errors.is_empty());
    let bytes_dropped = (torn.len() - cut) as u64;
    assert_eq!(read.tail, Some(Tail::Torn { at_byte: cut as u64, bytes_dropped }));
}

#[test]
fn any_one_changed_byte_costs_its_block_and_nothing_else() {
    let groups = groups();
    let file = recording(&groups);
    let offsets = block_offsets(&file);
    for at in 0..file.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut file = file.clone();
            file[at] ^= change;
            let Ok(read) = drain(&*file) else {
                assert!(at < offsets[0], "only a damaged header spoils everything, not byte {at}");
                continue;
            };
            let block =
                offsets.iter().rposition(|&from| from <= at).expect("the header is checked as a whole");
            let mut expected = groups.clone();
            if block < groups.len() {
                expected.remove(block);
                let [Error::Damaged { at_byte, block: number, resumes_at, blocks_lost: 1 }] = read.errors[..]
                else {
                    panic!("{:?}", read.errors);
                };
                assert_eq!((at_byte, number), (offsets[block] as u64, block as u64));
                assert_eq!(resumes_at, offsets[block + 1] as u64);
                assert_eq!((read.seen.blocks_lost, read.seen.bytes_lost), (1, resumes_at - at_byte));
                assert!(matches!(read.tail, Some(Tail::Clean(_))));
            } else {
                assert!(read.errors.is_empty());
                assert!(matches!(read.tail, Some(Tail::Torn { .. })));
            }
            assert_eq!(read.items, expected.concat(), "byte {at}");
        }
    }
}

#[test]
fn a_damaged_block_is_named_with_its_place_and_the_way_out() {
    let mut file = recording(&groups());
    let offsets = block_offsets(&file);
    file[offsets[1] + HEAD + 2] ^= 1;
    let (from, to) = (offsets[1], offsets[2]);
    let read = drain(&*file).unwrap();
    assert_eq!(
        read.errors[0].to_string(),
        format!(
            "damaged at byte {from}, block 1: {} bytes unreadable, 1 block lost; all before was read; copy the \
             file again from where it was recorded, or replay it with --skip-damaged to go on at byte {to}",
            to - from
        )
    );
}

#[test]
fn a_block_that_was_cut_out_is_missed_by_its_number() {
    let file = recording(&groups());
    let offsets = block_offsets(&file);
    let read = drain(&*[&file[..offsets[0]], &file[offsets[2]..]].concat()).unwrap();
    assert_eq!(read.items, groups()[2]);
    assert_eq!(read.seen.blocks_lost, 2);
    assert!(read.errors[0].to_string().contains("block 0: 2 blocks cut out"), "{}", read.errors[0]);
    // The last one too: the end block knows how many there were.
    let read = drain(&*[&file[..offsets[2]], &file[offsets[3]..]].concat()).unwrap();
    assert_eq!((read.items, read.seen.blocks_lost), (groups()[..2].concat(), 1));
}

#[test]
fn a_block_that_comes_twice_is_read_once() {
    let file = recording(&groups());
    let offsets = block_offsets(&file);
    let read = drain(&*[&file[..offsets[2]], &file[offsets[1]..]].concat()).unwrap();
    assert_eq!(read.items, groups().concat());
    assert!(read.errors[0].to_string().contains("bytes that do not belong there"), "{}", read.errors[0]);
}

#[test]
fn a_block_of_another_recording_does_not_pass_for_one_of_this() {
    let mut other = start();
    other.created_wall_ns += 1;
    let mut writer = Writer::new(Vec::new(), &other).unwrap();
    writer.record(b"planted").unwrap();
    let other = writer.finish(0).unwrap();
    let planted = &other[block_offsets(&other)[0]..block_offsets(&other)[1]];
    let file = recording(&groups());
    let offsets = block_offsets(&file);
    let read = drain(&*[&file[..offsets[0]], planted, &file[offsets[1]..]].concat()).unwrap();
    assert_eq!((read.items, read.seen.blocks_lost), (groups()[1..].concat(), 1));
    // As the end of a file, when the disk gives back what was there before.
    let read = drain(&*[&file[..offsets[0]], planted].concat()).unwrap();
    assert_eq!(read.items, []);
    assert!(matches!(read.tail, Some(Tail::Torn { .. })));
}

#[test]
fn items_of_a_kind_from_the_future_are_counted_and_skipped() {
    let header = header_only();
    let payload = b"\x01\x01a\x09\x02??\x01\x01b";
    let head = Head {
        end: false,
        raw_len: payload.len(),
        payload_len: payload.len(),
        items: 3,
        number: 0,
        payload_crc: 0,
    };
    let read = drain(&*[&*header, &forged(salt(&header), head, payload)].concat()).unwrap();
    assert_eq!(read.items, [record("a"), record("b")]);
    assert_eq!((read.seen.items, read.seen.unknown_items), (2, 1));
}

#[test]
fn a_block_that_contradicts_itself_is_not_delivered_even_in_part() {
    let header = header_only();
    let salt = salt(&header);
    let stored = |payload: &[u8], items| {
        let len = payload.len();
        forged(
            salt,
            Head { end: false, raw_len: len, payload_len: len, items, number: 0, payload_crc: 0 },
            payload,
        )
    };
    let good = b"\x01\x01a\x01\x01b".as_slice();
    assert_eq!(drain(&*[&*header, &stored(good, 2)].concat()).unwrap().items, [record("a"), record("b")]);
    let too_long = [b"\x01\x01a\x01\x81\x80\x04".as_slice(), &vec![0; MAX_RECORD + 1]].concat();
    let packed = lz4_flex::block::compress(&[0; 500]);
    let lz4 = |raw_len, payload_len| {
        let head = Head { end: false, raw_len, payload_len, items: 250, number: 0, payload_crc: 0 };
        forged(salt, head, &packed)
    };
    for (why, block) in [
        ("fewer items than it says", stored(good, 3)),
        ("bytes after the last item", stored(good, 1)),
        ("an item that goes on past the end", stored(b"\x01\x01a\x01\x02b", 2)),
        ("a record beyond its limit", stored(&too_long, 2)),
        ("a length of four bytes", stored(b"\x01\x01a\x01\x81\x80\x80\x00b", 2)),
        ("no items", stored(b"", 0)),
        ("LZ4 that unpacks to more", lz4(499, packed.len())),
        ("LZ4 that unpacks to less", lz4(501, packed.len())),
        ("more than a block may hold", lz4(MAX_BLOCK + 1, packed.len())),
        ("a payload longer than what it holds", lz4(500, 501)),
    ] {
        let read = drain(&*[&*header, &block].concat()).unwrap();
        assert_eq!(read.items, [], "{why}");
        assert!(
            matches!(read.tail, Some(Tail::Torn { at_byte, .. }) if at_byte == header.len() as u64),
            "{why}"
        );
    }
}

#[test]
fn a_length_is_refused_before_anything_is_allocated_for_it() {
    let head = |raw_len, payload_len| {
        let head = Head { end: false, raw_len, payload_len, items: 1, number: 0, payload_crc: 0 };
        Head::decode(&forged(7, head, b""), 7)
    };
    assert!(head(MAX_BLOCK, MAX_BLOCK).is_some());
    assert_eq!(head(MAX_BLOCK + 1, 1), None);
    assert_eq!(head(10, 11), None);
}

#[test]
fn what_is_no_recording_is_told_apart_and_what_to_do_is_said() {
    let says = |bytes: &[u8], expected: &str| {
        let error = drain(bytes).err().unwrap().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    };
    says(b"", "not a culprit recording: it begins with \"\", a recording with \"\\x89culprit\"; it is empty");
    says(b"\x7fELF\x02\x01\x01\0\0\0\0", "make one with culprit record FILE");
    says(b"\x1f\x8b\x08\0", "gunzip");
    says(b"{\"type\":\"start\"", "JSON");
    says(&MAGIC[..5], "ends inside its header, after 5 bytes");

    let mut file = recording(&groups());
    file[8] = 9;
    says(&file, "recording format 9, flags 0x0, but culprit 0.1.0 understands only format 1");
    file[8] = 1;
    file[10] = 4;
    says(&file, "flags 0x4");
    file[10] = 0;
    file[20] ^= 1;
    says(&file, "its header is damaged: its checksum is wrong");
    file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    says(&file, "4294967295 bytes long, the limit is 65536");

    let (mut header, _) = frame::header(0, 0, b"[]").unwrap();
    says(&header, "its origin cannot be read");
    let other = if cfg!(target_endian = "big") { "little" } else { "big" };
    let origin = format!(r#"{{"version":"9","byte_order":"{other}","arch":"s390x","new":1}}"#);
    (header, _) = frame::header(0, 0, origin.as_bytes()).unwrap();
    says(&header, &format!("recorded on a {other}-endian machine (s390x), but this one is"));
}

#[test]
fn joined_recordings_are_read_to_the_first_end_and_the_rest_is_told() {
    let file = recording(&groups());
    let read = drain(&*[&*file, &file].concat()).unwrap();
    assert_eq!(read.items, groups().concat());
    assert!(matches!(read.errors[..], [Error::TrailingBytes { at_byte }] if at_byte == file.len() as u64));
    assert!(matches!(read.tail, Some(Tail::Clean(_))));
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

/// A disk with room for so many bytes; once it was full, somebody makes room.
struct Disk {
    room: usize,
    written: Vec<u8>,
}

impl Write for &mut Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 && !bytes.is_empty() {
            self.room = usize::MAX;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= count;
        self.written.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_leaves_every_block_before() {
    let room = header_only().len() + 100;
    let mut disk = Disk { room, written: Vec::new() };
    let mut writer = Writer::new(&mut disk, &start()).unwrap();
    writer.record(b"kept").unwrap();
    writer.flush().unwrap();
    writer.record(&[3; 5]).unwrap();
    writer.record(b"0123456789abcdefghijklmnopqrstuvwxyz").unwrap();
    assert!(matches!(writer.flush(), Err(WriteError::Io(_))));
    // There is room again, but nothing may follow a torn block.
    assert!(matches!(writer.record(b"later"), Err(WriteError::Ended)));
    assert!(matches!(writer.flush(), Err(WriteError::Ended)));
    assert!(matches!(writer.finish(0), Err(WriteError::Ended)));
    let read = drain(&*disk.written).unwrap();
    assert_eq!(read.items, [record("kept")]);
    assert!(matches!(read.tail, Some(Tail::Torn { .. })));
}

/// A pipe: a few bytes at a time, sometimes an interruption, an error at the end if there is one.
struct Pipe {
    chunks: VecDeque<Vec<u8>>,
    interrupt: bool,
    error: Option<io::ErrorKind>,
}

impl Pipe {
    fn new(file: &[u8], error: Option<io::ErrorKind>) -> Self {
        Self { chunks: file.chunks(3).map(<[u8]>::to_vec).collect(), interrupt: false, error }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match (self.chunks.pop_front(), self.error) {
            (Some(chunk), _) => {
                let count = chunk.len().min(buffer.len());
                buffer[..count].copy_from_slice(&chunk[..count]);
                if count < chunk.len() {
                    self.chunks.push_front(chunk[count..].to_vec());
                }
                Ok(count)
            }
            (None, Some(kind)) => Err(kind.into()),
            (None, None) => Ok(0),
        }
    }
}

#[test]
fn a_pipe_is_as_good_as_a_file() {
    let file = recording(&groups());
    let read = drain(Pipe::new(&file, None)).unwrap();
    assert_eq!(read.items, groups().concat());
    assert!(read.errors.is_empty());
}

#[test]
fn a_read_that_fails_is_an_error_and_not_a_torn_tail() {
    let file = recording(&groups());
    let cut = block_offsets(&file)[1] + 5;
    let read = drain(Pipe::new(&file[..cut], Some(io::ErrorKind::ConnectionReset))).unwrap();
    assert_eq!(read.items, groups()[0]);
    assert!(matches!(read.errors[..], [Error::Io { at_byte, .. }] if at_byte == cut as u64));
    assert_eq!(read.tail, None);
}

#[test]
fn an_item_outlives_the_block_it_came_in() {
    let groups: Vec<_> = (0..20u8).map(|n| vec![record(vec![n; 5000])]).collect();
    // All are held until the end, so no block's memory may be used again.
    assert_eq!(drain(&*recording(&groups)).unwrap().items, groups.concat());
}

fn any_item() -> impl Strategy<Value = Item> {
    let len = prop_oneof![8 => 0..200usize, 1 => 0..20_000usize];
    let bytes = prop_oneof![
        len.clone().prop_flat_map(|len| prop::collection::vec(any::<u8>(), len)),
        (any::<u8>(), len).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (any::<bool>(), bytes)
        .prop_map(|(is_record, bytes)| if is_record { record(bytes) } else { context(bytes) })
}

fn any_groups() -> impl Strategy<Value = Vec<Vec<Item>>> {
    prop::collection::vec(prop::collection::vec(any_item(), 0..12), 0..6)
}

fn is_subsequence(few: &[Item], many: &[Item]) -> bool {
    let mut many = many.iter();
    few.iter().all(|item| many.any(|other| other == item))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_items_come_back_as_they_went(groups in any_groups()) {
        let read = drain(&*recording(&groups)).unwrap();
        prop_assert_eq!(read.items, groups.concat());
        prop_assert!(read.errors.is_empty());
        prop_assert!(matches!(read.tail, Some(Tail::Clean(_))));
    }

    #[test]
    fn any_recording_cut_anywhere_gives_a_prefix(groups in any_groups(), cut in any::<prop::sample::Index>()) {
        let file = recording(&groups);
        if let Ok(read) = drain(&file[..cut.index(file.len())]) {
            prop_assert!(groups.concat().starts_with(&read.items));
            prop_assert!(read.errors.is_empty());
        }
    }

    /// One changed byte is always found. More may pass with a chance of 2⁻³² a block, which is
    /// no reason for a test to fail in our lifetime.
    #[test]
    fn changed_bytes_never_make_an_item_that_was_not_written(
        groups in any_groups(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..8),
    ) {
        let mut file = recording(&groups);
        for (at, change) in changes {
            let at = at.index(file.len());
            file[at] ^= change;
        }
        if let Ok(read) = drain(&*file) {
            prop_assert!(is_subsequence(&read.items, &groups.concat()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = drain(&*bytes);
        let _ = drain(&*[&MAGIC, &*bytes].concat());
        let read = drain(&*[&*header_only(), &bytes].concat()).unwrap();
        prop_assert!(read.items.is_empty());
    }

    /// What a forger with the checksums in hand can do: any lengths, any payload.
    #[test]
    fn blocks_forged_with_right_checksums_are_survived(
        blocks in prop::collection::vec((
            any::<bool>(),
            prop_oneof![0..64usize, 0..=MAX_BLOCK, Just(u32::MAX as usize)],
            prop_oneof![any::<u32>(), 0..40u32],
            prop_oneof![any::<u64>(), 0..8u64],
            prop::collection::vec(prop_oneof![any::<u8>(), 0..4u8], 0..80),
            prop_oneof![4 => Just(None), 1 => any::<u32>().prop_map(Some)],
            prop_oneof![Just(true), Just(false)],
        ), 0..8),
    ) {
        let mut file = header_only();
        let salt = salt(&file);
        for (end, raw_len, items, number, payload, payload_len, stored) in blocks {
            let payload_len = payload_len.map_or(payload.len(), |len| len as usize);
            let raw_len = if stored { payload_len } else { raw_len };
            file.extend(forged(salt, Head { end, raw_len, payload_len, items, number, payload_crc: 0 }, &payload));
        }
        let _ = drain(&*file);
    }
}

/// Records like those of a busy host: 150 bytes, a handful of processes, addresses that repeat,
/// ports and times that do not.
fn busy_host(count: u64) -> impl Iterator<Item = [u8; 150]> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..count).map(move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 32) as u32;
        let process = 1000 + (random >> 28) * 17;
        let mut record = [0; 150];
        record[..8].copy_from_slice(&(42_000_000_000 + n * 4_800 + u64::from(random & 0xfff)).to_le_bytes());
        record[8..12].copy_from_slice(&(1 + (n % 3) as u32).to_le_bytes());
        record[12..16].copy_from_slice(&150u32.to_le_bytes());
        record[16..24].copy_from_slice(&(n / 3).to_le_bytes());
        record[24..28].copy_from_slice(&process.to_le_bytes());
        record[28..32].copy_from_slice(&(process + (random >> 24 & 7)).to_le_bytes());
        record[32..36].copy_from_slice(&4_026_531_840u32.to_le_bytes());
        record[40..48].copy_from_slice(&(7000 + u64::from(random >> 28)).to_le_bytes());
        record[48..53].copy_from_slice(b"raven");
        for (at, host) in [(64, 2), (80, random >> 16 & 0x3f)] {
            record[at + 10..at + 14].copy_from_slice(&[0xff, 0xff, 10, 0]);
            record[at + 15] = host as u8;
        }
        record[96..98].copy_from_slice(&(random as u16).to_le_bytes());
        record[98..100].copy_from_slice(&443u16.to_le_bytes());
        record[100..104].copy_from_slice(&[2, 0, 6, 0]);
        record[104..108].copy_from_slice(&(random & 0xf_ffff).to_le_bytes());
        record
    })
}

#[test]
#[ignore = "a measurement: cargo test --release -p culprit record -- --ignored --nocapture"]
fn a_million_records_are_read_in_less_than_a_second() {
    const COUNT: u64 = 1_000_000;
    let records: Vec<_> = busy_host(COUNT).collect();
    let began = Instant::now();
    let mut writer = Writer::new(Vec::new(), &start()).unwrap();
    for record in &records {
        writer.record(record).unwrap();
    }
    let file = writer.finish(0).unwrap();
    let writing = began.elapsed();

    let began = Instant::now();
    let mut bytes = 0;
    for item in Reader::open(&*file).unwrap() {
        let (Item::Record(item) | Item::Context(item)) = item.unwrap();
        bytes += std::hint::black_box(&item).len();
    }
    let reading = began.elapsed();
    assert_eq!(bytes, records.len() * 150);
    let rate = |took: std::time::Duration| COUNT as f64 / took.as_secs_f64() / 1e6;
    eprintln!(
        "{COUNT} records of 150 bytes: written at {:.1} M/s, read at {:.1} M/s; {:.1} bytes each, ratio {:.1}",
        rate(writing),
        rate(reading),
        file.len() as f64 / COUNT as f64,
        bytes as f64 / file.len() as f64,
    );
    assert!(reading.as_secs_f64() < 1.0);
}
