//! Any bytes as a record, and what the world makes of it.
#![no_main]

use bytes::Bytes;
use culprit::{domains::decode, pipeline::world::World};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut world = World::default();
    // Several records in one input: two bytes of length before each.
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(tail.len());
        if let Ok(event) = decode(&Bytes::copy_from_slice(&tail[..len])) {
            world.apply(&event, drop);
        }
        rest = &tail[len..];
    }
});
