//! `neighbour_conflict`: an address has more than one owner, or one that keeps moving, so that this host's entry
//! goes to and fro between MACs, within seconds or slowly: a return to an earlier MAC counts for hours. An address that changes hands once or twice (failover, a replaced machine, a
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
    opens: "an address goes from one MAC to another at least 3 times in 60 s, to one it had before, with two claims within a second twice or a return within 5 s; or more slowly it comes back to MACs it had before, twice within 10 min or 4 times within 6 h; or the cached MAC resets a connection that another one goes on asking for",
    make: || Box::new(NeighbourConflict { neighbours: Bounded::new(NEIGHBOURS), looked_ns: None }),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 1024;
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
/// What changes hands more slowly is a conflict when it has come back so often, to whichever MAC it had before, within so
/// long: a pair that is updated comes back once, a bond that settles in less than a minute is none.
const SLOW_RETURNS: [(usize, u64); 2] = [(2, 600_000_000_000), (4, LONG_NS)];
/// Slow changes are spread over more than this.
const SETTLES_NS: u64 = WINDOW_NS;
/// Changes are remembered for this long.
const LONG_NS: u64 = 6 * 3600 * 1_000_000_000;
/// Of a slow one it is waited for at most this long whether it moves again.
const SLOW_QUIET_NS: u64 = 1800 * 1_000_000_000;
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
    /// When it was seen last that it changes.
    seen_ns: u64,
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
        contested.seen_ns = view.now_ns;
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
            let shown = contested.shown();
            contested.began_ns = shown.get(1).map_or(view.now_ns, |(at, _)| *at);
            contested.total = contested.counted();
            let report = contested.report(&key, view.now_ns, None, view);
            contested.id = Some(view.store.open(view.now_ns, view.world, report));
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        // What has not come to a conflict is remembered for as long as there is room.
        let long_ns = if self.neighbours.len() > NEIGHBOURS / 2 { WINDOW_NS } else { LONG_NS };
        let over = |contested: &Contested| {
            let lasts_ns = if contested.id.is_some() { contested.quiet_ns() } else { long_ns };
            view.now_ns.saturating_sub(contested.last_ns) >= lasts_ns
        };
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

    /// Changes fall out of what is remembered; the machine that had the address before the first that is left is kept.
    fn forget(&mut self, now_ns: u64) {
        let old = self.sightings.iter().filter(|(at, _)| now_ns.saturating_sub(*at) >= LONG_NS).count();
        self.sightings.drain(..old.saturating_sub(1));
    }

    /// The sightings of so long before the last, and the one before them.
    fn within(&self, span_ns: u64) -> &[(u64, String)] {
        let old = |(at, _): &&(u64, String)| self.seen_ns.saturating_sub(*at) >= span_ns;
        let old = self.sightings.iter().take_while(old).count();
        &self.sightings[old.saturating_sub(1)..]
    }

    /// Those that make it what it is said to be: of a slow one all.
    fn shown(&self) -> &[(u64, String)] {
        let last_minute = self.within(WINDOW_NS);
        let slow = self.id.is_some() || self.said.is_some();
        if slow && self.quick(last_minute).is_none() && self.resets == 0 {
            &self.sightings
        } else {
            last_minute
        }
    }

    /// The changes among them.
    fn counted(&self) -> u64 {
        (self.shown().len() as u64).saturating_sub(1)
    }

    /// For how long it has to be quiet to be over: three times as long as it takes to move.
    fn quiet_ns(&self) -> u64 {
        let shown = self.shown();
        let (Some((first, _)), Some((last, _))) = (shown.get(1), shown.last()) else { return WINDOW_NS };
        let moves = (shown.len() as u64).saturating_sub(2).max(1);
        (3 * (last.saturating_sub(*first) / moves)).clamp(WINDOW_NS, SLOW_QUIET_NS)
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
        self.quick(self.within(WINDOW_NS)).or_else(|| self.slow())
    }

    /// It comes back again and again, however long each stays.
    fn slow(&self) -> Option<Pattern> {
        let often = SLOW_RETURNS.iter().any(|(returns, span_ns)| {
            let these = self.within(*span_ns);
            let (Some((first, _)), Some((last, _))) = (these.get(1), these.last()) else { return false };
            these_return(these) >= *returns && last.saturating_sub(*first) >= SETTLES_NS
        });
        often.then_some(Pattern::Alternating)
    }

    /// The same within a minute.
    fn quick(&self, these: &[(u64, String)]) -> Option<Pattern> {
        if (these.len() as u64) <= CHANGES || these_return(these) == 0 {
            return None;
        }
        let at_once = these.windows(2).filter(|pair| pair[1].0 - pair[0].0 <= AT_ONCE_NS).count();
        if at_once >= PAIRS {
            return Some(Pattern::Simultaneous);
        }
        let quick =
            these.windows(3).any(|three| three[0].1 == three[2].1 && three[2].0 - three[1].0 <= RETURN_NS);
        quick.then_some(Pattern::Alternating)
    }
}

/// How often it is a MAC that was seen before.
fn these_return(these: &[(u64, String)]) -> usize {
    let before = |at: usize, mac: &String| these[..at].iter().any(|(_, before)| before == mac);
    these.iter().enumerate().filter(|(at, (_, mac))| before(*at, mac)).count()
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
