//! `neighbour_conflict`: two machines claim one address, so that this host's entry flaps between their MACs. An
//! address that changes hands once or twice (failover, a replaced machine) is none, nor is what somebody
//! sets by hand.

use ebpf_probes::probes::neigh::{ClaimRecord, NeighRecord, cause, flag};

use super::{
    Diagnose, Rule,
    neighbours::{self, Key, on, resolution, within},
};
use crate::{
    correlate::{
        View,
        incident::{ClaimedMac, Confidence, Details, Kind, NeighbourConflictDetails, Severity},
        remedy::Remedy,
        report::Report,
    },
    enrich::{
        bounded::{Bounded, Table},
        neigh::mac,
    },
    event::{self, Event, What},
    rules::text::{self, duration},
    text::shell::Command,
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourConflict,
    about: "two machines claim one address: the entry flaps between their MACs",
    opens: "an address is claimed by one MAC, then by another, at least 3 times in 60 s, and by one it had before",
    make: || Box::new(NeighbourConflict { neighbours: Bounded::new(NEIGHBOURS) }),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 512;
/// Changes within this long of each other belong together.
const WINDOW_NS: u64 = 60_000_000_000;
/// As many of them are a conflict.
const CHANGES: u64 = 3;
/// Sightings remembered of each at most.
const REMEMBERED: usize = 32;
/// Ethernet addresses have as many bytes.
const ETH_ALEN: u16 = 6;
/// Virtual routers (VRRP, RFC 5798 §7.3) have MACs that begin so.
const VRRP: [&str; 2] = ["00:00:5e:00:01:", "00:00:5e:00:02:"];

struct NeighbourConflict {
    neighbours: Bounded<Key, Contested>,
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
    id: Option<String>,
}

impl Diagnose for NeighbourConflict {
    fn tables(&self) -> Vec<Table> {
        vec![self.neighbours.table("neighbour_conflict_neighbours")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            What::Neigh(record) => self.changed(record, event.boot_ns, view),
            What::Claim(record) => self.claimed(record, event.boot_ns, view),
            What::Tick if !self.neighbours.is_empty() => self.tick(view),
            _ => {}
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
        if moved && from != to {
            let key = (record.netns(), record.ifindex, record.address);
            // That it was there before is news only when nothing is known yet: it did not claim it now.
            let before = self.neighbours.get(&key).and_then(|known| known.sightings.last().cloned());
            let before = before.unwrap_or((at_ns, from));
            self.seen(key, &event::comm(&record.device), [before, (at_ns, to)], view);
        }
    }

    /// Somebody else claims the address and is not believed, while its owner is alive as well.
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
        let device = view.world.device_at(record.netns(), record.ifindex).unwrap_or_default();
        self.seen(key, &device, [(record.confirmed_ns, owner), (at_ns, other)], view);
    }

    /// Two sightings, one after the other. One that is no later than the last known is not news.
    fn seen(&mut self, key: Key, device: &str, sightings: [(u64, String); 2], view: &mut View<'_>) {
        if self.neighbours.get(&key).is_none() {
            self.neighbours.insert(key, Contested::default());
        }
        let Some(contested) = self.neighbours.get_mut(&key) else { return };
        contested.device = device.to_owned();
        let mut changes = 0;
        for (at_ns, mac) in sightings {
            changes += u64::from(contested.sighting(at_ns, mac));
        }
        contested.forget(view.now_ns);
        if let Some(id) = contested.id.clone() {
            let before = contested.total;
            contested.total += changes;
            if contested.total.checked_ilog2() != before.checked_ilog2() {
                let report = contested.report(&key, view.now_ns, false, view);
                view.store.update(view.now_ns, view.world, &id, report);
            }
        } else if contested.is_conflict() {
            contested.began_ns = contested.sightings[0].0;
            contested.total = contested.changes();
            let report = contested.report(&key, view.now_ns, false, view);
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
                let report = contested.report(&key, view.now_ns, true, view);
                view.store.over(view.now_ns, id, report);
            }
        }
    }
}

impl Contested {
    /// Notes who has the address; `true` when that is another than before.
    fn sighting(&mut self, at_ns: u64, mac: String) -> bool {
        match self.sightings.last() {
            Some((last_ns, last)) if *last == mac || at_ns < *last_ns => return false,
            Some(_) | None => {}
        }
        if self.sightings.len() >= REMEMBERED {
            self.sightings.remove(0);
        }
        self.sightings.push((at_ns, mac));
        self.last_ns = at_ns;
        self.sightings.len() > 1
    }

    /// Changes fall out of the window; whoever had the address before the first that is left is kept.
    fn forget(&mut self, now_ns: u64) {
        let old = self.sightings.iter().filter(|(at, _)| now_ns.saturating_sub(*at) >= WINDOW_NS).count();
        self.sightings.drain(..old.saturating_sub(1));
    }

    fn changes(&self) -> u64 {
        (self.sightings.len() as u64).saturating_sub(1)
    }

    /// Often enough, and back to where it was before: a chain of successors is no conflict.
    fn is_conflict(&self) -> bool {
        let returns = self
            .sightings
            .iter()
            .enumerate()
            .any(|(i, (_, mac))| self.sightings[..i].iter().any(|(_, before)| before == mac));
        self.changes() >= CHANGES && returns
    }

    /// The MACs, the one seen last first.
    fn macs(&self, now_ns: u64) -> Vec<ClaimedMac> {
        let mut macs: Vec<ClaimedMac> = Vec::new();
        for (at, mac) in self.sightings.iter().rev() {
            match macs.iter_mut().find(|known| known.mac == *mac) {
                Some(known) => known.claims += 1,
                None => macs.push(ClaimedMac {
                    mac: mac.clone(),
                    claims: 1,
                    last_ms: now_ns.saturating_sub(*at) / 1_000_000,
                }),
            }
        }
        macs
    }

    fn report(&self, key: &Key, now_ns: u64, ended: bool, view: &View<'_>) -> Report {
        let mut place = neighbours::place(key, &self.device, view.world);
        place.is_gateway = view.world.gateway(key.0, &place.device, place.address).is_some();
        let macs = self.macs(now_ns);
        let how = resolution(place.address);
        let names: Vec<&str> = macs.iter().map(|claimed| claimed.mac.as_str()).collect();
        let both = names.join(" and ");
        let changes = text::count(self.changes(), "time", "times");
        let where_ = on(&place);
        let what = if place.is_gateway {
            format!("the default gateway {}", place.address)
        } else {
            place.address.to_string()
        };
        let lasted = duration(now_ns.saturating_sub(self.began_ns));
        let summary = if ended {
            format!("Nobody contests {what} {where_} any more: its entry has not moved for a minute.")
        } else {
            format!(
                "{} claim {what} {where_}: it changed hands {changes} within {lasted}.",
                capitalised(&both)
            )
        };
        let mut why = vec![format!(
            "Both answer {how} for it, so this host's packets go now to one, now to the other: connections hang and are reset."
        )];
        if names.iter().any(|name| VRRP.iter().any(|prefix| name.starts_with(prefix))) {
            why.push("One of them is a virtual router's (VRRP): two masters, which do not hear each other's advertisements.".to_owned());
        }
        let (address, device, netns) = (place.address, place.device.clone(), place.netns.clone());
        let here = |command: Command| within(netns.as_deref(), None, command);
        let found = names.iter().fold(Command::new("grep"), |grep, mac| grep.arg("-e").arg(mac));
        let mut remedies = vec![
            Remedy::from("find the two machines by their MACs, and take the address from one: ")
                .and(Command::new("bridge").words("fdb show"))
                .and(" | ")
                .and(found),
        ];
        if address.is_ipv4() {
            let probe = Command::new("arping").words("-D -c 3 -I").arg(&device).arg(address);
            remedies.push(Remedy::from("see who answers: ").and(here(probe)));
        }
        let hold = Command::new("ip").words("neigh replace").arg(address).words("lladdr MAC dev");
        remedies.push(
            Remedy::from("until then hold on to the right one: ")
                .and(here(hold.arg(&device).words("nud permanent"))),
        );
        let moves = self.sightings.windows(2);
        let evidence = moves
            .map(|pair| {
                (pair[1].0, format!("{address} is claimed by {} instead of {}", pair[1].1, pair[0].1))
            })
            .collect();
        Report {
            kind: Kind::NeighbourConflict,
            subject: neighbours::subject(key, &device),
            severity: if place.is_gateway { Severity::Critical } else { Severity::Warning },
            began_ns: self.began_ns,
            count: self.total,
            process: None,
            summary,
            why,
            cause: Some(neighbours::cause(address, Confidence::Certain)),
            caused_by: vec![],
            remedies,
            evidence,
            details: Details::NeighbourConflict(NeighbourConflictDetails {
                neighbour: place,
                changes: self.changes() as u32,
                macs,
            }),
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use ebpf_probes::probes::neigh::state::REACHABLE;

    use super::*;
    use crate::{
        correlate::incident::State,
        rules::scene::{Scene, entry},
    };

    fn moves(scene: &mut Scene, at: u64, from: u8, to: u8) {
        scene.neigh(at, entry(90, (REACHABLE, from), (REACHABLE, to)));
        scene.tick(at);
    }

    #[test]
    fn an_address_that_goes_to_and_fro_is_one_conflict_that_names_both_macs() {
        let mut scene = Scene::new();
        for (at, from, to) in [(0, 1, 2), (5000, 2, 1), (10_000, 1, 2), (15_000, 2, 1)] {
            moves(&mut scene, at, from, to);
        }
        let opened = scene.opened(Kind::NeighbourConflict);
        assert_eq!(opened.len(), 1);
        assert_eq!(
            opened[0].summary,
            "02:00:00:00:00:02 and 02:00:00:00:00:01 claim 192.0.2.90 on eth0: it changed hands 3 times within 10.0 s."
        );
        scene.passes(15_000, 80_000);
        assert_eq!(scene.last().state, State::Resolved);
    }

    #[test]
    fn a_failover_and_its_return_are_none() {
        let mut scene = Scene::new();
        moves(&mut scene, 0, 1, 2);
        moves(&mut scene, 30_000, 2, 1);
        scene.passes(30_000, 100_000);
        assert!(scene.told.is_empty(), "{:#?}", scene.told);
    }

    #[test]
    fn a_chain_of_successors_is_none() {
        let mut scene = Scene::new();
        for host in 1..6 {
            moves(&mut scene, u64::from(host) * 5000, host, host + 1);
        }
        assert!(scene.told.is_empty(), "{:#?}", scene.told);
    }

    #[test]
    fn a_failover_whose_first_announcement_was_not_believed_is_none() {
        let mut scene = Scene::new();
        scene.claim(5000, 90, 2, 4500);
        scene.claim(5500, 90, 2, 4500);
        moves(&mut scene, 6000, 1, 2);
        scene.passes(6000, 70_000);
        assert!(scene.told.is_empty(), "{:#?}", scene.told);
    }

    #[test]
    fn two_that_answer_each_question_are_a_conflict_although_the_entry_stays() {
        let mut scene = Scene::new();
        scene.claim(1000, 90, 2, 999);
        assert!(scene.told.is_empty(), "{:#?}", scene.told);
        scene.claim(20_000, 90, 2, 19_999);
        assert_eq!(scene.opened(Kind::NeighbourConflict).len(), 1);
    }

    #[test]
    fn a_claim_against_an_owner_that_is_silent_is_none() {
        let mut scene = Scene::new();
        for at in [100_000, 110_000, 120_000] {
            scene.claim(at, 90, 2, 1000);
        }
        assert!(scene.told.is_empty(), "{:#?}", scene.told);
    }
}
