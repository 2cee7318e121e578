//! Which network namespace: its number, and what distinguishes it from others that had the number before.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, bpf_probe_read_kernel},
};

use crate::{
    abi::{Netns, generation},
    fields,
};

/// One of [`generation`].
#[unsafe(no_mangle)]
pub(crate) static GENERATION: Global<u32> = Global::new(generation::UNKNOWN);

/// Which namespace a `struct net` is: two loads and a constant branch.
///
/// # Safety
/// `net` must be a BTF-typed `struct net`.
#[inline(always)]
pub(crate) unsafe fn netns(net: *const u8) -> Netns {
    // SAFETY: direct loads, checked by the verifier; those of the other sources are dead code.
    unsafe {
        let generation = match GENERATION.load() {
            generation::COOKIE => fields::NET_COOKIE::read(net) as u32,
            generation::HASH_MIX => half(fields::NET_HASH_MIX::read(net)),
            _ => 0,
        };
        Netns { inode: fields::NET_INUM::read(net), generation }
    }
}

/// The same of what may be null: unknown then.
///
/// # Safety
/// `net` must be a BTF-typed `struct net` or null.
#[inline(always)]
pub(crate) unsafe fn netns_or_unknown(net: *const u8) -> Netns {
    // SAFETY: as promised by the caller.
    if net.is_null() { Netns::numbered(0) } else { unsafe { netns(net) } }
}

/// The same where the verifier knows no types; `None` when it cannot be read.
#[inline(always)]
pub(crate) fn netns_at(net: *const u8) -> Option<Netns> {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let generation = match GENERATION.load() {
            generation::COOKIE => bpf_probe_read_kernel(fields::NET_COOKIE::address(net)).ok()? as u32,
            generation::HASH_MIX => half(bpf_probe_read_kernel(fields::NET_HASH_MIX::address(net)).ok()?),
            _ => 0,
        };
        Some(Netns { inode: bpf_probe_read_kernel(fields::NET_INUM::address(net)).ok()?, generation })
    }
}

/// Half of it distinguishes namespaces; one who knew all of it could foresee how the namespace hashes. Never 0.
#[inline(always)]
fn half(hash_mix: u32) -> u32 {
    hash_mix & 0xffff | 0x1_0000
}

/// Never attached: run once by the agent, in a thread that has entered the namespace in question, where the
/// kernel offers no other way (`SO_NETNS_COOKIE`, from Linux 5.14 on). Returns the generation.
///
/// Written out, because what the attribute for such programs makes of a function returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sys_enter")]
extern "C" fn netns_here(_ctx: *mut core::ffi::c_void) -> u32 {
    current_netns().generation
}

/// The network namespace of the calling thread, unknown when it cannot be read. Only in process context.
#[inline(always)]
pub(crate) fn current_netns() -> Netns {
    // SAFETY: the helper returns the running task; each step is read by a helper that cannot fault.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let unknown = Netns::numbered(0);
        let Ok(nsproxy) = bpf_probe_read_kernel(fields::TASK_NSPROXY::address(task)) else { return unknown };
        let Ok(net) = bpf_probe_read_kernel(fields::NSPROXY_NET::address(nsproxy)) else { return unknown };
        netns_at(net).unwrap_or(unknown)
    }
}
