//! Lookups under way and the last answers, held when they are not put on the ring.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};

use super::{DeferredMessage, LOOKUPS as FOLLOWED, LookupKey};

/// Questions that wait for their answers, when they are not put on the ring.
#[map]
pub(super) static LOOKUPS: LruHashMap<LookupKey, DeferredMessage> = LruHashMap::with_max_entries(FOLLOWED, 0);

/// The last answers, likewise: where the names of addresses come from once a name is needed.
#[map]
pub(super) static ANSWERS: LruHashMap<LookupKey, DeferredMessage> = LruHashMap::with_max_entries(FOLLOWED, 0);

/// An empty message, to begin from. Never written.
#[map]
pub(super) static NO_MESSAGE: Array<DeferredMessage> = Array::with_max_entries(1, 0);

/// Bytes of a message before its question: RFC 1035 §4.1.1.
pub(super) const MESSAGE_HEADER: u32 = 12;
