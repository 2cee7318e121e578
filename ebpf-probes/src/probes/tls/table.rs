//! The handshakes in flight, and the gate before them: which ports' packets are of any interest.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};

use super::{Handshake, SERVER, SPEAKS_TLS};
use crate::bpf::{filter, verifier::atomic_add};

/// Handshakes in flight, by socket cookie. Gone when the handshake ends.
#[map]
pub(super) static HANDSHAKES: HashMap<u64, Handshake> = HashMap::with_max_entries(1 << 14, 0);

/// What a hash of a socket's ports is of interest for: the one look that packets of finished handshakes and of
/// everything else pay.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Handshakes in flight.
    live: u64,
    /// 1: a connection has been accepted whose first bytes have not come yet. A mark that one of several may take from
    /// the others; nothing but a hello whose segments come out of order depends on it.
    pub(super) young: u32,
    /// 1: a handshake began here before its socket existed.
    pub(super) requested: u32,
}

#[map]
static GATE: Array<Slot> = Array::with_max_entries(GATE_SLOTS, 0);
const GATE_SLOTS: u32 = 1 << 16;

/// Services that have answered a ClientHello with a ServerHello, by namespace and port; and how many handshakes each has
/// completed since.
#[map]
static SPOKE_TLS: LruHashMap<[u32; 3], u64> = LruHashMap::with_max_entries(1 << 12, 0);
/// `BPF_NOEXIST` of include/uapi/linux/bpf.h: what is there stays.
const NO_EXIST: u64 = 1;

/// The slot of a socket's ports.
#[inline(always)]
pub(super) fn slot_of(local: u16, remote: u16) -> Option<*mut Slot> {
    GATE.get_ptr_mut((u32::from(local).wrapping_mul(0x9e37) ^ u32::from(remote)) & (GATE_SLOTS - 1))
}

/// Whether packets of a socket with these ports are of interest. The ports are the socket's: netfilter may have given
/// those of packets that leave another value.
#[inline(always)]
pub(crate) fn open(local: u16, remote: u16) -> bool {
    match slot_of(local, remote) {
        // SAFETY: a live array slot, two words long.
        Some(slot) => unsafe {
            let words = slot.cast::<u64>();
            words.read_volatile() | words.add(1).read_volatile() != 0
        },
        None => false,
    }
}

#[inline(always)]
pub(super) fn gate(local: u16, remote: u16, by: u64) {
    if let Some(slot) = slot_of(local, remote) {
        // SAFETY: a live, aligned array slot, shared between CPUs.
        unsafe { atomic_add(&raw mut (*slot).live, by) };
    }
}

/// Whether a packet without payload is of interest: the first that leaves a socket is what draws its cookie, where
/// tracepoints cannot.
#[inline(always)]
pub(crate) fn bare(local: u16, remote: u16) -> bool {
    // SAFETY: a live array slot.
    slot_of(local, remote).is_some_and(|slot| unsafe { (*slot).requested != 0 })
}

#[inline(always)]
fn service(hs: &Handshake) -> [u32; 3] {
    [hs.owner.netns.inode, hs.owner.netns.generation, hs.tuple.local_port.into()]
}

/// Whether the service this handshake is with has answered one before.
#[inline(always)]
pub(super) fn speaks_tls(hs: &Handshake) -> bool {
    SPOKE_TLS.get_ptr(&service(hs)).is_some()
}

/// The service answers with a ServerHello.
#[inline(always)]
pub(super) fn spoke_tls(hs: &Handshake) {
    if hs.flags & SPEAKS_TLS == 0 {
        let _ = SPOKE_TLS.insert(&service(hs), &0, NO_EXIST);
    }
}

/// The service has completed a handshake.
#[inline(always)]
pub(super) fn completed(hs: &Handshake) {
    if let Some(count) = SPOKE_TLS.get_ptr_mut(&service(hs)) {
        // SAFETY: a live, aligned map value, shared between CPUs.
        unsafe { atomic_add(count, 1) };
    }
}

/// How many the service has completed.
#[inline(always)]
pub(super) fn served(hs: &Handshake) -> u32 {
    // SAFETY: a live map value.
    SPOKE_TLS.get_ptr(&service(hs)).map_or(0, |count| unsafe { count.read_volatile() as u32 })
}

/// A server's handshake that was not read, where only some processes are wanted: it is held back until it
/// is known whose it is.
#[inline(always)]
pub(super) fn nobodys(hs: &Handshake) -> bool {
    filter::by_owner() && hs.role == SERVER && hs.owner.process == 0
}
