//! `neighbour_unresolved`: a process waits for a neighbour that answers no ARP or NDP question. A neighbour
//! that nothing waits for, or one that answers after all, is none. An entry that an agent keeps (a CNI's, a
//! tunnel's) and took away is said to be missing, not silent. What else fails because of it points here;
//! what to say is [`say`]'s.

mod say;
#[cfg(test)]
mod tests;

use ebpf_probes::{
    abi::Owner,
    probes::{
        connect::Connect,
        neigh::{NeighRecord, WaiterRecord, cause, flag, state},
    },
};

use super::neighbours::{self, Key};
use crate::{
    domains::{
        Event, Record,
        connect::{self, ConnectStep, Outcome, outcome},
        neighbour,
    },
    known::{
        bounded::{Bounded, Table},
        context::{Holders, Kinship, Network, Stacked},
        request::Sought,
    },
    pipeline::{Diagnose, Request, Rule, View, incident::Kind},
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourUnresolved,
    about: "a neighbour (ARP, NDP) does not answer and a process waits for it: who, for how long, what failed with it",
    opens: "a neighbour that a process waits for goes FAILED, or is asked for 5 s without an answer",
    make: || Box::new(NeighbourUnresolved::default()),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 1024;
/// Waiters remembered of each at most.
const WAITERS: usize = 16;
/// A neighbour that is asked for this long has as good as failed (the kernel gives up after three seconds
/// unless it is configured otherwise).
const ASKED_NS: u64 = 5_000_000_000;
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
    /// A connect that waited for it was told that its host is unreachable, and nothing yet that the entry has failed.
    unreachable_ns: Option<u64>,
    /// Neighbours behind the same device that are counted here.
    others: u64,
    /// Its entry was taken away by hand shortly before.
    withdrawn: Option<Withdrawn>,
    /// Who on this machine has the address, and how the questions are asked, when it was looked.
    holders: Option<Holders>,
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

    fn waits(&mut self, record: &WaiterRecord, at_ns: u64, view: &mut View<'_>) {
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
    fn unreachable(&mut self, connect: &Connect, at_ns: u64, view: &mut View<'_>) {
        let (netns, remote) = (connect.owner.netns, connect.tuple.remote);
        let waiting = |(key, silent): &(&Key, &Unanswered)| {
            (key.0 == netns && key.2 == remote)
                || silent.waiters.iter().any(|waiter| waiter.record.cookie == connect.cookie)
        };
        let Some(key) = self.asked.iter().find(waiting).map(|(key, _)| *key) else { return };
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
    fn lost(&mut self, view: &mut View<'_>) {
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
    fn gives_up(&mut self, connect: &Connect, at_ns: u64) {
        self.given_up.insert(connect.cookie, (*connect, at_ns));
        for silent in self.asked.iter_mut().map(|(_, silent)| silent) {
            let its = silent.waiters.iter_mut().find(|waiter| waiter.record.cookie == connect.cookie);
            if let Some(waiter) = its {
                waiter.ended.get_or_insert((*connect, at_ns));
            }
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

impl Waiter {
    /// Its process gave up so soon that the neighbour need not be why: a scan, or an attempt beside another one.
    fn gave_up_soon(&self) -> bool {
        self.ended.as_ref().is_some_and(|(connect, at_ns)| {
            outcome(connect).0 == Outcome::Aborted && at_ns.saturating_sub(connect.started_ns) < PATIENCE_NS
        })
    }
}

impl Unanswered {
    /// Something waits, has failed or has waited in earnest; or attempts are given up soon again and again.
    fn does_harm(&self) -> bool {
        let soon = self.waiters.iter().filter(|waiter| waiter.gave_up_soon()).count();
        soon < self.waiters.len() || soon >= ATTEMPTS
    }

    /// Whether any waiter passes the filters by process.
    fn is_wanted(&self, view: &View<'_>) -> bool {
        self.waiters.iter().any(|waiter| {
            waiter.record.owner.process == 0 || view.world.known.is_wanted(&waiter.record.owner)
        })
    }

    /// What is known of why no answer comes.
    fn reason(&self) -> Option<Reason<'_>> {
        let stacked = self.holders.iter().flat_map(|holders| &holders.devices).find_map(|holder| {
            let stacked = holder.stacked.as_ref().filter(|_| holder.has_address)?;
            // Siblings hear each other unless they are kept apart.
            let apart =
                stacked.kinship != Kinship::Sibling || matches!(stacked.mode.as_str(), "private" | "vepa");
            apart.then_some(Reason::Stacked(stacked, holder.netns, &holder.device))
        });
        stacked.or_else(|| self.withdrawn.as_ref().map(Reason::Withdrawn)).or_else(|| self.foreign())
    }

    /// The sender address of the questions, when all of them carry one of no network of the device's: the kernel
    /// takes the waiting packet's own unless `arp_announce` says otherwise.
    fn foreign(&self) -> Option<Reason<'_>> {
        let holders = self.holders.as_ref()?;
        let target = crate::records::address(holders.address);
        if holders.arp_announce != Some(0) || !target.is_ipv4() {
            return None;
        }
        let sources = self.waiters.iter().map(|waiter| &waiter.record).filter(|record| record.forwarded == 0);
        let mut foreign = None;
        for record in sources {
            let source = crate::records::address(record.tuple.local);
            let shares = |(own, prefix): &(std::net::IpAddr, u8)| {
                within(source, *own, *prefix) && within(target, *own, *prefix)
            };
            if source.is_unspecified() || holders.own.iter().any(shares) {
                return None;
            }
            foreign = Some(source);
        }
        foreign.map(Reason::Foreign)
    }

    fn subject(&self, key: &Key) -> String {
        neighbours::subject(key, &self.device)
    }
}

/// Whether an address is of the network of another one.
fn within(address: std::net::IpAddr, of: std::net::IpAddr, prefix: u8) -> bool {
    let (std::net::IpAddr::V4(one), std::net::IpAddr::V4(other)) = (address, of) else { return false };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (one.to_bits() ^ other.to_bits()) & mask == 0
}
