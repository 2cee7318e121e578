//! Connects that were pending before culprit started, as their sockets remember them.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::map,
    maps::Array,
};

use super::{Connect, flag, phase};
use crate::{
    abi::{ProbeId, Stat, V4_MAPPED},
    bpf::{
        address::tuple_at,
        counters::count,
        filter,
        lacking::lacks,
        netns::netns_at,
        owner::{PENDING, SOCKETS, in_other_cgroup, of_task},
        tcp::state::SYN_SENT,
        time::now,
        verifier::opaque,
    },
    fields,
};

/// Where one is put together: one agent, one walk at a time.
#[map]
static ADOPTED: Array<Connect> = Array::with_max_entries(1, 0);

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h, and the error it gives, `EEXIST`.
const NO_EXIST: u64 = 1;
const EXISTS: i32 = -17;

/// Follows a socket in SYN_SENT from now on. Not inlined, for the stack.
#[inline(never)]
pub(crate) fn adopt(sk: *const u8, task: *const u8) -> u64 {
    let _ = adopted(sk, task);
    opaque(0)
}

#[inline(always)]
fn adopted(sk: *const u8, task: *const u8) -> Option<()> {
    let slot = ADOPTED.get_ptr_mut(0)?;
    // SAFETY: a live array slot, which no other program writes; helpers that cannot fault.
    unsafe {
        let netns = netns_at(bpf_probe_read_kernel(fields::SK_NET::address(sk)).ok()?)?;
        (*slot).owner = of_task(task, netns)?;
        (*slot).tuple = tuple_at(sk)?;
        let remote = &(*slot).tuple.remote;
        if !filter::peer(remote, remote[..12] != V4_MAPPED, (*slot).tuple.remote_port)
            || !filter::process(&(*slot).owner)
            || in_other_cgroup(task, filter::CGROUP.load())
        {
            return None;
        }
        let cookie = bpf_probe_read_kernel(fields::SK_COOKIE::address(sk)).ok()?;
        if cookie == 0 {
            return lacks(sk, &(*slot).tuple, netns);
        }
        // When its first SYN was sent: milliseconds of CLOCK_MONOTONIC (tcp_connect() of net/ipv4/tcp_output.c).
        let sent_ms = bpf_probe_read_kernel(fields::TCP_RETRANS_STAMP::address(sk)).ok()?;
        let age_ms = ((bpf_ktime_get_ns() / 1_000_000) as u32).wrapping_sub(sent_ms);
        let retries = bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).ok()?;
        (*slot).cookie = cookie;
        (*slot).started_ns = now().saturating_sub(u64::from(age_ms) * 1_000_000);
        (*slot).retries = u32::from(retries);
        (*slot).syns = u32::from(retries) + 1;
        (*slot).phase = phase::SYN_SENT;
        (*slot).flags = flag::ADOPTED;
        match PENDING.insert(&cookie, &*slot, NO_EXIST) {
            Ok(()) => {}
            Err(EXISTS) => return None,
            Err(_) => {
                count(ProbeId::CONNECT, Stat::MapFull);
                return None;
            }
        }
        if filter::remember() {
            let _ = SOCKETS.insert(&cookie, &(*slot).owner, 0);
        }
        // A transition until now found no entry; one from now on finds it.
        if i32::from(bpf_probe_read_kernel(fields::SK_STATE::address(sk)).unwrap_or(0)) != SYN_SENT {
            let _ = PENDING.remove(&cookie);
        }
    }
    Some(())
}
