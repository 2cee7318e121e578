//! `neighbour_table_full`: the kernel has no room for another neighbour, so that new ones cannot be reached
//! although nothing is wrong with them. The table is shared by all network namespaces of the machine.

use std::collections::BTreeMap;

use ebpf_probes::{
    abi::AF_INET6,
    probes::neigh::{NeighRecord, cause},
};

use super::text;
use crate::{
    domains::{Event, Record, neighbour},
    known::context::Network,
    pipeline::{
        Diagnose, Request, Rule, View,
        incident::{Confidence, Details, Kind, NeighbourTableFullDetails, NeighbourUser, Severity},
        remedy::Remedy,
        report::Report,
    },
    records,
    rules::text::duration,
    text::{shell::Command, shown},
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::NeighbourTableFull,
    about: "the neighbour table is full: family, entries, thresholds, and who has the most entries",
    opens: "the kernel could not make an entry",
    make: || Box::new(NeighbourTableFull::default()),
};

/// The table had room for this long.
const QUIET_NS: u64 = 30_000_000_000;

#[derive(Default)]
struct NeighbourTableFull {
    /// By family.
    full: BTreeMap<&'static str, Full>,
}

struct Full {
    first_ns: u64,
    last_ns: u64,
    last: NeighRecord,
    refused: u64,
    emitted: u64,
    network: Option<Network>,
    id: Option<String>,
}

impl Diagnose for NeighbourTableFull {
    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Neighbour(neighbour::Record::Change(record)) if record.cause == cause::OVERFLOW => {
                self.overflowed(record, event.boot_ns, view);
            }
            Record::Tick if !self.full.is_empty() => {
                self.judge(view);
                self.quiet(view);
            }
            _ => {}
        }
    }

    fn network(&mut self, network: &Network, view: &mut View<'_>) {
        // Gateways alone say nothing about tables.
        if network.tables.is_empty() || self.full.is_empty() {
            return;
        }
        for full in self.full.values_mut() {
            full.network = Some(network.clone());
        }
        self.judge(view);
    }
}

impl NeighbourTableFull {
    fn overflowed(&mut self, record: &NeighRecord, at_ns: u64, view: &mut View<'_>) {
        let family = if record.family == AF_INET6 { "ipv6" } else { "ipv4" };
        let is_new = !self.full.contains_key(family);
        let full = self.full.entry(family).or_insert(Full {
            first_ns: at_ns,
            last_ns: at_ns,
            last: *record,
            refused: 0,
            emitted: 0,
            network: None,
            id: None,
        });
        (full.last, full.last_ns) = (*record, at_ns);
        full.refused = full.refused.saturating_add(record.count.max(1).into());
        if is_new {
            view.requests.push(Request::Tables(record.netns()));
            return;
        }
        if let Some(id) = &full.id
            && full.refused >= full.emitted.saturating_mul(2)
        {
            full.emitted = full.refused;
            let report = full.report(family, false, view);
            view.store.update(view.now_ns, view.world, id, report);
        }
    }

    /// Opens what has been looked at, or was not within a tick.
    fn judge(&mut self, view: &mut View<'_>) {
        for (family, full) in &mut self.full {
            if full.id.is_none() {
                full.emitted = full.refused;
                let report = full.report(family, false, view);
                full.id = Some(view.store.open(view.now_ns, view.world, report));
            }
        }
    }

    fn quiet(&mut self, view: &mut View<'_>) {
        let now_ns = view.now_ns;
        self.full.retain(|family, full| {
            if now_ns.saturating_sub(full.last_ns) < QUIET_NS {
                return true;
            }
            if let Some(id) = &full.id {
                let report = full.report(family, true, view);
                view.store.over(now_ns, id, report);
            }
            false
        });
    }
}

impl Full {
    fn report(&self, family: &str, ended: bool, view: &View<'_>) -> Report {
        let record = &self.last;
        let place = super::neighbours::place(
            &(record.netns(), record.ifindex, record.address),
            &records::comm(&record.device),
            view.world,
        );
        let table = self
            .network
            .as_ref()
            .and_then(|network| network.tables.iter().find(|table| table.family == family));
        let users: Vec<NeighbourUser> = self
            .network
            .iter()
            .flat_map(|network| network.users.iter())
            .filter(|user| user.family == family)
            .take(5)
            .map(|user| NeighbourUser {
                device: user.device.clone(),
                netns: view.world.known.namespace(user.netns),
                entries: user.entries,
            })
            .collect();
        let (entries, bound) = (record.gc_entries, record.gc_thresh3);
        let refused = text::count(self.refused, "entry", "entries");
        let summary = if ended {
            format!("The {family} neighbour table has had room again for {}.", duration(QUIET_NS))
        } else {
            format!(
                "The {family} neighbour table is full: {entries} entries of at most {bound} (gc_thresh3), and no room for {} on {}.",
                place.address,
                shown(&place.device)
            )
        };
        let mut why = vec![format!(
            "All network namespaces of this machine share the table; {refused} could not be made, and packets to those addresses were dropped here (ENOBUFS)."
        )];
        if let Some(most) = users.first() {
            let names: Vec<String> = users.iter().map(named).collect();
            why.push(format!(
                "The biggest users: {}.{}",
                names.join(", "),
                if most.entries > bound / 2 { " One device alone holds more than half: look for a scan there, or a subnet without routers." } else { "" }
            ));
        }
        let [one, two, three] = thresholds(bound, record.entries);
        let key = format!("net.{family}.neigh.default.gc_thresh");
        Report {
            kind: Kind::NeighbourTableFull,
            subject: family.to_owned(),
            severity: Severity::Critical,
            began_ns: self.first_ns,
            count: self.refused,
            process: None,
            summary,
            why,
            cause: Some(super::neighbours::cause(place.address, Confidence::Certain)),
            caused_by: vec![],
            remedies: vec![
                Remedy::from("in the host's own network namespace: ").and(
                    Command::new("sysctl")
                        .arg("-w")
                        .arg(format!("{key}3={three}"))
                        .arg(format!("{key}2={two}"))
                        .arg(format!("{key}1={one}")),
                ),
                Remedy::from("see who fills it: ").and(Command::new("culprit").words("list neighbours")),
            ],
            evidence: vec![
                (
                    self.first_ns,
                    format!(
                        "no room for {} on {}: {entries} of {bound} entries",
                        place.address,
                        shown(&place.device)
                    ),
                ),
                (self.last_ns, format!("{refused} refused so far")),
            ],
            details: Details::NeighbourTableFull(NeighbourTableFullDetails {
                family: family.to_owned(),
                device: place.device,
                netns: place.netns,
                entries: record.entries,
                gc_entries: entries,
                gc_thresh1: table.map(|table| table.gc_thresh1),
                gc_thresh2: table.map(|table| table.gc_thresh2),
                gc_thresh3: bound,
                refused: self.refused,
                users,
            }),
        }
    }
}

/// `eth0: 900`, `eth0 in blue: 12`.
fn named(user: &NeighbourUser) -> String {
    match &user.netns {
        Some(netns) => format!("{} in {}: {}", shown(&user.device), shown(netns), user.entries),
        None => format!("{}: {}", shown(&user.device), user.entries),
    }
}

/// Thresholds with room for twice of what there is, in the proportions the kernel has by default.
fn thresholds(bound: u32, entries: u32) -> [u32; 3] {
    let three = bound.max(entries).max(1024).saturating_mul(2).checked_next_power_of_two().unwrap_or(1 << 31);
    [three / 8, three / 2, three]
}

#[cfg(test)]
mod tests {
    use ebpf_probes::{abi::Netns, probes::neigh::state::NONE};

    use super::*;
    use crate::{
        known::context::{Context, NeighbourTable, NeighbourUse},
        pipeline::incident::State,
        rules::scene::{Scene, entry},
    };

    fn overflow() -> NeighRecord {
        NeighRecord {
            cause: cause::OVERFLOW,
            entries: 1030,
            gc_entries: 1024,
            gc_thresh3: 1024,
            count: 1,
            ..entry(90, (NONE, 0), (NONE, 0))
        }
    }

    #[test]
    fn a_full_table_names_its_bounds_and_its_biggest_users_and_is_over_when_there_is_room() {
        let mut scene = Scene::new();
        scene.neigh(0, overflow());
        assert_eq!(
            (scene.emitted.len(), &scene.requests[..]),
            (0, &[Request::Tables(Netns::numbered(1))][..])
        );
        let family = || "ipv4".to_owned();
        scene.apply(&Context::Network(Box::new(Network {
            netns: Netns::numbered(1),
            tables: vec![NeighbourTable {
                family: family(),
                entries: 1030,
                gc_thresh1: 128,
                gc_thresh2: 512,
                gc_thresh3: 1024,
            }],
            users: vec![NeighbourUse {
                family: family(),
                netns: Netns::numbered(1),
                device: "eth0".into(),
                entries: 1000,
            }],
            ..Network::default()
        })));
        let opened = scene.opened(Kind::NeighbourTableFull);
        assert_eq!(opened.len(), 1);
        let Details::NeighbourTableFull(details) = &opened[0].details else { panic!("{:?}", opened[0]) };
        assert_eq!(
            (details.gc_thresh1, details.gc_thresh3, details.users[0].entries),
            (Some(128), 1024, 1000)
        );
        assert!(opened[0].why[1].contains("eth0: 1000"), "{:?}", opened[0].why);
        scene.neigh(1000, overflow());
        scene.passes(1000, 40_000);
        assert_eq!((scene.last().state, scene.last().count), (State::Resolved, 2));
    }

    #[test]
    fn a_full_table_that_could_not_be_read_is_reported_all_the_same() {
        let mut scene = Scene::new();
        scene.neigh(0, overflow());
        scene.tick(250);
        assert_eq!(scene.opened(Kind::NeighbourTableFull).len(), 1);
    }

    #[test]
    fn thresholds_have_room_for_twice_as_many() {
        assert_eq!(thresholds(1024, 1024), [256, 1024, 2048]);
        assert_eq!(thresholds(16, 20), [256, 1024, 2048]);
        assert_eq!(thresholds(u32::MAX, 0)[2], 1 << 31);
    }
}
