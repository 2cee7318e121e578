//! Updates of entries: what a received ARP or NDP packet, or a netlink request, says, and what came of it.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_probe_read_kernel as read_kernel,
    },
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::LruHashMap,
    programs::{BtfTracePointContext, RawTracePointContext},
};

use super::{
    ClaimRecord, NeighKey, cause,
    change::{Update, look},
    datagrams, flag, macs, state,
    table::{NEIGHBOURS, key_of},
};
use crate::{
    abi::{Kind, Owner, ProbeId},
    bpf::{
        filter,
        netns::current_netns,
        owner::current,
        ring::{emit, header},
        time::{SECOND, now},
        verifier::call,
    },
    fields,
};

/// Updates between their beginning and their end, which a thread finishes before it starts another.
#[map]
static UPDATES: LruHashMap<UpdateKey, Update> = LruHashMap::with_max_entries(1 << 10, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct UpdateKey {
    neighbour: u64,
    thread: u64,
}

/// `NEIGH_UPDATE_F_ADMIN` of include/net/neighbour.h: netlink and the ARP ioctls set it, packets never do.
const F_ADMIN: u32 = 0x8000_0000;
/// `NTF_EXT_LEARNED` of include/uapi/linux/neighbour.h.
const NTF_EXT_LEARNED: u32 = 0x10;
/// Length of an Ethernet address.
const ETH_ALEN: u8 = 6;

/// Runs for each received ARP or NDP packet that concerns an entry, and each change by netlink, before
/// the change: the only place that knows who asks, and what is asked for. A raw tracepoint, because 5.10
/// refuses a tp_btf program that touches the MAC's argument.
#[raw_tracepoint(tracepoint = "neigh_update")]
pub fn neigh_updating(ctx: RawTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    let flags: u32 = ctx.arg(3);
    let netlink_pid: u32 = ctx.arg(4);
    let by_hand = netlink_pid != 0 || flags & F_ADMIN != 0;
    // By hand means in the thread that asks: rtnetlink and ioctls change neighbours synchronously.
    let owner = if by_hand { current(current_netns()) } else { Owner::default() };
    let update = Update {
        owner,
        mac: bpf_read(fields::NEIGH_HA::address(neighbour)),
        claimed: claimed(neighbour, ctx.arg(1)),
        state: u32::from(bpf_read(fields::NEIGH_STATE::address(neighbour))),
        flags,
        netlink_pid,
        by_hand: u32::from(by_hand),
    };
    let key = UpdateKey { neighbour: neighbour as u64, thread: bpf_get_current_pid_tgid() };
    let _ = UPDATES.insert(&key, &update, 0);
    0
}

/// A field of a kernel structure by a helper that cannot fault, zero where that fails.
#[inline(always)]
fn bpf_read<T: Default>(at: *const T) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at) }.unwrap_or_default()
}

/// The Ethernet address in an update.
#[inline(always)]
fn claimed(neighbour: *const u8, mac: *const u8) -> u64 {
    let mut claimed = 0u64;
    // SAFETY: helpers that check addresses; six bytes into eight.
    unsafe {
        let Ok(device) = bpf_probe_read_kernel(fields::NEIGH_DEV::address(neighbour)) else { return 0 };
        if mac.is_null() || bpf_read(fields::DEV_ADDR_LEN::address(device)) != ETH_ALEN {
            return 0;
        }
        let _ = read_kernel((&raw mut claimed).cast(), u32::from(ETH_ALEN), mac.cast());
    }
    claimed
}

/// As often as `neigh_update`, when it is done: reports it if it changed anything, and if it did not although
/// it names another MAC.
#[btf_tracepoint(function = "neigh_update_done")]
pub fn neigh_updated(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    let key = UpdateKey { neighbour: neighbour as u64, thread: bpf_get_current_pid_tgid() };
    let update = UPDATES.get_ptr(&key);
    // SAFETY: a BTF-typed argument, and a live map value.
    unsafe {
        look(neighbour, cause::UPDATED, update);
        if let Some(update) = update
            && (*update).claimed != 0
            && (*update).by_hand == 0
            && let Some((key, _)) = key_of(neighbour)
        {
            claim(&key, (*update).claimed, fields::NEIGH_HA::read(neighbour));
        }
        let state = u32::from(fields::NEIGH_STATE::read(neighbour));
        let flags = u32::from(fields::NEIGH_FLAGS::read(neighbour));
        if (state & (state::PERMANENT | state::NOARP) != 0 || flags & NTF_EXT_LEARNED != 0)
            && let Some((key, _)) = key_of(neighbour)
        {
            call!(datagrams::pin(&key));
        }
    }
    let _ = UPDATES.remove(&key);
    0
}

/// A packet named a MAC: the cached one, which confirms it, or another, which the kernel did not believe.
///
/// Unbelieved claims are reported at most once a second; when only the unhealthy is reported, only those of an entry
/// that its own MAC confirms too.
#[inline(always)]
fn claim(key: &NeighKey, claimed: u64, cached: u64) {
    let Some(known) = NEIGHBOURS.get_ptr_mut(key) else { return };
    let at = now();
    // SAFETY: a live map value; races between CPUs cost a record too many.
    unsafe {
        if claimed == cached {
            (*known).confirmed_ns = at;
            return;
        }
        let reported = (*known).claim_reported_ns;
        if cached == 0
            || (filter::quiet() && (*known).confirmed_ns == 0)
            || (reported != 0 && at.wrapping_sub(reported) < SECOND)
        {
            return;
        }
        (*known).claim_reported_ns = at;
        emit::<ClaimRecord>(ProbeId::NEIGH, |record| {
            (&raw mut (*record).header).write(header::<ClaimRecord>(Kind::NEIGH_CLAIM));
            (&raw mut (*record).address).write(key.address);
            (&raw mut (*record).cached_mac).write(cached.to_ne_bytes());
            (&raw mut (*record).claimed_mac).write(claimed.to_ne_bytes());
            (&raw mut (*record).mac_since_ns).write((*known).mac_since_ns);
            (&raw mut (*record).confirmed_ns).write((*known).confirmed_ns);
            (&raw mut (*record).netns).write(key.netns.inode);
            (&raw mut (*record).ifindex).write(key.ifindex);
            (&raw mut (*record).state).write((*known).state);
            (&raw mut (*record).generation).write(key.netns.generation);
            let together = macs::related(key, claimed, cached) != 0;
            (&raw mut (*record).flags).write(if together { flag::TOGETHER } else { 0 });
            (&raw mut (*record).pad).write(0);
            Some(())
        });
    }
}
