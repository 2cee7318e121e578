//! `neighbour_conflict`: two machines claim one address, so that this host's entry flaps between their MACs. An
//! address that changes hands once or twice (failover, a replaced machine) is none, nor is what somebody
//! sets by hand.

use ebpf_probes::probes::neigh::{ClaimRecord, NeighRecord, cause, flag};

use super::{
    Diagnose, Rule,
    neighbours::{self, Key, command, ip, on, resolution},
};
use crate::{
    correlate::{
        View,
        incident::{
            Cause, CauseKind, ClaimedMac, Confidence, Details, Kind, NeighbourConflictDetails, Severity,
        },
        report::Report,
    },
    enrich::{bounded::Bounded, neigh::mac},
    event::{self, Event, What},
    rules::text::{self, duration},
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourConflict,
    about: "two machines claim one address: the entry flaps between their MACs",
    opens: "an address moves between MACs at least 3 times in 60 s, and back to one it had before",
    make: || Box::new(NeighbourConflict { neighbours: Bounded::new(NEIGHBOURS) }),
};

/// Neighbours followed at most.
const NEIGHBOURS: usize = 512;
/// Changes within this long of each other belong together.
const WINDOW_NS: u64 = 60_000_000_000;
/// As many of them are a conflict.
const CHANGES: usize = 3;
/// Changes remembered of each at most.
const REMEMBERED: usize = 32;
/// Ethernet addresses have as many bytes.
const ETH_ALEN: u16 = 6;
/// Virtual routers (VRRP, RFC 5798 §7.3) have MACs that begin so.
const VRRP: [&str; 2] = ["00:00:5e:00:01:", "00:00:5e:00:02:"];

struct NeighbourConflict {
    neighbours: Bounded<Key, Flapping>,
}

#[derive(Default)]
struct Flapping {
    device: String,
    /// When, from which MAC, to which.
    changes: Vec<(u64, String, String)>,
    total: u64,
    began_ns: u64,
    id: Option<String>,
}

impl Diagnose for NeighbourConflict {
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
            let key = (record.netns, record.ifindex, record.address);
            self.flap(key, &event::comm(&record.device), at_ns, from, to, view);
        }
    }

    /// Somebody else claims the address; it counts while the owner is alive as well.
    fn claimed(&mut self, record: &ClaimRecord, at_ns: u64, view: &mut View<'_>) {
        if record.confirmed_ns == 0 || at_ns.saturating_sub(record.confirmed_ns) > WINDOW_NS {
            return;
        }
        let (Some(from), Some(to)) = (mac(&record.cached_mac, ETH_ALEN), mac(&record.claimed_mac, ETH_ALEN))
        else {
            return;
        };
        let key = (record.netns, record.ifindex, record.address);
        let device = view.world.device_at(record.netns, record.ifindex).unwrap_or_default();
        // There, and back again: the entry keeps what it has.
        self.flap(key, &device, at_ns, from.clone(), to.clone(), view);
        self.flap(key, &device, at_ns, to, from, view);
    }

    fn flap(&mut self, key: Key, device: &str, at_ns: u64, from: String, to: String, view: &mut View<'_>) {
        if self.neighbours.get(&key).is_none() {
            self.neighbours.insert(key, Flapping::default());
        }
        let Some(flapping) = self.neighbours.get_mut(&key) else { return };
        flapping.device = device.to_owned();
        flapping.forget(at_ns);
        if flapping.changes.len() >= REMEMBERED {
            flapping.changes.remove(0);
        }
        flapping.changes.push((at_ns, from, to));
        flapping.total += 1;
        if let Some(id) = flapping.id.clone() {
            if flapping.total.is_power_of_two() {
                let report = flapping.report(&key, view.now_ns, false, view);
                view.store.update(view.now_ns, view.world, &id, report);
            }
        } else if flapping.is_conflict() {
            flapping.began_ns = flapping.changes[0].0;
            flapping.total = flapping.changes.len() as u64;
            let report = flapping.report(&key, view.now_ns, false, view);
            flapping.id = Some(view.store.open(view.now_ns, view.world, report));
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        let over = |flapping: &Flapping| {
            flapping.changes.last().is_none_or(|(at, ..)| view.now_ns.saturating_sub(*at) >= WINDOW_NS)
        };
        let quiet: Vec<Key> =
            self.neighbours.iter().filter(|(_, flapping)| over(flapping)).map(|(key, _)| *key).collect();
        for key in quiet {
            let Some(flapping) = self.neighbours.remove(&key) else { continue };
            if let Some(id) = &flapping.id {
                let report = flapping.report(&key, view.now_ns, true, view);
                view.store.over(view.now_ns, id, report);
            }
        }
    }
}

impl Flapping {
    fn forget(&mut self, now_ns: u64) {
        self.changes.retain(|(at, ..)| now_ns.saturating_sub(*at) < WINDOW_NS);
    }

    /// Often enough, and back to where it was before: a chain of successors is no conflict.
    fn is_conflict(&self) -> bool {
        let returns = self
            .changes
            .iter()
            .enumerate()
            .any(|(i, (_, _, to))| self.changes[..=i].iter().any(|(_, from, _)| from == to));
        self.changes.len() >= CHANGES && returns
    }

    /// The MACs, the one seen last first.
    fn macs(&self, now_ns: u64) -> Vec<ClaimedMac> {
        let mut macs: Vec<ClaimedMac> = Vec::new();
        for (at, from, to) in self.changes.iter().rev() {
            for (mac, claims) in [(to, 1), (from, 0)] {
                match macs.iter_mut().find(|known| known.mac == *mac) {
                    Some(known) => known.claims += claims,
                    None => macs.push(ClaimedMac {
                        mac: mac.clone(),
                        claims,
                        last_ms: now_ns.saturating_sub(*at) / 1_000_000,
                    }),
                }
            }
        }
        macs
    }

    fn report(&self, key: &Key, now_ns: u64, ended: bool, view: &View<'_>) -> Report {
        let mut place = neighbours::place(key, &self.device, view.world);
        place.is_gateway = view.world.gateway(key.0, place.address).is_some();
        let macs = self.macs(now_ns);
        let how = resolution(place.address);
        let names: Vec<&str> = macs.iter().map(|claimed| claimed.mac.as_str()).collect();
        let both = names.join(" and ");
        let changes = text::count(self.changes.len() as u64, "time", "times");
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
                "{} claim {what} {where_}: its entry moved {changes} within {lasted}.",
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
        let mut remedies = vec![format!(
            "find the two machines by their MACs, and take the address from one: bridge fdb show | grep -e {}",
            names.join(" -e ")
        )];
        if address.is_ipv4() {
            let probe = command(netns.as_deref(), None, &format!("arping -D -c 3 -I {device} {address}"));
            remedies.push(format!("see who answers: {probe}"));
        }
        remedies.push(format!(
            "until then hold on to the right one: {} neigh replace {address} lladdr <MAC> dev {device} nud permanent",
            ip(netns.as_deref(), None)
        ));
        let evidence = self
            .changes
            .iter()
            .map(|(at, from, to)| (*at, format!("{address} moves from {from} to {to}")))
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
            cause: Some(Cause {
                kind: CauseKind::Neighbour,
                confidence: Confidence::Certain,
                destination: Some(neighbours::destination(address)),
                ..Cause::default()
            }),
            caused_by: vec![],
            remedies,
            evidence,
            details: Details::NeighbourConflict(NeighbourConflictDetails {
                neighbour: place,
                changes: self.changes.len() as u32,
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
            "02:00:00:00:00:02 and 02:00:00:00:00:01 claim 192.0.2.90 on eth0: its entry moved 3 times within 10.0 s."
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
    fn two_that_answer_each_question_are_a_conflict_although_the_entry_stays() {
        let mut scene = Scene::new();
        scene.claim(0, 90, 2, 0);
        assert!(scene.told.is_empty(), "{:#?}", scene.told);
        scene.claim(20_000, 90, 2, 19_000);
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
