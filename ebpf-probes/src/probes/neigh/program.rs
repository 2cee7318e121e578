//! The programs behind `neigh`: each looks at one entry and tells it when it differs from what was
//! last told. None of them runs per packet, except `neigh_sent` for packets that wait for an
//! unresolved entry.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as read_kernel},
    macros::{btf_tracepoint, map},
    maps::{Array, LruHashMap},
    programs::BtfTracePointContext,
};

use super::{NeighKey, NeighRecord, Neighbour, cause, flag, kin, state, update::Update, waiters};
use crate::{
    abi::{AF_INET, AF_INET6, Kind, Owner, ProbeId, Stat},
    fields, filter,
    kernel::{any, atomic_add, count, emit, header, mapped, netns, not, now, opaque, same},
    metrics::{NeighEvent, counter, program as metrics},
};

/// Every neighbour as last told. The agent adds those that existed before it. Least recently used
/// entries give way: a neighbour that comes back is told as seen for the first time.
#[map]
pub static NEIGHBOURS: LruHashMap<NeighKey, Neighbour> = LruHashMap::with_max_entries(1 << 14, 0);

/// An empty one, to begin from: the stack is short. Never written.
#[map]
static NO_NEIGHBOUR: Array<Neighbour> = Array::with_max_entries(1, 0);

/// What may happen for every packet, and is told at most once a second.
#[map]
static REPEATS: Array<Repeat> = Array::with_max_entries(4, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Repeat {
    told_ns: u64,
    count: u64,
}

pub(super) const OVERFLOW_V4: u32 = 0;
pub(super) const OVERFLOW_V6: u32 = 1;
const DEAD: u32 = 2;
pub(super) const SECOND: u64 = 1_000_000_000;

/// Counts one more, and says how many there were since the last telling when it is time to tell.
#[inline(always)]
pub(super) fn repeated(what: u32) -> Option<u32> {
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
pub(super) unsafe fn key_of(neighbour: *const u8) -> Option<(NeighKey, u16)> {
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
        let ifindex = fields::DEV_IFINDEX::read(device);
        Some((NeighKey { netns: netns(net), ifindex, pad: 0, address }, family))
    }
}

/// What was last told of an entry, as far as it is compared.
#[derive(Default)]
struct Old {
    mac: u64,
    state_since_ns: u64,
    mac_since_ns: u64,
    state: u32,
    probes: u32,
    told_bad: u32,
    unanswered: u32,
}

impl Old {
    #[inline(always)]
    fn of(known: &Neighbour) -> Self {
        Self {
            mac: u64::from_ne_bytes(known.mac),
            state_since_ns: known.state_since_ns,
            mac_since_ns: known.mac_since_ns,
            state: known.state,
            probes: known.probes,
            told_bad: known.told_bad,
            unanswered: known.unanswered,
        }
    }
}

/// What a record says beside the entry itself.
struct Change<'a> {
    cause: u32,
    flags: u32,
    old: &'a Old,
    state: u32,
    mac: u64,
    probes: u32,
    update: Option<*const Update>,
    count: u32,
}

/// Conditions are numbers here, 0 or 1, and joined by `&` and `|`: of each that is a branch the verifier walks both
/// ways, and all that follows with each.
impl Change<'_> {
    #[inline(always)]
    fn has(&self, flag: u32) -> u64 {
        not(same(u64::from(self.flags & flag), 0))
    }

    #[inline(always)]
    fn is(&self, state: u32) -> u64 {
        same(self.state.into(), state.into())
    }

    /// Nobody answers. (Whoever removes an entry by hand sets it FAILED first.)
    #[inline(always)]
    fn silent(&self) -> u64 {
        let asked_in_vain = self.is(state::INCOMPLETE) & same(self.cause.into(), cause::TIMER.into());
        (self.is(state::FAILED) & not(self.has(flag::BY_HAND)))
            | asked_in_vain
            | self.has(flag::FAILED_BETWEEN)
    }

    /// Whoever set it for good takes it away: what is sent there next finds nobody.
    #[inline(always)]
    fn withdrawn(&self) -> u64 {
        let permanent = not(same(u64::from(self.old.state & state::PERMANENT), 0));
        self.is(state::FAILED) & self.has(flag::BY_HAND) & permanent
    }

    /// It has another MAC than the one it had.
    #[inline(always)]
    fn moved(&self) -> u64 {
        not(same(self.old.mac, 0)) & not(same(self.mac, 0)) & not(same(self.old.mac, self.mac))
    }

    /// Nobody answers, somebody else does, or what was bad has changed.
    #[inline(always)]
    fn grave(&self) -> u64 {
        let before = not(same(self.old.told_bad.into(), 0)) | not(same(self.old.unanswered.into(), 0));
        self.silent() | self.withdrawn() | self.moved() | before
    }
}

/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`.
#[inline(always)]
unsafe fn tell(neighbour: *const u8, key: &NeighKey, family: u16, change: &Change<'_>) {
    if filter::quiet() && change.grave() == 0 {
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
            (&raw mut (*record).old_mac).write(change.old.mac.to_ne_bytes());
            (&raw mut (*record).new_mac).write(change.mac.to_ne_bytes());
            (&raw mut (*record).state_since_ns).write(change.old.state_since_ns);
            (&raw mut (*record).mac_since_ns).write(change.old.mac_since_ns);
            (&raw mut (*record).netns).write(key.netns.inode);
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
            (&raw mut (*record).generation).write(key.netns.generation);
        }
        Some(())
    });
}

/// # Safety
/// `to` must be a reservation.
#[inline(always)]
pub(super) unsafe fn read_name(device: *const u8, to: *mut [u8; 16]) -> Option<()> {
    // SAFETY: 16 bytes into the reservation, by a helper that cannot fault.
    unsafe { (read_kernel(to.cast(), 16, fields::DEV_NAME::address(device).cast()) == 0).then_some(()) }
}

/// Counts it.
#[inline(always)]
pub(super) fn happened(event: NeighEvent, family: u16) {
    // AF_INET is 2, AF_INET6 10: no branch.
    metrics::add(counter::neigh(event, false) + (u32::from(family) >> 3 & 1));
}

/// Compares the entry with what was last told of it, and tells the difference.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`, `update` a live map value.
#[inline(always)]
pub(super) unsafe fn look(neighbour: *const u8, cause: u32, update: Option<*const Update>) {
    // SAFETY: as promised by the caller; map values are live, and a race between two CPUs that look at
    // the same entry costs a change told twice.
    unsafe {
        let state = u32::from(fields::NEIGH_STATE::read(neighbour));
        let Some((key, family)) = key_of(neighbour) else { return };
        let known = NEIGHBOURS.get_ptr_mut(&key);
        let mut old = match known {
            Some(known) => Old::of(&*known),
            None => Old::default(),
        };
        let mac = fields::NEIGH_HA::read(neighbour);
        let probes = fields::NEIGH_PROBES::read(neighbour);
        let mut flags = 0;
        if known.is_none() {
            flags |= flag::FIRST;
            if let Some(update) = update {
                old.state = (*update).state;
                old.mac = (*update).mac;
            }
            if state == state::NOARP && (old.state == state::NONE || old.state == state::NOARP) {
                return;
            }
        }
        // Or the verifier walks what follows anew for each of the many things that may have come together here.
        let at = now();
        old.state = any(old.state.into(), at) as u32;
        old.probes = any(old.probes.into(), at) as u32;
        old.told_bad = any(old.told_bad.into(), at) as u32;
        old.unanswered = any(old.unanswered.into(), at) as u32;
        old.mac = any(old.mac, at);
        let old_mac = old.mac;
        let was = |state: u32| same(old.state.into(), state.into());
        let is = |this: u32| same(state.into(), this.into());
        let mac_changed = not(same(mac, old_mac));
        let probed = (is(state::INCOMPLETE) | is(state::PROBE)) & not(same(probes.into(), old.probes.into()));
        if was(state) & not(mac_changed) & not(probed) != 0 {
            return;
        }
        // An entry is only asked for from scratch after it failed, and its count of probes starts again.
        let anew = opaque(u64::from(probes).wrapping_sub(old.probes.into())) >> 63;
        let between = is(state::INCOMPLETE) & (was(state::PROBE) | (was(state::INCOMPLETE) & anew));
        let by_hand = match update {
            Some(update) => not(same((*update).by_hand.into(), 0)),
            None => 0,
        };
        let changed_places = mac_changed & not(same(mac, 0)) & not(same(old_mac, 0));
        let together = if changed_places != 0 { kin::related(&key, mac, old_mac) } else { 0 };
        let flags = u64::from(flags)
            | (between * u64::from(flag::FAILED_BETWEEN))
            | (any(by_hand, at) * u64::from(flag::BY_HAND))
            | (any(together, at) * u64::from(flag::TOGETHER));
        let flags = any(flags, at) as u32;
        let change = Change { cause, flags, old: &old, state, mac, probes, update, count: 0 };
        let by_hand = change.has(flag::BY_HAND);
        let asked = not(same(u64::from(old.state & (state::INCOMPLETE | state::PROBE)), 0));
        let answers = state::REACHABLE | state::STALE | state::DELAY | state::PERMANENT;
        if asked & not(same(u64::from(state & answers), 0)) & not(by_hand) != 0 {
            happened(NeighEvent::Resolved, family);
        }
        if change.has(flag::FIRST) & was(state::NONE) != 0 {
            happened(NeighEvent::Created, family);
        }
        if (is(state::FAILED) & not(was(state::FAILED)) & not(by_hand)) | between != 0 {
            happened(NeighEvent::Failed, family);
        }
        if changed_places != 0 {
            happened(NeighEvent::MacChanged, family);
        }
        // What is still asked for has not recovered.
        let bad_now = change.silent() | (is(state::INCOMPLETE) & not(same(old.told_bad.into(), 0)));
        let bad = is(state::FAILED)
            | was(state::FAILED)
            | between
            | (mac_changed & not(same(old_mac, 0)))
            | change.grave();
        if filter::ONLY_BAD.load() == 0 || bad != 0 {
            tell(neighbour, &key, family, &change);
        }
        let bad_now = any(bad_now, at) as u32;
        match known {
            Some(known) => {
                if mac_changed != 0 {
                    (*known).mac = mac.to_ne_bytes();
                    (*known).mac_since_ns = at;
                    (*known).other_mac = [0; 8];
                    (*known).answered_ns = 0;
                    (*known).unanswered = 0;
                }
                (*known).told_bad = bad_now;
                if was(state) == 0 {
                    (*known).state = state;
                    (*known).state_since_ns = at;
                }
                (*known).probes = probes;
            }
            None => {
                let Some(new) = NO_NEIGHBOUR.get_ptr(0) else { return };
                let _ = NEIGHBOURS.insert(&key, &*new, 0);
                let Some(known) = NEIGHBOURS.get_ptr_mut(&key) else { return };
                (*known).mac = mac.to_ne_bytes();
                (*known).state = state;
                (*known).probes = probes;
                (*known).state_since_ns = at;
                (*known).mac_since_ns = mac_changed * at;
                (*known).told_bad = bad_now;
            }
        }
    }
}

/// Runs when an entry's timer fires: once a second while it is asked for, every half minute or so
/// while it is in use. The only hook that sees FAILED, and the unanswered probes before it.
#[btf_tracepoint(function = "neigh_timer_handler")]
pub fn neigh_timer(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument.
    unsafe {
        look(neighbour, cause::TIMER, None);
        if u32::from(fields::NEIGH_STATE::read(neighbour)) == state::INCOMPLETE
            && let Some((key, family)) = key_of(neighbour)
        {
            waiters::tell(neighbour, &key, family == AF_INET);
        }
    }
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
        let old = Old { state, mac, ..Old::default() };
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
            Some(known) => Old::of(&*known),
            None => {
                let state = u32::from(fields::NEIGH_STATE::read(neighbour));
                if state == state::NOARP || state == state::NONE {
                    return 0;
                }
                flags |= flag::FIRST;
                Old { state, mac: fields::NEIGH_HA::read(neighbour), ..Old::default() }
            }
        };
        let _ = NEIGHBOURS.remove(&key);
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
        if filter::ONLY_BAD.load() == 0 || old.state == state::FAILED || change.grave() != 0 {
            tell(neighbour, &key, family, &change);
        }
    }
    0
}
