//! The programs behind `neigh`: each looks at one entry and tells it when it differs from what was
//! last told. None of them runs per packet, except `neigh_sent` for packets that wait for an
//! unresolved entry; the packet path pays one map look per incoming SYN.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_probe_read_kernel as read_kernel, bpf_skb_load_bytes_relative},
    },
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, LruHashMap},
    programs::{BtfTracePointContext, RawTracePointContext, SkBuffContext},
};

use super::{MacRecord, NeighKey, NeighRecord, Neighbour, cause, flag, state};
use crate::{
    abi::{AF_INET, AF_INET6, Kind, Owner, ProbeId, Stat},
    fields, filter,
    kernel::{atomic_add, count, current, current_netns, emit, header, mapped, now, opaque},
    packet::program::{Packet, netns_of},
};

/// Every neighbour as last told. The agent adds those that existed before it. Least recently used
/// entries give way: a neighbour that comes back is told as seen for the first time.
#[map]
pub static NEIGHBOURS: LruHashMap<NeighKey, Neighbour> = LruHashMap::with_max_entries(1 << 14, 0);

/// Updates between their beginning and their end, which a thread finishes before it starts another.
#[map]
static UPDATES: LruHashMap<UpdateKey, Update> = LruHashMap::with_max_entries(1 << 10, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct UpdateKey {
    neighbour: u64,
    thread: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Update {
    owner: Owner,
    mac: u64,
    state: u32,
    flags: u32,
    netlink_pid: u32,
    by_hand: u32,
}

/// What may happen for every packet, and is told at most once a second.
#[map]
static REPEATS: Array<Repeat> = Array::with_max_entries(4, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Repeat {
    told_ns: u64,
    count: u64,
}

const OVERFLOW_V4: u32 = 0;
const OVERFLOW_V6: u32 = 1;
const DEAD: u32 = 2;
const SECOND: u64 = 1_000_000_000;

/// `NEIGH_UPDATE_F_ADMIN` of include/net/neighbour.h: netlink and the ARP ioctls set it, packets never do.
const F_ADMIN: u32 = 0x8000_0000;
/// `BPF_HDR_START_MAC` of include/uapi/linux/bpf.h.
const HDR_START_MAC: u32 = 0;
/// Where the source address of an Ethernet frame is, and how long it is.
const ETH_SOURCE: u32 = 6;
const ETH_ALEN: u32 = 6;

/// Counts one more, and says how many there were since the last telling when it is time to tell.
#[inline(always)]
fn repeated(what: u32) -> Option<u32> {
    let repeat = REPEATS.get_ptr_mut(what)?;
    // SAFETY: a live array slot; a race between CPUs costs one record too many or a count too low.
    unsafe {
        atomic_add(&raw mut (*repeat).count, 1);
        let at = now();
        if (*repeat).told_ns != 0 && at.wrapping_sub((*repeat).told_ns) < SECOND {
            return None;
        }
        (*repeat).told_ns = at;
        let count = (*repeat).count;
        (*repeat).count = 0;
        Some(count as u32)
    }
}

/// The neighbour's name and family; `None` when it is not IP, not wanted, or cannot be read.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`.
#[inline(always)]
unsafe fn key_of(neighbour: *const u8) -> Option<(NeighKey, u16)> {
    // SAFETY: direct loads the verifier checks. The address is behind the struct's last member, where
    // older verifiers allow none: it is read by a helper that cannot fault.
    unsafe {
        let family = fields::NEIGH_TABLE_FAMILY::read(fields::NEIGH_TBL::read(neighbour)) as u16;
        let at = fields::NEIGH_KEY::address(neighbour);
        let address = if family == AF_INET && filter::V4.load() != 0 {
            bpf_probe_read_kernel(at.cast::<u32>()).map(mapped)
        } else if family == AF_INET6 && filter::V6.load() != 0 {
            bpf_probe_read_kernel(at.cast::<[u8; 16]>())
        } else {
            return None;
        };
        let Ok(address) = address else {
            count(ProbeId::Neigh, Stat::Unreadable);
            return None;
        };
        let device = fields::NEIGH_DEV::read(neighbour);
        let net = fields::DEV_NET::read(device);
        if net.is_null() {
            return None;
        }
        let netns = fields::NET_INUM::read(net);
        Some((NeighKey { netns, ifindex: fields::DEV_IFINDEX::read(device), address }, family))
    }
}

/// What a record says beside the entry itself.
struct Change<'a> {
    cause: u32,
    flags: u32,
    old: &'a Neighbour,
    state: u32,
    mac: u64,
    probes: u32,
    update: Option<*const Update>,
    count: u32,
}

impl Change<'_> {
    /// Nobody answers (not even the second probe), or somebody else does.
    #[inline(always)]
    fn grave(&self) -> bool {
        let old = u64::from_ne_bytes(self.old.mac);
        self.state == state::FAILED
            || (self.state == state::INCOMPLETE && self.probes > 1)
            || self.flags & flag::FAILED_BETWEEN != 0
            || (old != 0 && self.mac != 0 && old != self.mac)
    }
}

/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`.
#[inline(always)]
unsafe fn tell(neighbour: *const u8, key: &NeighKey, family: u16, change: &Change<'_>) {
    if filter::quiet() && !change.grave() {
        return;
    }
    emit::<NeighRecord>(ProbeId::Neigh, |record| {
        // SAFETY: a fresh reservation of the record's size, of which every byte is written; the entry's
        // fields by checked loads, the device's name by a helper that cannot fault.
        unsafe {
            let device = fields::NEIGH_DEV::read(neighbour);
            (&raw mut (*record).header).write(header::<NeighRecord>(Kind::NeighChange));
            let (mut update_flags, mut netlink_pid) = (0, 0);
            match change.update {
                Some(update) => {
                    (&raw mut (*record).owner).write((*update).owner);
                    update_flags = (*update).flags;
                    netlink_pid = (*update).netlink_pid;
                }
                None => (&raw mut (*record).owner).write(Owner::default()),
            }
            (&raw mut (*record).address).write(key.address);
            read_name(device, &raw mut (*record).device)?;
            (&raw mut (*record).old_mac).write(change.old.mac);
            (&raw mut (*record).new_mac).write(change.mac.to_ne_bytes());
            (&raw mut (*record).state_since_ns).write(change.old.state_since_ns);
            (&raw mut (*record).mac_since_ns).write(change.old.mac_since_ns);
            (&raw mut (*record).netns).write(key.netns);
            (&raw mut (*record).ifindex).write(key.ifindex);
            (&raw mut (*record).cause).write(change.cause);
            (&raw mut (*record).flags).write(change.flags);
            (&raw mut (*record).old_state).write(change.old.state);
            (&raw mut (*record).new_state).write(change.state);
            (&raw mut (*record).probes).write(change.probes);
            (&raw mut (*record).update_flags).write(update_flags);
            (&raw mut (*record).netlink_pid).write(netlink_pid);
            (&raw mut (*record).entry_flags).write(u32::from(fields::NEIGH_FLAGS::read(neighbour)));
            (&raw mut (*record).entries).write(0);
            (&raw mut (*record).gc_entries).write(0);
            (&raw mut (*record).gc_thresh3).write(0);
            (&raw mut (*record).count).write(change.count);
            (&raw mut (*record).family).write(family);
            (&raw mut (*record).mac_len).write(u16::from(fields::DEV_ADDR_LEN::read(device)));
            (&raw mut (*record).pad).write(0);
        }
        Some(())
    });
}

/// # Safety
/// `to` must be a reservation.
#[inline(always)]
unsafe fn read_name(device: *const u8, to: *mut [u8; 16]) -> Option<()> {
    // SAFETY: 16 bytes into the reservation, by a helper that cannot fault.
    unsafe { (read_kernel(to.cast(), 16, fields::DEV_NAME::address(device).cast()) == 0).then_some(()) }
}

/// Compares the entry with what was last told of it, and tells the difference.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`, `update` a live map value.
#[inline(always)]
unsafe fn look(neighbour: *const u8, cause: u32, update: Option<*const Update>) {
    // SAFETY: as promised by the caller; map values are live, and a race between two CPUs that look at
    // the same entry costs a change told twice.
    unsafe {
        let state = u32::from(fields::NEIGH_STATE::read(neighbour));
        let Some((key, family)) = key_of(neighbour) else { return };
        let known = NEIGHBOURS.get_ptr_mut(&key);
        let mut old = match known {
            Some(known) => *known,
            None => Neighbour::default(),
        };
        let mac = fields::NEIGH_HA::read(neighbour);
        let probes = fields::NEIGH_PROBES::read(neighbour);
        let mut flags = 0;
        if known.is_none() {
            flags |= flag::FIRST;
            if let Some(update) = update {
                old.state = (*update).state;
                old.mac = (*update).mac.to_ne_bytes();
            }
            if state == state::NOARP && (old.state == state::NONE || old.state == state::NOARP) {
                return;
            }
        }
        let mac_changed = mac != u64::from_ne_bytes(old.mac);
        let asking = state == state::INCOMPLETE || state == state::PROBE;
        if state == old.state && !mac_changed && !(asking && probes != old.probes) {
            return;
        }
        // An entry is only asked for from scratch after it failed, and its count of probes starts again.
        if state == state::INCOMPLETE
            && (old.state == state::PROBE || (old.state == state::INCOMPLETE && probes < old.probes))
        {
            flags |= flag::FAILED_BETWEEN;
        }
        if let Some(update) = update
            && (*update).by_hand != 0
        {
            flags |= flag::BY_HAND;
        }
        let bad = state == state::FAILED
            || old.state == state::FAILED
            || flags & flag::FAILED_BETWEEN != 0
            || (mac_changed && old.mac != [0; 8]);
        if filter::ONLY_BAD.load() == 0 || bad {
            tell(
                neighbour,
                &key,
                family,
                &Change { cause, flags, old: &old, state, mac, probes, update, count: 0 },
            );
        }
        let at = now();
        match known {
            Some(known) => {
                if mac_changed {
                    (*known).mac = mac.to_ne_bytes();
                    (*known).mac_since_ns = at;
                    (*known).other_told_ns = 0;
                }
                if state != old.state {
                    (*known).state = state;
                    (*known).state_since_ns = at;
                }
                (*known).probes = probes;
            }
            None => {
                let mac_since_ns = if mac_changed { at } else { 0 };
                let new = Neighbour {
                    mac: mac.to_ne_bytes(),
                    state,
                    probes,
                    state_since_ns: at,
                    mac_since_ns,
                    ..Neighbour::default()
                };
                let _ = NEIGHBOURS.insert(&key, &new, 0);
            }
        }
    }
}

/// Runs when an entry's timer fires: once a second while it is asked for, every half minute or so
/// while it is in use. The only hook that sees FAILED, and the unanswered probes before it.
#[btf_tracepoint(function = "neigh_timer_handler")]
pub fn neigh_timer(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a BTF-typed argument.
    unsafe { look(ctx.arg(0), cause::TIMER, None) };
    0
}

/// Runs for each packet sent to an entry that is neither known nor being confirmed, which is where a
/// resolution begins: waiting packets pay a dozen loads and one map look (140 ns each in a sending loop).
#[btf_tracepoint(function = "neigh_event_send_done")]
pub fn neigh_sent(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a BTF-typed argument.
    unsafe { look(ctx.arg(0), cause::SENT, None) };
    0
}

/// Runs for each received ARP or NDP packet that concerns an entry, and each change by netlink, before
/// the change: the only place that knows who asks. The new MAC is not read here (5.10 refuses to load a
/// program that touches that argument) but from the entry, once it is done.
#[btf_tracepoint(function = "neigh_update")]
pub fn neigh_updating(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    let flags: u32 = ctx.arg(3);
    let netlink_pid: u32 = ctx.arg(4);
    let by_hand = netlink_pid != 0 || flags & F_ADMIN != 0;
    // By hand means in the thread that asks: rtnetlink and ioctls change neighbours synchronously.
    let owner = if by_hand { current(current_netns()) } else { Owner::default() };
    // SAFETY: `neighbour` is a BTF-typed argument.
    let update = unsafe {
        Update {
            owner,
            mac: fields::NEIGH_HA::read(neighbour),
            state: u32::from(fields::NEIGH_STATE::read(neighbour)),
            flags,
            netlink_pid,
            by_hand: u32::from(by_hand),
        }
    };
    let key = UpdateKey { neighbour: neighbour as u64, thread: bpf_get_current_pid_tgid() };
    let _ = UPDATES.insert(&key, &update, 0);
    0
}

/// As often as `neigh_update`, when it is done: tells it if it changed anything.
#[btf_tracepoint(function = "neigh_update_done")]
pub fn neigh_updated(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    let key = UpdateKey { neighbour: neighbour as u64, thread: bpf_get_current_pid_tgid() };
    // SAFETY: a BTF-typed argument, and a live map value.
    unsafe { look(neighbour, cause::UPDATED, UPDATES.get_ptr(&key)) };
    let _ = UPDATES.remove(&key);
    0
}

/// Runs for a packet that meets an entry in the moment of its removal: rare, told once a second.
#[btf_tracepoint(function = "neigh_event_send_dead")]
pub fn neigh_dead(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument.
    unsafe {
        let Some((key, family)) = key_of(neighbour) else { return 0 };
        let Some(count) = repeated(DEAD) else { return 0 };
        let state = u32::from(fields::NEIGH_STATE::read(neighbour));
        let mac = fields::NEIGH_HA::read(neighbour);
        let old = Neighbour { state, mac: mac.to_ne_bytes(), ..Neighbour::default() };
        let change =
            Change { cause: cause::DEAD, flags: 0, old: &old, state, mac, probes: 0, update: None, count };
        tell(neighbour, &key, family, &change);
    }
    0
}

/// Runs once per removed entry. The kernel has overwritten the state of an entry somebody still holds
/// by now: what it was is in the map.
#[btf_tracepoint(function = "neigh_cleanup_and_release")]
pub fn neigh_removed(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument; the map value is copied while live.
    unsafe {
        let Some((key, family)) = key_of(neighbour) else { return 0 };
        let mut flags = 0;
        let old = match NEIGHBOURS.get_ptr(&key) {
            Some(known) => *known,
            None => {
                let state = u32::from(fields::NEIGH_STATE::read(neighbour));
                if state == state::NOARP || state == state::NONE {
                    return 0;
                }
                flags |= flag::FIRST;
                let mac = fields::NEIGH_HA::read(neighbour).to_ne_bytes();
                Neighbour { state, mac, ..Neighbour::default() }
            }
        };
        let _ = NEIGHBOURS.remove(&key);
        if filter::ONLY_BAD.load() == 0 || old.state == state::FAILED {
            let change = Change {
                cause: cause::REMOVED,
                flags,
                old: &old,
                state: state::NONE,
                mac: 0,
                probes: 0,
                update: None,
                count: 0,
            };
            tell(neighbour, &key, family, &change);
        }
    }
    0
}

/// Runs once per new entry: one compare. A table that is full hands over a null entry, for each packet
/// to a new address until there is room. A raw tracepoint, because tp_btf declares that argument never
/// null and newer verifiers drop the compare.
#[raw_tracepoint(tracepoint = "neigh_create")]
pub fn neigh_created(ctx: RawTracePointContext) -> i32 {
    let made: *const u8 = ctx.arg(3);
    if made.is_null() {
        let _ = overflow(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    }
    0
}

#[inline(always)]
fn overflow(table: *const u8, device: *const u8, address: *const u8) -> Option<()> {
    // SAFETY: kernel structures, read by a helper that cannot fault.
    unsafe {
        let family = bpf_probe_read_kernel(fields::NEIGH_TABLE_FAMILY::address(table)).ok()? as u16;
        let v4 = family == AF_INET;
        let wanted = if v4 { filter::V4.load() != 0 } else { family == AF_INET6 && filter::V6.load() != 0 };
        if !wanted {
            return None;
        }
        let count = repeated(if v4 { OVERFLOW_V4 } else { OVERFLOW_V6 })?;
        emit::<NeighRecord>(ProbeId::Neigh, |record| {
            (&raw mut (*record).header).write(header::<NeighRecord>(Kind::NeighChange));
            (&raw mut (*record).owner).write(Owner::default());
            if v4 {
                (&raw mut (*record).address).write(mapped(bpf_probe_read_kernel(address.cast()).ok()?));
            } else {
                (&raw mut (*record).address).write(bpf_probe_read_kernel(address.cast()).ok()?);
            }
            read_name(device, &raw mut (*record).device)?;
            let net = bpf_probe_read_kernel(fields::DEV_NET::address(device)).ok()?;
            (&raw mut (*record).old_mac).write([0; 8]);
            (&raw mut (*record).new_mac).write([0; 8]);
            (&raw mut (*record).state_since_ns).write(0);
            (&raw mut (*record).mac_since_ns).write(0);
            (&raw mut (*record).netns).write(bpf_probe_read_kernel(fields::NET_INUM::address(net)).ok()?);
            (&raw mut (*record).ifindex)
                .write(bpf_probe_read_kernel(fields::DEV_IFINDEX::address(device)).ok()?);
            (&raw mut (*record).cause).write(cause::OVERFLOW);
            (&raw mut (*record).flags).write(0);
            (&raw mut (*record).old_state).write(state::NONE);
            (&raw mut (*record).new_state).write(state::NONE);
            (&raw mut (*record).probes).write(0);
            (&raw mut (*record).update_flags).write(0);
            (&raw mut (*record).netlink_pid).write(0);
            (&raw mut (*record).entry_flags).write(0);
            (&raw mut (*record).entries)
                .write(bpf_probe_read_kernel(fields::NEIGH_TABLE_ENTRIES::address(table)).ok()?);
            (&raw mut (*record).gc_entries)
                .write(bpf_probe_read_kernel(fields::NEIGH_TABLE_GC_ENTRIES::address(table)).ok()?);
            (&raw mut (*record).gc_thresh3)
                .write(bpf_probe_read_kernel(fields::NEIGH_TABLE_GC_THRESH3::address(table)).ok()?);
            (&raw mut (*record).count).write(count);
            (&raw mut (*record).family).write(family);
            let mac_len = bpf_probe_read_kernel(fields::DEV_ADDR_LEN::address(device)).ok()?;
            (&raw mut (*record).mac_len).write(u16::from(mac_len));
            (&raw mut (*record).pad).write(0);
            Some(())
        });
    }
    Some(())
}

/// A SYN arrived: is its Ethernet source where a reply would go? Called by the ingress program, once a
/// connection: five loads and one map look. Not inlined, for the stack.
///
/// Only an address in the neighbour table of the very device it came in on is compared: behind a router
/// the peer's own address is not there. A socket below a VRF sees the VRF's device and is not compared.
#[inline(never)]
pub fn syn_came(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    syn_came_inlined(skb, packet);
    opaque(0)
}

#[inline(always)]
fn syn_came_inlined(skb: *mut __sk_buff, packet: &Packet) {
    let ctx = SkBuffContext::new(skb.cast());
    let Some(netns) = netns_of(&ctx) else { return };
    // SAFETY: a context load.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let address = if packet.v4 { ctx.load::<u32>(12).map(mapped) } else { ctx.load::<[u8; 16]>(8) };
    let Ok(address) = address else { return };
    let key = NeighKey { netns, ifindex, address };
    let Some(known) = NEIGHBOURS.get_ptr_mut(&key) else { return };
    let mut seen = [0u8; 8];
    // SAFETY: six bytes into eight, by a helper that checks that the frame has them.
    let read = unsafe {
        bpf_skb_load_bytes_relative(skb.cast(), ETH_SOURCE, (&raw mut seen).cast(), ETH_ALEN, HDR_START_MAC)
    };
    // SAFETY: a live map value; races between CPUs cost a record too many.
    unsafe {
        let cached = (*known).mac;
        if read != 0 || seen == cached || seen == [0; 8] || cached == [0; 8] {
            return;
        }
        let state = (*known).state;
        if state & (state::NOARP | state::INCOMPLETE | state::FAILED) != 0
            || !filter::peer(&key.address, !packet.v4, packet.local)
        {
            return;
        }
        (*known).others += 1;
        let at = now();
        let told = (*known).other_told_ns;
        if told != 0 && at.wrapping_sub(told) < SECOND && (*known).other_mac == seen {
            return;
        }
        let count = (*known).others as u32;
        (*known).other_mac = seen;
        (*known).other_told_ns = at;
        (*known).others = 0;
        emit::<MacRecord>(ProbeId::Neigh, |record| {
            (&raw mut (*record).header).write(header::<MacRecord>(Kind::NeighMismatch));
            packet.write_tuple(&ctx, &raw mut (*record).tuple)?;
            (&raw mut (*record).cached_mac).write(cached);
            (&raw mut (*record).seen_mac).write(seen);
            (&raw mut (*record).state_since_ns).write((*known).state_since_ns);
            (&raw mut (*record).mac_since_ns).write((*known).mac_since_ns);
            (&raw mut (*record).netns).write(key.netns);
            (&raw mut (*record).ifindex).write(key.ifindex);
            (&raw mut (*record).state).write(state);
            (&raw mut (*record).count).write(count);
            Some(())
        });
    }
}
