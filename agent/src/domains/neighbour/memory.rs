//! What records of a neighbour do not say alone: how many questions went unanswered, whose packets have been
//! seen to wait, and whether a failure by hand is the first half of a removal.

use std::collections::VecDeque;

use ebpf_probes::{
    abi::{Netns, Owner, Tuple},
    probes::neigh::{NeighKey, NeighRecord, WaiterRecord, cause, flag, state},
};

use super::{
    Biography, Hop, NeighbourChanged,
    silence::{Forwarded, SilentNeighbour},
    ways::Ends,
};
use crate::known::{
    bounded::{Bounded, Table},
    context::Gateway,
};

/// Neighbours being asked for, remembered at most.
const ASKED: usize = 1024;
/// Waiters reported of one of them at most.
const WAITERS: usize = 64;
/// Failures by hand held back at most, and for how long: a removal follows at once, in the same system call.
const HELD: usize = 64;
const HELD_NS: u64 = 50_000_000;

/// Silent neighbours remembered at most.
const SILENT: usize = 256;
const GATEWAYS: usize = 4096;
/// Connects known to wait for a neighbour, at most.
const HELD_UP: usize = 4096;
/// Destinations of forwarded packets that wait for a neighbour, at most.
const FORWARDED: usize = 1024;

/// Remote ends whose next hop is remembered, at most.
const HOPS: usize = 4096;
/// Connections remembered whose other end goes unheard, at most.
const UNHEARD_ENDS: usize = 1024;
/// Entries whose last change is remembered, at most.
const BIOGRAPHIES: usize = 1024;

/// What is remembered of neighbours.
pub struct Memory {
    asked: Bounded<NeighKey, Asked>,
    held: VecDeque<Delayed>,
    pub(super) silent: Bounded<(Netns, [u8; 16]), SilentNeighbour>,
    /// Next hops of default routes, by namespace.
    pub(super) gateways: Bounded<Netns, Vec<Gateway>>,
    /// Connects that wait for a neighbour, by cookie.
    pub(super) held_up: Bounded<u64, Hop>,
    /// The next hops of remote ends, by namespace and address, and when that was seen.
    pub(super) hops: Bounded<(Netns, [u8; 16]), (Hop, u64)>,
    /// By which neighbour what goes unheard goes.
    pub(super) unheard_ends: Bounded<Ends, Hop>,
    /// Forwarded packets that wait for a neighbour, by destination.
    pub(super) forwarded: Bounded<([u8; 16], u16), Forwarded>,
    /// What became of entries.
    pub(super) biographies: Bounded<Hop, Biography>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            asked: Bounded::new(ASKED),
            held: VecDeque::new(),
            silent: Bounded::new(SILENT),
            gateways: Bounded::new(GATEWAYS),
            held_up: Bounded::new(HELD_UP),
            hops: Bounded::new(HOPS),
            unheard_ends: Bounded::new(UNHEARD_ENDS),
            forwarded: Bounded::new(FORWARDED),
            biographies: Bounded::new(BIOGRAPHIES),
        }
    }
}

/// A neighbour that is asked for, or confirmed.
#[derive(Default)]
struct Asked {
    /// The kernel's count of probes when the first question had been sent; `None` when that was not seen.
    first: Option<u32>,
    last: u32,
    /// By cookie, or by both ends when there is none.
    waiters: Vec<(u64, Tuple)>,
}

/// `ip neigh del` sets an entry FAILED, then removes it: one change, emitted once, with its author.
pub(super) struct Delayed {
    pub(super) boot_ns: u64,
    pub(super) key: NeighKey,
    pub(super) owner: Owner,
    pub(super) change: NeighbourChanged,
}

impl Memory {
    pub(super) fn all_tables(&self) -> Vec<Table> {
        vec![
            self.silent.table("silent_neighbours"),
            self.gateways.table("gateways"),
            self.held_up.table("connects_held_up"),
            self.hops.table("next_hops"),
            self.unheard_ends.table("unheard_connections"),
            self.forwarded.table("forwarded_waiting"),
            self.asked.table("neighbours_asked"),
            self.biographies.table("neighbour_biographies"),
        ]
    }

    /// Counts the questions of a resolution; says how many went unanswered when it failed.
    pub(super) fn count(&mut self, key: NeighKey, record: &NeighRecord) -> Option<u32> {
        if record.cause == cause::DEAD {
            return None;
        }
        let failed_between = record.flags & flag::FAILED_BETWEEN != 0;
        let mut unanswered = None;
        if failed_between || record.new_state == state::FAILED {
            unanswered = self.asked.remove(&key).and_then(|asked| {
                let last = if failed_between { asked.last } else { asked.last.max(record.probes) };
                last.checked_sub(asked.first?).map(|more| more.saturating_add(1))
            });
        }
        match record.new_state {
            state::INCOMPLETE | state::PROBE => {
                if record.new_state != record.old_state {
                    self.asked.remove(&key);
                }
                let begins = record.new_state != record.old_state || failed_between;
                let known = self.asked.get(&key).is_some();
                if !known {
                    // Confirming counts from one; asking from a setting, which the first question shows.
                    let first = match record.new_state {
                        state::PROBE => Some(1),
                        _ => (begins && record.cause == cause::SENT).then_some(record.probes),
                    };
                    self.asked.insert(key, Asked { first, ..Asked::default() });
                }
                if let Some(asked) = self.asked.get_mut(&key) {
                    asked.last = record.probes;
                }
            }
            _ => drop(self.asked.remove(&key)),
        }
        unanswered
    }

    /// Whether this waiter has not been reported since the neighbour is asked for.
    pub(super) fn is_news(&mut self, key: NeighKey, record: &WaiterRecord) -> bool {
        if self.asked.get(&key).is_none() {
            self.asked.insert(key, Asked::default());
        }
        let waiter = if record.cookie == 0 { (0, record.tuple) } else { (record.cookie, Tuple::default()) };
        self.asked.get_mut(&key).is_some_and(|asked| {
            let news = asked.waiters.len() < WAITERS && !asked.waiters.contains(&waiter);
            if news {
                asked.waiters.push(waiter);
            }
            news
        })
    }

    /// Holds a change back until it is known whether a removal follows.
    pub(super) fn hold(&mut self, held: Delayed) {
        self.held.push_back(held);
    }

    /// Takes out what was held of this neighbour.
    pub(super) fn release(&mut self, key: &NeighKey) -> Option<Delayed> {
        let at = self.held.iter().position(|held| held.key == *key)?;
        self.held.remove(at)
    }

    /// Takes out what was held long enough.
    pub(super) fn overdue(&mut self, now_ns: u64) -> Option<Delayed> {
        let oldest = self.held.front()?;
        let due = self.held.len() > HELD || now_ns.saturating_sub(oldest.boot_ns) > HELD_NS;
        if due { self.held.pop_front() } else { None }
    }
}
