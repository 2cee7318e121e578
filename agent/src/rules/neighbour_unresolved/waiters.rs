//! Whose packets wait for a neighbour that does not answer, and what becomes of them.

use ebpf_probes::probes::{connect::Connect, neigh::WaiterRecord};

use super::{Key, NeighbourUnresolved, RECORD_NS, Unanswered, WAITERS, Waiter};
use crate::pipeline::View;

/// The kernel reports to those who wait in the moment in which it gives a neighbour up.
const AT_ONCE_NS: u64 = 50_000_000;

impl NeighbourUnresolved {
    pub(super) fn waits(&mut self, record: &WaiterRecord, at_ns: u64, view: &mut View<'_>) {
        // The kernel's own answers to others are no process waiting.
        if record.cookie == 0 && record.forwarded == 0 {
            return;
        }
        let key = (record.netns(), record.ifindex, record.address);
        if self.asked.get(&key).is_none() {
            self.asked.insert(key, Unanswered { since_ns: at_ns, ..Unanswered::default() });
        }
        let Some(silent) = self.asked.get_mut(&key) else { return };
        silent.last_ns = at_ns;
        let same = |known: &Waiter| {
            known.record.cookie == record.cookie && (record.cookie != 0 || known.record.tuple == record.tuple)
        };
        if silent.waiters.iter().any(same) {
            return;
        }
        if silent.waiters.len() >= WAITERS {
            silent.left_out = silent.left_out.saturating_add(1);
            return;
        }
        let owner = view.world.forwarded_connect(&record.tuple).map(|op| op.connect.owner);
        let ended = self.given_up.get(&record.cookie).copied();
        silent.waiters.push(Waiter { record: *record, owner, at_ns, ended });
        if silent.id.is_some() && silent.waiters.len().is_power_of_two() {
            self.update(key, view);
        }
    }

    /// A connect was reported that its host is unreachable.
    pub(super) fn unreachable(&mut self, connect: &Connect, at_ns: u64, view: &mut View<'_>) {
        let (netns, remote) = (connect.owner.netns, connect.tuple.remote);
        let waiting = |(key, silent): &(&Key, &Unanswered)| {
            (key.0 == netns && key.2 == remote)
                || silent.waiters.iter().any(|waiter| waiter.record.cookie == connect.cookie)
        };
        // What waits for a gateway from before the start is notified as the kernel gives it up.
        let at_once = |silent: &Unanswered| {
            silent.failed_ns.is_some_and(|failed_ns| at_ns.saturating_sub(failed_ns) <= AT_ONCE_NS)
        };
        let by_gateway = |(key, silent): &(&Key, &Unanswered)| {
            let address = crate::records::address(key.2);
            key.0 == netns && at_once(silent) && view.world.gateway(netns, &silent.device, address).is_some()
        };
        let found = self.asked.iter().find(waiting).or_else(|| self.asked.iter().find(by_gateway));
        let Some(key) = found.map(|(key, _)| *key) else { return };
        let Some(silent) = self.asked.get_mut(&key) else { return };
        let room = silent.waiters.len() < WAITERS;
        match silent.waiters.iter_mut().find(|waiter| waiter.record.cookie == connect.cookie) {
            Some(waiter) => waiter.ended = Some((*connect, at_ns)),
            None if room => {
                let record = WaiterRecord {
                    address: key.2,
                    tuple: connect.tuple,
                    owner: connect.owner,
                    cookie: connect.cookie,
                    netns: key.0.inode,
                    generation: key.0.generation,
                    ifindex: key.1,
                    ..WaiterRecord::default()
                };
                silent.waiters.push(Waiter { record, owner: None, at_ns, ended: Some((*connect, at_ns)) });
            }
            None => silent.left_out = silent.left_out.saturating_add(1),
        }
        match (&silent.id, silent.failed_ns) {
            (Some(_), _) => self.update(key, view),
            (None, Some(_)) => self.soon(key, view),
            // The kernel has given up: its own record of that comes a moment later, or is lost.
            (None, None) => drop(silent.unreachable_ns.get_or_insert(at_ns)),
        }
    }

    /// Entries that have failed, of which no record says so.
    pub(super) fn lost(&mut self, view: &mut View<'_>) {
        let has_failed = |silent: &Unanswered| {
            silent.failed_ns.is_none()
                && silent.unreachable_ns.is_some_and(|at| view.now_ns.saturating_sub(at) >= RECORD_NS)
        };
        let lost: Vec<(Key, u64)> = self
            .asked
            .iter()
            .filter(|(_, silent)| silent.id.is_none() && has_failed(silent))
            .filter_map(|(key, silent)| Some((*key, silent.unreachable_ns?)))
            .collect();
        for (key, at_ns) in lost {
            self.failed(key, at_ns, view);
        }
    }

    /// The process of a connect has closed its socket before any answer.
    pub(super) fn gives_up(&mut self, connect: &Connect, at_ns: u64) {
        self.given_up.insert(connect.cookie, (*connect, at_ns));
        for silent in self.asked.iter_mut().map(|(_, silent)| silent) {
            let its = silent.waiters.iter_mut().find(|waiter| waiter.record.cookie == connect.cookie);
            if let Some(waiter) = its {
                waiter.ended.get_or_insert((*connect, at_ns));
            }
        }
    }
}
