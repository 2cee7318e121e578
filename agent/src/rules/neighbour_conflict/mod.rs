//! `neighbour_conflict`: an address has more than one owner, or one that keeps moving, so that this host's entry
//! goes to and fro between MACs. An address that changes hands once or twice (failover, a replaced machine, a
//! bond that takes seconds between its links) is none, nor is what is set by hand, nor are MACs that are
//! known to belong together (two devices of one machine). Which of the cases it is says [`Pattern`]; what to say
//! is [`say`]'s.

mod say;
#[cfg(test)]
mod tests;

use ebpf_probes::probes::neigh::{
    ClaimRecord, NeighRecord, UnheardRecord, cause, flag, unheard, unheard_flag,
};

use super::neighbours::Key;
use crate::{
    domains::{
        Event, Record,
        neighbour::{self, mac},
    },
    known::{
        bounded::{Bounded, Table},
        context::Holders,
        request::Sought,
    },
    pipeline::{
        Diagnose, Request, Rule, View,
        incident::{ConflictPattern as Pattern, Kind},
    },
    records,
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourConflict,
    about: "an address is claimed by two MACs at once, or keeps moving between them: two machines, or one that flaps",
    opens: "an address goes from one MAC to another at least 3 times in 60 s, to one it had before, with two claims within a second twice or a return within 5 s; or the cached MAC resets a connection that another one goes on asking for",
    make: || Box::new(NeighbourConflict { neighbours: Bounded::new(NEIGHBOURS), looked_ns: None }),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 512;
/// Changes within this long of each other belong together.
const WINDOW_NS: u64 = 60_000_000_000;
/// As many of them are a conflict.
const CHANGES: u64 = 3;
/// Claims by two MACs within this long of each other are claims at once.
const AT_ONCE_NS: u64 = 1_000_000_000;
/// As many such pairs are no chance: a failover can make one.
const PAIRS: usize = 2;
/// A failover stays where it is for longer than this.
const RETURN_NS: u64 = 5_000_000_000;
/// It is asked at most this often whose MACs some are.
const LOOK_EVERY_NS: u64 = 1_000_000_000;
/// Sightings remembered of each at most.
const REMEMBERED: usize = 32;
/// Ethernet addresses have as many bytes.
const ETH_ALEN: u16 = 6;

struct NeighbourConflict {
    neighbours: Bounded<Key, Contested>,
    /// When it was last asked whose MACs some are.
    looked_ns: Option<u64>,
}

#[derive(Default)]
struct Contested {
    device: String,
    /// Who was seen to have the address, and when: one line a change.
    sightings: Vec<(u64, String)>,
    /// Changes since it began.
    total: u64,
    began_ns: u64,
    last_ns: u64,
    /// Times that one MAC reset what the other one asked for, and the last of them.
    resets: u32,
    reset: Option<(u64, UnheardRecord)>,
    /// Whose the MACs are, when it was looked.
    holders: Option<Holders>,
    /// What was said of it last.
    said: Option<Pattern>,
    id: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing has moved for a minute.
    Quiet,
    /// The MACs turned out to belong together.
    Together,
}

impl Diagnose for NeighbourConflict {
    fn tables(&self) -> Vec<Table> {
        vec![self.neighbours.table("neighbour_conflict_neighbours")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Neighbour(neighbour::Record::Change(record)) => self.changed(record, event.boot_ns, view),
            Record::Neighbour(neighbour::Record::Claim(record)) => self.claimed(record, event.boot_ns, view),
            Record::Neighbour(neighbour::Record::Unheard(record))
                if record.flags & unheard_flag::TOGETHER != 0 =>
            {
                self.together((record.netns(), record.ifindex, record.neighbour()), view);
            }
            Record::Neighbour(neighbour::Record::Unheard(record)) if record.what == unheard::RESET => {
                self.resets(record, event.boot_ns, view);
            }
            Record::Tick if !self.neighbours.is_empty() => self.tick(view),
            _ => {}
        }
    }

    fn holders(&mut self, holders: &Holders, view: &mut View<'_>) {
        let key = (holders.netns, holders.ifindex, holders.address);
        let Some(contested) = self.neighbours.get_mut(&key) else { return };
        let news = !holders.devices.is_empty() || !holders.others.is_empty();
        contested.holders = Some(holders.clone());
        if news && let Some(id) = contested.id.clone() {
            let report = contested.report(&key, view.now_ns, None, view);
            view.store.update(view.now_ns, view.world, &id, report);
        }
    }
}

impl NeighbourConflict {
    fn changed(&mut self, record: &NeighRecord, at_ns: u64, view: &mut View<'_>) {
        let moved = record.cause == cause::UPDATED && record.flags & flag::BY_HAND == 0;
        let (Some(from), Some(to)) =
            (mac(&record.old_mac, record.mac_len), mac(&record.new_mac, record.mac_len))
        else {
            return;
        };
        if !moved || from == to {
            return;
        }
        let key = (record.netns(), record.ifindex, record.address);
        if record.flags & flag::TOGETHER != 0 {
            return self.together(key, view);
        }
        // That it was there before is news only when nothing is known yet: it did not claim it now.
        let before = self.neighbours.get(&key).and_then(|known| known.sightings.last().cloned());
        let since = record.mac_since_ns.clamp(at_ns.saturating_sub(WINDOW_NS), at_ns);
        let before = before.unwrap_or((since, from));
        self.seen(key, &records::comm(&record.device), [before, (at_ns, to)], view);
    }

    /// Another machine claims the address and is not believed, while its owner is alive as well.
    fn claimed(&mut self, record: &ClaimRecord, at_ns: u64, view: &mut View<'_>) {
        if record.confirmed_ns == 0 || at_ns.saturating_sub(record.confirmed_ns) > WINDOW_NS {
            return;
        }
        let (Some(owner), Some(other)) =
            (mac(&record.cached_mac, ETH_ALEN), mac(&record.claimed_mac, ETH_ALEN))
        else {
            return;
        };
        let key = (record.netns(), record.ifindex, record.address);
        if record.flags & flag::TOGETHER != 0 {
            return self.together(key, view);
        }
        let device = view.world.known.device_at(record.netns(), record.ifindex).unwrap_or_default();
        self.seen(key, &device, [(record.confirmed_ns, owner), (at_ns, other)], view);
    }

    /// One MAC resets what the other one asks for: they are two machines, whatever the entry does.
    fn resets(&mut self, record: &UnheardRecord, at_ns: u64, view: &mut View<'_>) {
        let key = (record.netns(), record.ifindex, record.neighbour());
        let (Some(cached), Some(other)) =
            (mac(&record.cached_mac, ETH_ALEN), mac(&record.seen_mac, ETH_ALEN))
        else {
            return;
        };
        let device = view.world.known.device_at(record.netns(), record.ifindex).unwrap_or_default();
        let Some(contested) = of(&mut self.neighbours, key, &device) else { return };
        contested.resets = contested.resets.saturating_add(1);
        contested.reset = Some((at_ns, *record));
        let since = record.seen_since_ns.min(at_ns);
        self.seen(key, &device, [(since, cached), (at_ns, other)], view);
    }

    /// The MACs are one machine's: nothing is contested.
    fn together(&mut self, key: Key, view: &mut View<'_>) {
        let Some(contested) = self.neighbours.remove(&key) else { return };
        if let Some(id) = &contested.id {
            let report = contested.report(&key, view.now_ns, Some(End::Together), view);
            view.store.over(view.now_ns, id, report);
        }
    }

    /// Two sightings, one after the other. One that is no later than the last known is not news.
    fn seen(&mut self, key: Key, device: &str, sightings: [(u64, String); 2], view: &mut View<'_>) {
        let Some(contested) = of(&mut self.neighbours, key, device) else { return };
        let mut changes = 0;
        for (at_ns, mac) in sightings {
            changes += u64::from(contested.sighting(at_ns, mac));
        }
        contested.forget(view.now_ns);
        // Answered before the incident is due, unless that is at once.
        let suspicious = contested.holders.is_none() && (contested.changes() > 1 || contested.resets > 0);
        if suspicious
            && changes > 0
            && self.looked_ns.is_none_or(|at| view.now_ns.saturating_sub(at) >= LOOK_EVERY_NS)
        {
            self.looked_ns = Some(view.now_ns);
            let (netns, ifindex, address) = key;
            let macs = contested.addresses();
            view.requests.push(Request::Holders(Sought { netns, ifindex, address, macs }));
        }
        let pattern = contested.pattern();
        if let Some(id) = contested.id.clone() {
            let before = contested.total;
            contested.total += changes;
            let graver = pattern.is_some() && pattern > contested.said;
            if graver || contested.total.checked_ilog2() != before.checked_ilog2() {
                contested.said = contested.said.max(pattern);
                let report = contested.report(&key, view.now_ns, None, view);
                view.store.update(view.now_ns, view.world, &id, report);
            }
        } else if pattern.is_some() {
            contested.said = pattern;
            // The first change: who had it before may have had it for long.
            contested.began_ns = contested.sightings.get(1).map_or(view.now_ns, |(at, _)| *at);
            contested.total = contested.changes();
            let report = contested.report(&key, view.now_ns, None, view);
            contested.id = Some(view.store.open(view.now_ns, view.world, report));
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        let over = |contested: &Contested| view.now_ns.saturating_sub(contested.last_ns) >= WINDOW_NS;
        let mut quiet: Vec<Key> =
            self.neighbours.iter().filter(|(_, contested)| over(contested)).map(|(key, _)| *key).collect();
        quiet.sort_unstable();
        for key in quiet {
            let Some(contested) = self.neighbours.remove(&key) else { continue };
            if let Some(id) = &contested.id {
                let report = contested.report(&key, view.now_ns, Some(End::Quiet), view);
                view.store.over(view.now_ns, id, report);
            }
        }
    }
}

impl Contested {
    /// Notes who has the address; `true` when that is another than before.
    fn sighting(&mut self, at_ns: u64, mac: String) -> bool {
        self.last_ns = self.last_ns.max(at_ns);
        match self.sightings.last() {
            Some((last_ns, last)) if *last == mac || at_ns < *last_ns => return false,
            Some(_) | None => {}
        }
        if self.sightings.len() >= REMEMBERED {
            self.sightings.remove(0);
        }
        self.sightings.push((at_ns, mac));
        self.sightings.len() > 1
    }

    /// Changes fall out of the window; the machine that had the address before the first that is left is kept.
    fn forget(&mut self, now_ns: u64) {
        let old = self.sightings.iter().filter(|(at, _)| now_ns.saturating_sub(*at) >= WINDOW_NS).count();
        self.sightings.drain(..old.saturating_sub(1));
    }

    /// The MACs, as bytes.
    fn addresses(&self) -> Vec<[u8; 8]> {
        let mut macs: Vec<[u8; 8]> = self.sightings.iter().filter_map(|(_, mac)| bytes(mac)).collect();
        macs.sort_unstable();
        macs.dedup();
        macs
    }

    fn changes(&self) -> u64 {
        (self.sightings.len() as u64).saturating_sub(1)
    }

    /// What the sightings show; `None`: no conflict. Often enough, and back to where it was before: a chain of
    /// successors is none; nor is an owner that changes every now and then.
    fn pattern(&self) -> Option<Pattern> {
        if self.resets > 0 {
            return Some(Pattern::TwoMachines);
        }
        let returns = self
            .sightings
            .iter()
            .enumerate()
            .any(|(i, (_, mac))| self.sightings[..i].iter().any(|(_, before)| before == mac));
        if self.changes() < CHANGES || !returns {
            return None;
        }
        let at_once = self.sightings.windows(2).filter(|pair| pair[1].0 - pair[0].0 <= AT_ONCE_NS).count();
        if at_once >= PAIRS {
            return Some(Pattern::Simultaneous);
        }
        let quick = self
            .sightings
            .windows(3)
            .any(|three| three[0].1 == three[2].1 && three[2].0 - three[1].0 <= RETURN_NS);
        quick.then_some(Pattern::Alternating)
    }
}

/// What is known of a neighbour, made when there is nothing yet.
fn of<'a>(neighbours: &'a mut Bounded<Key, Contested>, key: Key, device: &str) -> Option<&'a mut Contested> {
    if neighbours.get(&key).is_none() {
        neighbours.insert(key, Contested::default());
    }
    let contested = neighbours.get_mut(&key)?;
    if !device.is_empty() {
        device.clone_into(&mut contested.device);
    }
    Some(contested)
}

/// A MAC as it is written, back in bytes.
fn bytes(mac: &str) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    for (at, part) in mac.split(':').enumerate() {
        *bytes.get_mut(at)? = u8::from_str_radix(part, 16).ok()?;
    }
    Some(bytes)
}
