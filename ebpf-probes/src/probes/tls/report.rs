//! What is told of a handshake.

use super::{
    Handshake, STALLED, TlsRecord,
    table::{HANDSHAKES, nobodys},
};
use crate::{
    abi::{Header, Kind, ProbeId},
    bpf::{
        filter,
        ring::emit,
        time::now,
        verifier::{call, opaque},
    },
};

/// Tells a handshake, unless only the unhealthy is told and this one is healthy.
#[inline(always)]
pub(super) fn tell(kind: Kind, hs: &Handshake) {
    if (filter::quiet() || nobodys(hs)) && hs.flags & STALLED == 0 {
        return;
    }
    told(kind, hs);
}

/// Tells a handshake.
#[inline(always)]
pub(super) fn told(kind: Kind, hs: &Handshake) {
    call!(tls_told(hs.cookie, kind as u64));
}

/// See [`told`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_told(cookie: u64, kind: u64) -> u64 {
    if let Some(handshake) = HANDSHAKES.get_ptr(&cookie) {
        emit::<TlsRecord>(ProbeId::Tls, |record| {
            // SAFETY: a fresh reservation of the record's size, of which every byte is written; a live map value.
            unsafe {
                let len = size_of::<TlsRecord>() as u32;
                (&raw mut (*record).header).write(Header { boot_ns: now(), kind: kind as u32, len });
                core::ptr::copy_nonoverlapping(handshake, &raw mut (*record).handshake, 1);
            }
            Some(())
        });
    }
    opaque(0)
}
