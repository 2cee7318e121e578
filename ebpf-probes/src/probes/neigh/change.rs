//! What changed about an entry since it was last reported, and whether that is worth reporting.

use super::{
    NeighKey, NeighRecord, Neighbour, cause, flag, macs, state,
    table::{NEIGHBOURS, NO_NEIGHBOUR, happened, key_of, read_name},
};
use crate::{
    abi::{Kind, Owner, ProbeId},
    bpf::{
        filter,
        ring::{emit, header},
        time::now,
        verifier::{any, not, opaque, same},
    },
    fields,
    metrics::NeighEvent,
};

/// An update between its beginning and its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Update {
    pub(super) owner: Owner,
    pub(super) mac: u64,
    /// What the packet or the request says; 0 when it says none, or one of another length than Ethernet's.
    pub(super) claimed: u64,
    pub(super) state: u32,
    pub(super) flags: u32,
    pub(super) netlink_pid: u32,
    pub(super) by_hand: u32,
}

/// What was last reported of an entry, as far as it is compared.
#[derive(Default)]
pub(super) struct Old {
    pub(super) mac: u64,
    pub(super) state_since_ns: u64,
    pub(super) mac_since_ns: u64,
    pub(super) state: u32,
    pub(super) probes: u32,
    pub(super) reported_bad: u32,
    pub(super) unanswered: u32,
}

impl Old {
    #[inline(always)]
    pub(super) fn of(known: &Neighbour) -> Self {
        Self {
            mac: u64::from_ne_bytes(known.mac),
            state_since_ns: known.state_since_ns,
            mac_since_ns: known.mac_since_ns,
            state: known.state,
            probes: known.probes,
            reported_bad: known.reported_bad,
            unanswered: known.unanswered,
        }
    }
}

/// What a record says beside the entry itself.
pub(super) struct Change<'a> {
    pub(super) cause: u32,
    pub(super) flags: u32,
    pub(super) old: &'a Old,
    pub(super) state: u32,
    pub(super) mac: u64,
    pub(super) probes: u32,
    pub(super) update: Option<*const Update>,
    pub(super) count: u32,
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

    /// No answer comes. (What removes an entry by hand sets it FAILED first.)
    #[inline(always)]
    fn silent(&self) -> u64 {
        let unanswered = self.is(state::INCOMPLETE) & same(self.cause.into(), cause::TIMER.into());
        (self.is(state::FAILED) & not(self.has(flag::BY_HAND))) | unanswered | self.has(flag::FAILED_BETWEEN)
    }

    /// What set it for good takes it away: what is sent there next finds no entry.
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

    /// No answer comes, another machine answers, or what was bad has changed.
    #[inline(always)]
    pub(super) fn severe(&self) -> u64 {
        let before = not(same(self.old.reported_bad.into(), 0)) | not(same(self.old.unanswered.into(), 0));
        self.silent() | self.withdrawn() | self.moved() | before
    }
}

/// Reports a change, unless only the unhealthy is reported and this one is healthy.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`.
#[inline(always)]
pub(super) unsafe fn report(neighbour: *const u8, key: &NeighKey, family: u16, change: &Change<'_>) {
    if filter::quiet() && change.severe() == 0 {
        return;
    }
    emit::<NeighRecord>(ProbeId::NEIGH, |record| {
        // SAFETY: a fresh reservation of the record's size, of which every byte is written; the entry's
        // fields by checked loads, the device's name by a helper that cannot fault.
        unsafe {
            let device = fields::NEIGH_DEV::read(neighbour);
            (&raw mut (*record).header).write(header::<NeighRecord>(Kind::NEIGH_CHANGE));
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

/// Compares the entry with what was last reported of it, and reports the difference.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`, `update` a live map value.
#[inline(always)]
pub(super) unsafe fn look(neighbour: *const u8, cause: u32, update: Option<*const Update>) {
    // SAFETY: as promised by the caller; map values are live, and a race between two CPUs that look at
    // the same entry costs a change reported twice.
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
            let by_hand = update.is_some_and(|update| (*update).by_hand != 0);
            if state == state::NOARP && !by_hand && (old.state == state::NONE || old.state == state::NOARP) {
                return;
            }
        }
        // Or the verifier walks what follows again for each of the many things that may have come together here.
        let at = now();
        old.state = any(old.state.into(), at) as u32;
        old.probes = any(old.probes.into(), at) as u32;
        old.reported_bad = any(old.reported_bad.into(), at) as u32;
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
        let restarted = opaque(u64::from(probes).wrapping_sub(old.probes.into())) >> 63;
        let between = is(state::INCOMPLETE) & (was(state::PROBE) | (was(state::INCOMPLETE) & restarted));
        let by_hand = match update {
            Some(update) => not(same((*update).by_hand.into(), 0)),
            None => 0,
        };
        let changed_places = mac_changed & not(same(mac, 0)) & not(same(old_mac, 0));
        let together = if changed_places != 0 { macs::related(&key, mac, old_mac) } else { 0 };
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
        let bad_now = change.silent() | (is(state::INCOMPLETE) & not(same(old.reported_bad.into(), 0)));
        let bad = is(state::FAILED)
            | was(state::FAILED)
            | between
            | (mac_changed & not(same(old_mac, 0)))
            | change.severe();
        if filter::ONLY_BAD.load() == 0 || bad != 0 {
            report(neighbour, &key, family, &change);
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
                (*known).reported_bad = bad_now;
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
                (*known).reported_bad = bad_now;
            }
        }
    }
}
