//! Any bytes, read as a recording to the end.
//!
//! `CULPRIT_PROBES=none cargo +nightly fuzz run recording fuzz/corpus/recording fuzz/seeds/recording`
//!
//! Under `cfg(fuzzing)` the reader believes every checksum, so that mutations get past them.
#![no_main]

use culprit::record::{Error, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::open(bytes) else { return };
    let (mut items, mut failed) = (0, false);
    for step in &mut reader {
        match step {
            Ok(_) => items += 1,
            Err(error) => failed |= !matches!(error, Error::Damaged { .. } | Error::TrailingBytes { .. }),
        }
    }
    assert!(!failed, "memory does not fail to be read");
    assert_eq!(reader.seen().items, items);
    assert!(reader.tail().is_some(), "every recording that can be read ends somehow");
});
