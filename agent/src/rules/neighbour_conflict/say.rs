//! What is said about an address that is claimed by more than one MAC.

use super::{Contested, End, Key, Pattern, bytes};
use crate::{
    pipeline::{
        View,
        incident::{
            ClaimedMac, Confidence, Details, Kind, NeighbourConflictDetails, NeighbourPlace, Severity,
        },
        remedy::Remedy,
        report::Report,
    },
    records,
    rules::{
        neighbours::{self, on, resolution, within},
        text::{self, duration},
    },
    text::{shell::Command, shown},
    time::MINUTE_NS,
};

/// Virtual routers (VRRP, RFC 5798 §7.3) have MACs that begin so.
const VRRP: [&str; 2] = ["00:00:5e:00:01:", "00:00:5e:00:02:"];

impl Contested {
    /// The MACs, the one seen last first.
    fn macs(&self, now_ns: u64, view: &View<'_>) -> Vec<ClaimedMac> {
        let mut macs: Vec<ClaimedMac> = Vec::new();
        for (at, mac) in self.shown().iter().rev() {
            match macs.iter_mut().find(|known| known.mac == *mac) {
                Some(known) => known.claims += 1,
                None => macs.push(ClaimedMac {
                    mac: mac.clone(),
                    claims: 1,
                    last_claim_ms: now_ns.saturating_sub(*at) / 1_000_000,
                    device: None,
                    netns: None,
                    other_addresses: vec![],
                }),
            }
        }
        for claimed in &mut macs {
            self.whose(claimed, view);
        }
        macs
    }

    /// Whose device it is, as far as this machine knows: one of its own, or a neighbour's by another address.
    fn whose(&self, claimed: &mut ClaimedMac, view: &View<'_>) {
        let Some(holders) = &self.holders else { return };
        let Some(wanted) = bytes(&claimed.mac) else { return };
        if let Some(holder) = holders.devices.iter().find(|holder| holder.mac == wanted) {
            claimed.device = Some(holder.device.clone());
            claimed.netns = view.world.known.namespace(holder.netns);
        }
        let at = holders.others.iter().filter(|other| other.mac == wanted);
        claimed.other_addresses = at.map(|other| records::address(other.address)).collect();
    }

    pub(super) fn report(&self, key: &Key, now_ns: u64, end: Option<End>, view: &View<'_>) -> Report {
        let mut place = neighbours::place(key, &self.device, view.world);
        place.is_gateway = view.world.gateway(key.0, &place.device, place.address).is_some();
        let pattern = self.said.unwrap_or(Pattern::Alternating);
        let macs = self.macs(now_ns, view);
        let names: Vec<&str> = macs.iter().map(|claimed| claimed.mac.as_str()).collect();
        let summary = self.summary(pattern, &place, &names, now_ns, end);
        let mut why = why(pattern, &place, &names);
        why.extend(macs.iter().filter_map(known));
        let remedies = remedies(pattern, &place, &names);
        let confidence = match pattern {
            Pattern::TwoMachines | Pattern::Simultaneous => Confidence::Certain,
            Pattern::Alternating => Confidence::Likely,
        };
        Report {
            kind: Kind::NeighbourConflict,
            subject: neighbours::subject(key, &place.device),
            severity: if place.is_gateway { Severity::Critical } else { Severity::Warning },
            began_ns: self.began_ns,
            count: self.total.max(1),
            process: None,
            summary,
            why,
            cause: Some(neighbours::cause(place.address, confidence)),
            caused_by: vec![],
            remedies,
            evidence: self.evidence(&place),
            details: Details::NeighbourConflict(NeighbourConflictDetails {
                changes: self.counted() as u32,
                pattern,
                resets: self.resets,
                neighbour: place,
                macs,
            }),
        }
    }

    fn summary(
        &self,
        pattern: Pattern,
        place: &NeighbourPlace,
        names: &[&str],
        now_ns: u64,
        end: Option<End>,
    ) -> String {
        let where_ = on(place);
        let what = if place.is_gateway {
            format!("the default gateway {}", place.address)
        } else {
            place.address.to_string()
        };
        let both = names.join(" and ");
        match end {
            Some(End::Quiet) => {
                return format!(
                    "No machine contests {what} {where_} any more: its entry has not moved for {}.",
                    match self.quiet_ns() {
                        ns if ns < 2 * MINUTE_NS => "a minute".to_owned(),
                        ns => duration(ns),
                    }
                );
            }
            Some(End::Together) => {
                return format!(
                    "{both} belong to one machine, or to one way to it: they do not contest {what} {where_}."
                );
            }
            None => {}
        }
        let lasted = duration(now_ns.saturating_sub(self.began_ns));
        let changes = text::count(self.counted(), "time", "times");
        match (pattern, &self.reset) {
            (Pattern::TwoMachines, Some((_, reset))) => {
                let (cached, other) = (
                    crate::domains::neighbour::mac(&reset.cached_mac, 6).unwrap_or_default(),
                    crate::domains::neighbour::mac(&reset.seen_mac, 6).unwrap_or_default(),
                );
                let port = reset.tuple.local_port;
                format!(
                    "Two machines have {what} {where_}: {cached} resets the connections to port {port} that {other} asks for."
                )
            }
            (Pattern::Alternating, _) => {
                format!("{what} flaps {where_}: it moved {changes} between {both} within {lasted}.")
            }
            _ => {
                format!("{both} claim {what} {where_} at once: it changed hands {changes} within {lasted}.")
            }
        }
    }

    fn evidence(&self, place: &NeighbourPlace) -> Vec<(u64, String)> {
        let address = place.address;
        let mut evidence: Vec<(u64, String)> = self
            .shown()
            .windows(2)
            .map(|pair| {
                (pair[1].0, format!("{address} is claimed by {} instead of {}", pair[1].1, pair[0].1))
            })
            .collect();
        if let Some((at, reset)) = &self.reset {
            let port = reset.tuple.remote_port;
            let times = text::times(self.resets.into());
            evidence.push((
                *at,
                format!("a connection from port {port} is asked for again although the cached MAC had reset it ({times} so far)"),
            ));
        }
        evidence
    }
}

/// What is known of a MAC, as a sentence.
fn known(claimed: &ClaimedMac) -> Option<String> {
    let mac = &claimed.mac;
    let also: Vec<String> = claimed.other_addresses.iter().map(ToString::to_string).collect();
    let device = claimed.device.as_ref().map(|device| match &claimed.netns {
        Some(netns) => {
            format!("{mac} is {} of this machine's network namespace {}", shown(device), shown(netns))
        }
        None => format!("{mac} is this host's own {}", shown(device)),
    });
    match (device, also.is_empty()) {
        (Some(device), _) => Some(format!("{device}.")),
        (None, false) => Some(format!("{mac} is the machine that also has {}.", also.join(", "))),
        (None, true) => None,
    }
}

fn why(pattern: Pattern, place: &NeighbourPlace, names: &[&str]) -> Vec<String> {
    let how = resolution(place.address);
    let mut why = vec![match pattern {
        Pattern::TwoMachines => "The machine that resets a connection never asked for it, and the one that asks again never got an answer: these are two machines with one address, and this host answers the wrong one.".to_owned(),
        Pattern::Simultaneous => format!(
            "Both answer {how} for it within a second, so this host's packets go now to one, now to the other. Two machines have the address, and connections hang and are reset; or one machine has two devices on this link and answers by both; or a balancer's real server answers for the balancer's address (LVS-DR)."
        ),
        Pattern::Alternating => format!(
            "They announce it by {how} in turn, seconds or minutes apart: one machine whose devices or links take turns (a bond, a failover pair), or two machines that both believe they own it. Each move sends this host's packets elsewhere."
        ),
    }];
    if names.iter().any(|name| VRRP.iter().any(|prefix| name.starts_with(prefix))) {
        why.push("One of them is a virtual router's (VRRP): two masters, which do not hear each other's advertisements.".to_owned());
    }
    why
}

fn remedies(pattern: Pattern, place: &NeighbourPlace, names: &[&str]) -> Vec<Remedy> {
    let (address, device) = (place.address, &place.device);
    let here = |command: Command| within(place.netns.as_deref(), None, command);
    let found = names.iter().fold(Command::new("grep"), |grep, mac| grep.arg("-e").arg(mac));
    let find = |words: &str| {
        Remedy::from(words).and(Command::new("bridge").words("fdb show")).and(" | ").and(found.clone())
    };
    let mut remedies = match pattern {
        Pattern::TwoMachines => {
            vec![find("find the two machines by their MACs, and take the address from one: ")]
        }
        Pattern::Simultaneous => vec![
            find("find out whose MACs these are: "),
            Remedy::from("two machines: take the address from one"),
        ],
        Pattern::Alternating => vec![
            find("find out whose MACs these are: "),
            Remedy::from(
                "one machine: look at its links (a bond: /proc/net/bonding), and at what makes them take turns",
            ),
            Remedy::from(
                "two machines (keepalived, kube-vip, Pacemaker): let them hear each other, so that one gives way",
            ),
        ],
    };
    if pattern == Pattern::Simultaneous && address.is_ipv4() {
        let set = Command::new("sysctl")
            .words("-w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
        let whom = "one machine with two devices on this link, or a real server behind a balancer: there, ";
        remedies.push(Remedy::from(whom).and(set));
    }
    if address.is_ipv4() {
        let probe = Command::new("arping").words("-D -c 3 -I").arg(device).arg(address);
        remedies.push(Remedy::from("see who answers: ").and(here(probe)));
    }
    let hold = Command::new("ip").words("neigh replace").arg(address).words("lladdr MAC dev");
    remedies.push(
        Remedy::from("until then hold on to the right one: ")
            .and(here(hold.arg(device).words("nud permanent"))),
    );
    remedies
}
