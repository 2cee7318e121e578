//! `neighbour_unresolved`: a process waits for a neighbour that answers no ARP or NDP question. A neighbour
//! that nothing waits for, or one that answers after all, is none. An entry that an agent keeps (a CNI's, a
//! tunnel's) and took away is said to be missing, not silent. What else fails because of it points here;
//! what to say is [`say`]'s.

mod say;
#[cfg(test)]
mod tests;
mod unanswered;
mod waiters;

use ebpf_probes::{
    abi::Owner,
    probes::{
        connect::Connect,
        neigh::{NeighRecord, WaiterRecord, cause, flag, state},
    },
};

use super::neighbours::Key;
use crate::{
    domains::{
        Event, Record,
        connect::{self, ConnectStep, Outcome, outcome},
        neighbour,
    },
    known::{
        bounded::{Bounded, Table},
        context::{Answered, Holders, Network, Stacked},
        request::Sought,
    },
    pipeline::{Diagnose, Request, Rule, View, incident::Kind},
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourUnresolved,
    about: "a neighbour (ARP, NDP) does not answer and a process waits for it: who, for how long, what failed with it",
    opens: "a neighbour that a process waits for goes FAILED, or is asked for 3.5 s without an answer",
    make: || Box::new(NeighbourUnresolved::default()),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 1024;
/// Waiters remembered of each at most.
const WAITERS: usize = 16;
/// A neighbour that is asked for this long has as good as failed (the kernel gives up after three seconds
/// unless it is configured otherwise).
const ASKED_NS: u64 = 3_500_000_000;
/// A situation in which no question was seen for this long is over.
const QUIET_NS: u64 = 60_000_000_000;
/// A network is looked at at most this often.
const LOOK_EVERY_NS: u64 = 1_000_000_000;
/// As many neighbours behind one device have an incident of their own; more are counted with the first.
const OWN: usize = 4;
/// For this long the want of an entry is put down to the process that removed it.
const WITHDRAWN_NS: u64 = 60_000_000_000;
/// `EHOSTUNREACH`.
const HOST_UNREACHABLE: i32 = 113;
/// The record of a failure follows what it does to a connect within this long, unless it is lost.
const RECORD_NS: u64 = 500_000_000;
/// A connect that its process closes sooner than this has hardly waited.
const PATIENCE_NS: u64 = 1_000_000_000;
/// So many attempts that are given up sooner are a program with a short timeout, and its trouble is real.
const ATTEMPTS: usize = 3;

struct NeighbourUnresolved {
    asked: Bounded<Key, Unanswered>,
    /// Those whose incident is due as soon as their network has been looked at.
    due: Vec<Key>,
    /// When each namespace was looked at last.
    looked_ns: Bounded<ebpf_probes::abi::Netns, u64>,
    /// Entries that were taken away by hand.
    withdrawn: Bounded<Key, Withdrawn>,
    /// Connects whose process closed the socket before an answer, by cookie, and when: their SYN goes on waiting.
    given_up: Bounded<u64, (Connect, u64)>,
}

/// An entry that was taken away by hand.
#[derive(Debug, Clone, Copy)]
struct Withdrawn {
    owner: Owner,
    at_ns: u64,
    /// It had been set for good: no question was ever sent.
    permanent: bool,
}

impl Default for NeighbourUnresolved {
    fn default() -> Self {
        Self {
            asked: Bounded::new(NEIGHBOURS),
            due: Vec::new(),
            looked_ns: Bounded::new(NEIGHBOURS),
            withdrawn: Bounded::new(NEIGHBOURS),
            given_up: Bounded::new(NEIGHBOURS),
        }
    }
}

/// A neighbour that is asked for.
#[derive(Default)]
struct Unanswered {
    device: String,
    /// Since when, CLOCK_BOOTTIME in nanoseconds.
    since_ns: u64,
    /// When it was asked for last, as far as is known.
    last_ns: u64,
    /// Questions that went unanswered: timer ticks reported, and the first of each round.
    unanswered: u32,
    /// Its MAC when it last had one.
    mac: Option<String>,
    /// Until when it had it.
    known_until_ns: Option<u64>,
    waiters: Vec<Waiter>,
    left_out: u32,
    failures: u64,
    failed_ns: Option<u64>,
    /// A connect that waited for it ended as unreachable, and nothing says yet that the entry has failed.
    unreachable_ns: Option<u64>,
    /// Neighbours behind the same device that are counted here.
    others: u64,
    /// Its entry was taken away by hand shortly before.
    withdrawn: Option<Withdrawn>,
    /// Who on this machine has the address, and how the questions are asked, when it was looked.
    holders: Option<Holders>,
    /// Who answers when everybody is asked.
    answered: Option<Answered>,
    id: Option<String>,
}

/// Why no answer comes, where that is known.
enum Reason<'a> {
    /// What maintains the entry removed it.
    Withdrawn(&'a Withdrawn),
    /// It is a device of this machine which the one that asks never hears: in this namespace, of this name.
    Stacked(&'a Stacked, ebpf_probes::abi::Netns, &'a str),
    /// The questions are asked in the name of an address of another network.
    Foreign(std::net::IpAddr),
}

struct Waiter {
    record: WaiterRecord,
    /// Whose packet it is that this host forwards, when that was known as it came to wait.
    owner: Option<Owner>,
    at_ns: u64,
    /// The connect it belongs to, as it ended, and when.
    ended: Option<(Connect, u64)>,
}

/// How it ended.
#[derive(Clone, Copy)]
enum End<'a> {
    Answered(&'a NeighRecord),
    /// The entry was written by hand.
    Set(&'a NeighRecord),
    Removed(&'a NeighRecord),
    /// The table says that it has this MAC.
    Found([u8; 8]),
    Quiet,
}

impl Diagnose for NeighbourUnresolved {
    fn tables(&self) -> Vec<Table> {
        vec![
            self.asked.table("neighbour_unresolved_asked"),
            self.looked_ns.table("neighbour_unresolved_looked"),
            self.withdrawn.table("neighbour_unresolved_withdrawn"),
            self.given_up.table("neighbour_unresolved_given_up"),
        ]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Neighbour(neighbour::Record::Change(record)) if record.cause != cause::OVERFLOW => {
                self.changed(record, event.boot_ns, view);
            }
            Record::Neighbour(neighbour::Record::Waiter(record)) => self.waits(record, event.boot_ns, view),
            Record::Connect(connect::Record::Connect(ConnectStep::End, connect))
                if connect.errno == HOST_UNREACHABLE =>
            {
                self.unreachable(connect, event.boot_ns, view);
            }
            Record::Connect(connect::Record::Connect(ConnectStep::End, connect))
                if outcome(connect).0 == Outcome::Aborted =>
            {
                self.gives_up(connect, event.boot_ns);
            }
            Record::Tick => self.tick(view),
            _ => {}
        }
    }

    fn network(&mut self, network: &Network, view: &mut View<'_>) {
        for seen in network.neighbours.iter().flatten() {
            let key = (network.netns, seen.ifindex, seen.address);
            self.over(key, view.now_ns, End::Found(seen.mac), view);
        }
        self.judge(view);
    }

    fn answered(&mut self, answered: &Answered, view: &mut View<'_>) {
        let key = (answered.netns, answered.ifindex, answered.address);
        if let Some(silent) = self.asked.get_mut(&key) {
            silent.answered = Some(answered.clone());
            self.update(key, view);
        }
    }

    fn holders(&mut self, holders: &Holders, _view: &mut View<'_>) {
        if let Some(silent) = self.asked.get_mut(&(holders.netns, holders.ifindex, holders.address)) {
            silent.holders = Some(holders.clone());
        }
    }
}

impl NeighbourUnresolved {
    fn changed(&mut self, record: &NeighRecord, at_ns: u64, view: &mut View<'_>) {
        let key = (record.netns(), record.ifindex, record.address);
        let by_hand = record.flags & flag::BY_HAND != 0;
        let failed =
            record.flags & flag::FAILED_BETWEEN != 0 || (record.new_state == state::FAILED && !by_hand);
        if by_hand && record.new_state == state::FAILED {
            let permanent = record.old_state & state::PERMANENT != 0;
            self.withdrawn.insert(key, Withdrawn { owner: record.owner, at_ns, permanent });
        } else if by_hand {
            self.withdrawn.remove(&key);
        }
        if failed || record.new_state == state::INCOMPLETE {
            self.asked_for(key, record, at_ns);
            if failed {
                self.failed(key, at_ns, view);
            }
            return;
        }
        let Some(silent) = self.asked.get(&key) else { return };
        // An entry that failed is removed in time; what still waits makes it again.
        if silent.id.is_some() {
            let removed = record.cause == cause::REMOVED || record.new_state == state::FAILED;
            if removed && !by_hand && record.old_state != state::INCOMPLETE {
                return;
            }
            let end = match removed {
                true => End::Removed(record),
                false if by_hand => End::Set(record),
                false => End::Answered(record),
            };
            self.over(key, at_ns, end, view);
        } else if record.cause != cause::REMOVED {
            self.asked.remove(&key);
        }
    }

    fn asked_for(&mut self, key: Key, record: &NeighRecord, at_ns: u64) {
        if self.asked.get(&key).is_none() {
            let already = record.old_state == state::INCOMPLETE && record.state_since_ns != 0;
            let since_ns = if already { record.state_since_ns } else { at_ns };
            let recent = |was: &&Withdrawn| at_ns.saturating_sub(was.at_ns) <= WITHDRAWN_NS;
            let withdrawn = self.withdrawn.get(&key).filter(recent).copied();
            self.asked.insert(key, Unanswered { since_ns, withdrawn, ..Unanswered::default() });
        }
        let Some(silent) = self.asked.get_mut(&key) else { return };
        silent.device = crate::records::comm(&record.device);
        silent.last_ns = at_ns;
        if record.cause == cause::TIMER {
            silent.unanswered = silent.unanswered.saturating_add(1);
        }
        if record.old_state & (state::INCOMPLETE | state::FAILED) == 0
            && let Some(mac) = crate::domains::neighbour::mac(&record.old_mac, record.mac_len)
        {
            silent.mac = Some(mac);
            silent.known_until_ns = Some(at_ns);
        }
    }

    fn failed(&mut self, key: Key, at_ns: u64, view: &mut View<'_>) {
        let Some(silent) = self.asked.get_mut(&key) else { return };
        silent.failures += 1;
        silent.failed_ns = Some(at_ns);
        if silent.id.is_some() {
            if silent.failures.is_power_of_two() {
                self.update(key, view);
            }
        } else if silent.does_harm() {
            self.soon(key, view);
        }
    }

    /// An incident is due: the network is looked at first, to distinguish a gateway from a host.
    fn soon(&mut self, key: Key, view: &mut View<'_>) {
        if self.due.contains(&key) || self.due.len() >= NEIGHBOURS {
            return;
        }
        self.due.push(key);
        let looked_ns = self.looked_ns.get(&key.0);
        if looked_ns.is_none_or(|at| view.now_ns.saturating_sub(*at) >= LOOK_EVERY_NS) {
            self.looked_ns.insert(key.0, view.now_ns);
            let (netns, ifindex, address) = key;
            view.requests.push(Request::Holders(Sought { netns, ifindex, address, macs: vec![] }));
            // Answered after it: the incident opens then.
            view.requests.push(Request::Network(key.0));
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        self.lost(view);
        let late: Vec<Key> = self
            .asked
            .iter()
            .filter(|(_, silent)| silent.id.is_none() && silent.does_harm())
            .filter(|(_, silent)| silent.last_ns.saturating_sub(silent.since_ns) >= ASKED_NS)
            .map(|(key, _)| *key)
            .collect();
        late.into_iter().for_each(|key| self.soon(key, view));
        self.judge(view);
        let quiet: Vec<Key> = self
            .asked
            .iter()
            .filter(|(_, silent)| view.now_ns.saturating_sub(silent.last_ns) >= QUIET_NS)
            .map(|(key, _)| *key)
            .collect();
        for key in quiet {
            self.over(key, view.now_ns, End::Quiet, view);
            self.asked.remove(&key);
        }
    }

    /// Opens what is due.
    fn judge(&mut self, view: &mut View<'_>) {
        for key in std::mem::take(&mut self.due) {
            let own = |(other, silent): &(&Key, &Unanswered)| {
                (other.0, other.1) == (key.0, key.1) && silent.id.is_some()
            };
            let mut open: Vec<(u64, Key)> =
                self.asked.iter().filter(own).map(|(other, silent)| (silent.since_ns, *other)).collect();
            if open.len() >= OWN {
                open.sort_unstable();
                let (_, first) = open[0];
                if let Some(silent) = self.asked.get_mut(&first) {
                    silent.others += 1;
                    if silent.others.is_power_of_two() {
                        self.update(first, view);
                    }
                }
                continue;
            }
            let Some(silent) = self.asked.get(&key) else { continue };
            if silent.id.is_some() || !silent.is_wanted(view) {
                continue;
            }
            let report = silent.report(&key, view.now_ns, None, view);
            let id = view.store.open(view.now_ns, view.world, report);
            if let Some(silent) = self.asked.get_mut(&key) {
                for waiter in &silent.waiters {
                    view.store.explain(view.now_ns, view.world, waiter.record.cookie, &id);
                }
                silent.id = Some(id);
                let (netns, ifindex, address) = key;
                view.requests.push(Request::Ask(Sought { netns, ifindex, address, macs: vec![] }));
            }
        }
    }

    fn update(&mut self, key: Key, view: &mut View<'_>) {
        let Some(silent) = self.asked.get(&key) else { return };
        let Some(id) = &silent.id else { return };
        let report = silent.report(&key, view.now_ns, None, view);
        view.store.update(view.now_ns, view.world, id, report);
    }

    fn over(&mut self, key: Key, at_ns: u64, end: End<'_>, view: &mut View<'_>) {
        let Some(silent) = self.asked.remove(&key) else { return };
        let Some(id) = &silent.id else { return };
        let report = silent.report(&key, at_ns, Some(end), view);
        view.store.over(at_ns, id, report);
    }
}
