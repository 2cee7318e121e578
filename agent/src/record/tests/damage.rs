//! Cut, changed, joined, forged: what is whole is read, and the rest is named.

use super::*;

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
fn what_is_no_recording_is_distinguished_and_what_to_do_is_said() {
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
fn joined_recordings_are_read_to_the_first_end_and_the_rest_is_reported() {
    let file = recording(&groups());
    let read = drain(&*[&*file, &file].concat()).unwrap();
    assert_eq!(read.items, groups().concat());
    assert!(matches!(read.errors[..], [Error::TrailingBytes { at_byte }] if at_byte == file.len() as u64));
    assert!(matches!(read.tail, Some(Tail::Clean(_))));
}
