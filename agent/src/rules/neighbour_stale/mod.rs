//! `neighbour_stale`: what this host sends to a neighbour goes to a MAC the neighbour no longer has. Three things
//! together prove it: its own packets come from another MAC than the cached one, and go on doing so; what is
//! sent to it goes unanswered; and the cached MAC is silent. MACs that are known to belong together (a
//! connection was established while one was cached and the other spoke: proxy ARP, asymmetric routers,
//! bonding) are never suspected: such a peer is dead, or deaf, but where it was. What to say is [`say`]'s.

mod misdirected;
mod say;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use ebpf_probes::{
    abi::Owner,
    probes::neigh::{NeighRecord, UnheardRecord, cause, flag, state, unheard, unheard_flag},
};

use misdirected::Misdirected;

use super::neighbours::{self, Key};
use crate::{
    domains::{Event, Record, connect, neighbour},
    known::{
        bounded::{Bounded, Table},
        context::{Answered, Network},
        request::Sought,
    },
    pipeline::{Diagnose, Request, Rule, View, incident::Kind, report::Report},
    records,
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourStale,
    about: "replies go to a cached MAC that is not the one the neighbour's packets come from, and it does not hear them",
    opens: "packets come from another MAC than the cached one, with which no connection was ever established; 1 s after a first retransmission to that neighbour nothing is answered, the other MAC still speaks and the cached one does not",
    make: || Box::new(NeighbourStale::default()),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 512;
/// Incidents that may be completed after they are over, at most.
const ENDING: usize = 64;
/// Connections distinguished at most.
const CONNECTIONS: usize = 64;
/// What was sent again is given this long to be answered.
const ANSWER_NS: u64 = 1_000_000_000;
/// A pair of MACs that worked before (asymmetric routes) is judged by more than one connection's silence.
const DOUBT_CONNECTIONS: usize = 2;
/// See `DOUBT_CONNECTIONS`.
const DOUBT_UNANSWERED: u32 = 4;
/// Packets to peers behind a router that go unanswered before the router's entry is suspected.
const ROUTER_UNANSWERED: u32 = 2;
/// The same of one whose cached MAC is a virtual one, and how many peers they must be to.
const VIRTUAL_UNANSWERED: u32 = 8;
/// See `VIRTUAL_UNANSWERED`.
const VIRTUAL_PEERS: usize = 3;
/// Times that a datagram comes again, the same, each time after its answer.
const DATAGRAMS: u32 = 4;
/// The other MAC still speaks: its last packet is not older than the first retransmission by more than this.
const SPEAKS_NS: u64 = 700_000_000;
/// An incident that is over is reported as resolved after that.
const HOLD_NS: u64 = 2_000_000_000;
/// Nothing was sent without an answer for this long: TCP's longest pause between two attempts, and some.
const QUIET_NS: u64 = 130_000_000_000;

struct NeighbourStale {
    suspects: Bounded<Key, Suspect>,
    /// What was over before the answers to a question came, and when: the answer itself may have corrected the entry.
    ending: Bounded<Key, Ending>,
    misdirected: Misdirected,
}

impl Default for NeighbourStale {
    fn default() -> Self {
        let (suspects, ending) = (Bounded::new(NEIGHBOURS), Bounded::new(ENDING));
        Self { suspects, ending, misdirected: Misdirected::default() }
    }
}

/// An incident that is over: its id, when, and what was said last.
type Ending = (String, u64, Report);

/// A neighbour that does not hear this host.
struct Suspect {
    /// As it was last reported.
    last: UnheardRecord,
    /// When something was first sent again, and last, CLOCK_BOOTTIME in nanoseconds.
    first_ns: u64,
    last_ns: u64,
    /// Connections, by local and remote port.
    connections: BTreeSet<(u16, u16)>,
    /// Whom they are with, where the neighbour is a router on the way.
    beyond: BTreeSet<IpAddr>,
    /// Ports that name the services concerned.
    ports: BTreeSet<u16>,
    /// A process whose connection it is, and whether this host is the server.
    owner: Owner,
    serves: bool,
    /// The kernel has begun to ask again.
    asks_since_ns: Option<u64>,
    /// Who answers when everybody is asked.
    answered: Option<Answered>,
    id: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy)]
enum End<'a> {
    /// The entry holds another MAC now, or is gone.
    Entry(&'a NeighRecord),
    /// The table, read again, no longer has it.
    Found,
    /// The neighbour hears us although the MACs still differ.
    Answered,
    /// The MACs turned out to belong together.
    Together,
    /// Two machines turned out to have the address.
    Conflict,
    /// No attempt any more.
    Quiet,
}

impl Diagnose for NeighbourStale {
    fn tables(&self) -> Vec<Table> {
        let ending = self.ending.table("neighbour_stale_ending");
        vec![self.suspects.table("neighbour_stale_suspects"), ending, self.misdirected.table()]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Neighbour(neighbour::Record::Unheard(record)) if record.what == unheard::ANSWERED => {
                let key = (record.netns(), record.ifindex, record.neighbour());
                self.over(key, event.boot_ns, End::Answered, view);
            }
            Record::Neighbour(neighbour::Record::Unheard(record)) if record.what == unheard::SPEAKS => {
                self.speaks(record);
            }
            // Two machines with one address: not this diagnosis.
            Record::Neighbour(neighbour::Record::Unheard(record)) if record.what == unheard::RESET => {
                let key = (record.netns(), record.ifindex, record.neighbour());
                self.over(key, event.boot_ns, End::Conflict, view);
            }
            Record::Neighbour(neighbour::Record::Unheard(record)) => {
                self.unheard(record, event.boot_ns, view);
            }
            Record::Neighbour(neighbour::Record::Change(record)) if record.cause != cause::OVERFLOW => {
                self.changed(record, event.boot_ns, view);
            }
            Record::Connect(connect::Record::Dropped(lost)) => {
                self.misdirected.lost(lost, event.boot_ns, view);
            }
            Record::Tick => {
                self.misdirected.tick(view);
                if !self.suspects.is_empty() {
                    self.tick(view);
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, answered: &Answered, view: &mut View<'_>) {
        let key = (answered.netns, answered.ifindex, answered.address);
        if let Some(suspect) = self.suspects.get_mut(&key) {
            suspect.answered = Some(answered.clone());
            return self.update(key, view);
        }
        let Some((id, at_ns, mut report)) = self.ending.remove(&key) else { return };
        if answered.boot_ns <= at_ns && view.now_ns.saturating_sub(at_ns) < HOLD_NS {
            let device = view.world.known.device_at(key.0, key.1).unwrap_or_default();
            report.evidence.push(neighbours::answered(answered, &device));
            view.store.over(at_ns, &id, report);
        }
    }

    fn network(&mut self, network: &Network, view: &mut View<'_>) {
        let Some(neighbours) = &network.neighbours else { return };
        // Read again: an entry that is gone, or holds another MAC, is no longer wrong as it was.
        let still = |key: &Key, suspect: &Suspect| {
            neighbours
                .iter()
                .any(|seen| (seen.ifindex, seen.address, seen.mac) == (key.1, key.2, suspect.last.cached_mac))
        };
        let mut gone: Vec<Key> = self
            .suspects
            .iter()
            .filter(|(key, suspect)| key.0 == network.netns && !still(key, suspect))
            .map(|(key, _)| *key)
            .collect();
        gone.sort_unstable();
        gone.into_iter().for_each(|key| self.over(key, view.now_ns, End::Found, view));
    }
}

impl NeighbourStale {
    fn unheard(&mut self, record: &UnheardRecord, at_ns: u64, view: &mut View<'_>) {
        let key = (record.netns(), record.ifindex, record.neighbour());
        if record.flags & unheard_flag::TOGETHER != 0 {
            return self.over(key, at_ns, End::Together, view);
        }
        // The kernel begins again when the cached MAC has spoken in between.
        let other_pair = |known: &Suspect| {
            known.last.cached_mac != record.cached_mac
                || known.last.seen_mac != record.seen_mac
                || record.seen_since_ns > known.first_ns
        };
        if self.suspects.get(&key).is_none_or(other_pair) {
            // Whatever was said of another pair of MACs is over.
            self.over(key, at_ns, End::Quiet, view);
            let fresh = Suspect {
                last: *record,
                first_ns: at_ns,
                last_ns: at_ns,
                connections: BTreeSet::new(),
                beyond: BTreeSet::new(),
                ports: BTreeSet::new(),
                owner: Owner::default(),
                serves: false,
                asks_since_ns: None,
                answered: None,
                id: None,
            };
            self.suspects.insert(key, fresh);
            // The answer is here long before the incident is due: what the device is called, who is a gateway.
            view.requests.push(Request::Network(key.0));
        }
        let Some(suspect) = self.suspects.get_mut(&key) else { return };
        (suspect.last, suspect.last_ns) = (*record, at_ns);
        if suspect.connections.len() < CONNECTIONS {
            suspect.connections.insert((record.tuple.local_port, record.tuple.remote_port));
        }
        if record.is_routed() && suspect.beyond.len() < CONNECTIONS {
            suspect.beyond.insert(records::address(record.tuple.remote));
        }
        // A service's port says more than the one its client happens to have.
        suspect.serves |= matches!(record.what, unheard::SYN_ACK | unheard::DATAGRAM);
        let port = match record.what {
            unheard::SYN_ACK | unheard::DATAGRAM => record.tuple.local_port,
            unheard::SYN => record.tuple.remote_port,
            _ => record.tuple.local_port.min(record.tuple.remote_port),
        };
        if suspect.ports.len() < CONNECTIONS {
            suspect.ports.insert(port);
        }
        if suspect.owner.process == 0 {
            suspect.owner = if record.owner.process == 0 { listener(record, view) } else { record.owner };
        }
        if suspect.id.is_some() && record.unanswered.is_power_of_two() {
            self.update(key, view);
        }
    }

    /// The other MAC has spoken again.
    fn speaks(&mut self, record: &UnheardRecord) {
        let key = (record.netns(), record.ifindex, record.neighbour());
        if let Some(suspect) = self.suspects.get_mut(&key)
            && (suspect.last.cached_mac, suspect.last.seen_mac) == (record.cached_mac, record.seen_mac)
        {
            suspect.last.seen_last_ns = record.seen_last_ns;
            suspect.last.confirmed_ns = record.confirmed_ns;
        }
    }

    fn changed(&mut self, record: &NeighRecord, at_ns: u64, view: &mut View<'_>) {
        let key = (record.netns(), record.ifindex, record.address);
        let Some(suspect) = self.suspects.get_mut(&key) else { return };
        let by_hand = record.flags & flag::BY_HAND != 0;
        let removed = record.cause == cause::REMOVED || (record.new_state == state::FAILED && by_hand);
        let corrected = record.new_mac != [0; 8]
            && record.new_mac != suspect.last.cached_mac
            && record.new_state & (state::INCOMPLETE | state::FAILED) == 0;
        if removed || corrected {
            self.over(key, at_ns, End::Entry(record), view);
        } else if record.new_state & (state::INCOMPLETE | state::FAILED | state::PROBE) != 0 {
            suspect.asks_since_ns.get_or_insert(at_ns);
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        let mut due = Vec::new();
        let mut quiet = Vec::new();
        for (key, suspect) in self.suspects.iter() {
            if view.now_ns.saturating_sub(suspect.last_ns) >= QUIET_NS {
                quiet.push(*key);
            } else if suspect.id.is_none()
                && view.now_ns.saturating_sub(suspect.first_ns) >= ANSWER_NS
                && suspect.convinces()
            {
                due.push(*key);
            }
        }
        due.sort_unstable();
        quiet.sort_unstable();
        for key in due {
            let Some(suspect) = self.suspects.get(&key) else { continue };
            let report = suspect.report(&key, view.now_ns, None, view);
            let id = view.store.open(view.now_ns, view.world, report);
            if let Some(suspect) = self.suspects.get_mut(&key) {
                suspect.id = Some(id);
                let (netns, ifindex, address) = key;
                view.requests.push(Request::Ask(Sought { netns, ifindex, address, macs: vec![] }));
            }
        }
        for key in quiet {
            self.over(key, view.now_ns, End::Quiet, view);
        }
    }

    fn update(&mut self, key: Key, view: &mut View<'_>) {
        let Some(suspect) = self.suspects.get(&key) else { return };
        let Some(id) = &suspect.id else { return };
        let report = suspect.report(&key, view.now_ns, None, view);
        view.store.update(view.now_ns, view.world, id, report);
    }

    fn over(&mut self, key: Key, at_ns: u64, end: End<'_>, view: &mut View<'_>) {
        let Some(suspect) = self.suspects.remove(&key) else { return };
        let Some(id) = &suspect.id else { return };
        let report = suspect.report(&key, at_ns, Some(end), view);
        if suspect.answered.is_none() {
            self.ending.insert(key, (id.clone(), at_ns, report.clone()));
        }
        view.store.over(at_ns, id, report);
    }
}

impl Suspect {
    /// Whether the neighbour speaks from elsewhere while the cached MAC is silent, and that silence is more than a
    /// lost packet on a way that works.
    fn convinces(&self) -> bool {
        // Older recordings do not say when it spoke last.
        let speaks =
            self.last.seen_last_ns == 0 || self.last.seen_last_ns.saturating_add(SPEAKS_NS) >= self.first_ns;
        let cached_is_silent = self.last.confirmed_ns <= self.last.seen_since_ns;
        speaks
            && cached_is_silent
            && self.is_no_loss()
            && (!self.last.is_routed() || self.convinces_of_router())
    }

    /// A router's packets may well come from another MAC than it is reached at: silence must be more than that of one
    /// packet, and of an address that moves between routers (VRRP, HSRP, GLBP) more than one peer's.
    fn convinces_of_router(&self) -> bool {
        if is_virtual(&self.last.cached_mac) {
            return self.beyond.len() >= VIRTUAL_PEERS && self.last.unanswered >= VIRTUAL_UNANSWERED;
        }
        self.last.unanswered >= ROUTER_UNANSWERED
    }

    fn is_no_loss(&self) -> bool {
        if self.last.what == unheard::DATAGRAM {
            return self.last.answered_ns == 0 && self.last.unanswered >= DATAGRAMS;
        }
        self.last.answered_ns == 0
            || (self.connections.len() >= DOUBT_CONNECTIONS && self.last.unanswered >= DOUBT_UNANSWERED)
    }

    fn subject(&self, key: &Key, device: &str) -> String {
        neighbours::subject(key, device)
    }
}

/// Whether a MAC is one that routers share: VRRP and CARP (RFC 9568 §7.3), HSRP, GLBP.
fn is_virtual(mac: &[u8; 8]) -> bool {
    const SHARED: [&[u8]; 5] = [
        &[0x00, 0x00, 0x5e, 0x00, 0x01],
        &[0x00, 0x00, 0x5e, 0x00, 0x02],
        &[0x00, 0x00, 0x0c, 0x07, 0xac],
        &[0x00, 0x00, 0x0c, 0x9f],
        &[0x00, 0x07, 0xb4],
    ];
    SHARED.iter().any(|prefix| mac.starts_with(prefix))
}

/// The process that listens where a SYN-ACK comes from.
fn listener(record: &UnheardRecord, view: &View<'_>) -> Owner {
    let mut owner = Owner { netns: record.netns(), ..Owner::default() };
    let local = records::address(record.tuple.local);
    if record.what == unheard::SYN_ACK
        && let Some((process, comm)) =
            view.world.known.listener_at(record.netns(), local, record.tuple.local_port)
    {
        (owner.process, owner.thread, owner.comm) = (process, process, records::comm_bytes(&comm));
    }
    owner
}
