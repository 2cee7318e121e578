//! What is reported of a handshake.

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

/// Reports a handshake, unless only the unhealthy is reported and this one is healthy.
#[inline(always)]
pub(super) fn report(kind: Kind, hs: &Handshake) {
    if (filter::quiet() || nobodys(hs)) && hs.flags & STALLED == 0 {
        return;
    }
    reported(kind, hs.cookie);
}

/// Reports a handshake.
#[inline(always)]
pub(super) fn reported(kind: Kind, cookie: u64) {
    call!(tls_reported(cookie, u64::from(kind.0)));
}

/// See [`reported`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_reported(cookie: u64, kind: u64) -> u64 {
    if let Some(handshake) = HANDSHAKES.get_ptr(&cookie) {
        emit::<TlsRecord>(ProbeId::TLS, |record| {
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
