//! Where the packets of a connect go once netfilter of another network namespace has translated them: its conntrack
//! knows both ways.

use core::ffi::c_void;

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel_buf, programs::BtfTracePointContext};

use super::{
    leaves_as_asked,
    translated::LATER,
    wire::{WAYS, way},
};
use crate::{
    abi::{AF_INET, Tuple},
    bpf::{address::mapped, owner::PENDING, verifier::opaque},
    fields,
};

/// 1: this kernel describes conntrack's entries.
#[unsafe(no_mangle)]
pub(super) static HAVE_CONNTRACK: Global<u32> = Global::new(0);

/// Bytes of `struct nf_conntrack_tuple`.
const TUPLE_LEN: usize = 40;

/// The cookie of the connect whose SYN or answer was dropped where it is on another way than it left: conntrack of
/// that namespace knows both. 0 if there is none. Not inlined, for the stack.
#[inline(never)]
pub(super) fn translated_later(ctx: *mut c_void) -> u64 {
    opaque(translated_later_inlined(&BtfTracePointContext::new(ctx)))
}

#[inline(always)]
fn translated_later_inlined(ctx: &BtfTracePointContext) -> u64 {
    /// The low bits of `_nfct` say how far the connection has come: include/linux/skbuff.h, NFCT_INFOMASK.
    const INFO: usize = 7;
    let skb: *const u8 = ctx.arg(0);
    // SAFETY: a direct load of a checked field; conntrack's memory by helpers that cannot fault; live map values.
    unsafe {
        let connection = (fields::SKB_NFCT::read(skb) & !INFO) as *const u8;
        if connection.is_null() {
            return 0;
        }
        let hash = fields::CT_TUPLES::address(connection);
        let mut sent = [0u8; TUPLE_LEN];
        let at = fields::CT_TUPLE::address(hash).cast::<u8>();
        if bpf_probe_read_kernel_buf(at, &mut sent).is_err() {
            return 0;
        }
        let (local, remote) = ends(&sent);
        let Some(cookie) = WAYS.get_ptr(&way(local.0, remote.0, local.1, remote.1)) else { return 0 };
        let cookie = *cookie;
        let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return 0 };
        // The answer's tuple follows the question's, behind a list node of the same size as the one before this.
        let next = at.wrapping_add(TUPLE_LEN + (at as usize - hash as usize));
        let mut answer = [0u8; TUPLE_LEN];
        if leaves_as_asked((*connect).translated) && bpf_probe_read_kernel_buf(next, &mut answer).is_ok() {
            let (remote, local) = ends(&answer);
            let wire = Tuple { family: (*connect).tuple.family, ..way(local.0, remote.0, local.1, remote.1) };
            (*connect).wire = wire;
            (*connect).translated = LATER;
        }
        cookie
    }
}

/// Source and destination of a `struct nf_conntrack_tuple`.
#[inline(always)]
fn ends(tuple: &[u8; TUPLE_LEN]) -> (([u8; 16], u16), ([u8; 16], u16)) {
    let v4 = u16::from_ne_bytes([tuple[18], tuple[19]]) == AF_INET;
    let mut source = [0u8; 16];
    let mut target = [0u8; 16];
    if v4 {
        source = mapped(u32::from_ne_bytes([tuple[0], tuple[1], tuple[2], tuple[3]]));
        target = mapped(u32::from_ne_bytes([tuple[20], tuple[21], tuple[22], tuple[23]]));
    } else {
        source.copy_from_slice(&tuple[..16]);
        target.copy_from_slice(&tuple[20..36]);
    }
    let ports = (u16::from_be_bytes([tuple[16], tuple[17]]), u16::from_be_bytes([tuple[36], tuple[37]]));
    ((source, ports.0), (target, ports.1))
}
