//! Any items, and any bytes.

use proptest::prelude::*;

use super::*;

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
