//! What is said about an address of this host that another one has.

use std::net::IpAddr;

use super::{Claimant, Contested, End, Key};
use crate::{
    domains::neighbour::mac,
    known::context::{Claim, ListensAt},
    pipeline::{
        View,
        incident::{
            AddressClaimant, AddressConflictDetails, AddressListener, Confidence, Details, Kind,
            NeighbourPlace, Severity,
        },
        remedy::Remedy,
        report::Report,
    },
    rules::{
        neighbours::{self, on, within},
        text,
    },
    text::{shell::Command, shown},
};

/// Ethernet addresses have as many bytes.
const ETH_ALEN: u16 = 6;
/// Virtual routers (VRRP, RFC 9568 §7.3) have MACs that begin so.
const VRRP: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];
/// Processes named in a sentence at most.
const NAMED: usize = 3;

fn written(bytes: &[u8; 8]) -> String {
    mac(bytes, ETH_ALEN).unwrap_or_default()
}

impl Contested {
    pub(super) fn report(&self, key: &Key, now_ns: u64, end: Option<End>, view: &View<'_>) -> Report {
        let place = neighbours::place(key, &self.device, view.world);
        let others = self.others(key);
        let (address, own) = (place.address, written(&self.mac));
        let began_ns = self.began_ns(key).min(now_ns);
        Report {
            kind: Kind::AddressConflict,
            subject: neighbours::subject(key, &place.device),
            severity: Severity::Warning,
            began_ns,
            count: self.claims().max(1),
            process: None,
            summary: self.summary(&place, &others, end),
            why: self.why(&place, &others),
            cause: Some(neighbours::cause(address, self.confidence(&others))),
            caused_by: vec![],
            remedies: self.remedies(&place, &others),
            evidence: self.evidence(key, &place),
            details: Details::AddressConflict(AddressConflictDetails {
                address,
                device: place.device.clone(),
                netns: place.netns.clone(),
                own_mac: own,
                dad_failed: self.dad_failed.is_some(),
                conflict_ms: now_ns.saturating_sub(began_ns) / 1_000_000,
                claimed_by: others.iter().map(|other| claimant(other, now_ns, view)).collect(),
                listeners: self
                    .listeners
                    .iter()
                    .map(|ListensAt { pid, comm, port, bound }| AddressListener {
                        pid: *pid,
                        comm: comm.clone(),
                        port: *port,
                        bound: *bound,
                    })
                    .collect(),
            }),
        }
    }

    /// Those who claim it, the one heard last first; of an address that was refused all of them.
    fn others<'a>(&'a self, key: &Key) -> Vec<&'a Claimant> {
        let mut others: Vec<&Claimant> = match self.dad_failed {
            Some(_) => self.claimants.iter().collect(),
            None => self.foreign(key).collect(),
        };
        others.sort_by_key(|claimant| (std::cmp::Reverse(claimant.last_ns), claimant.mac));
        others
    }

    /// The kernel itself refuses it, or it was claimed again and again: one packet may have been on its way for long.
    fn confidence(&self, others: &[&Claimant]) -> Confidence {
        let again = |other: &&Claimant| other.claims > 1 || other.holder.is_some();
        match self.dad_failed.is_some() || others.iter().any(again) {
            true => Confidence::Certain,
            false => Confidence::Likely,
        }
    }

    fn summary(&self, place: &NeighbourPlace, others: &[&Claimant], end: Option<End>) -> String {
        let (address, where_) = (place.address, on(place));
        match end {
            Some(End::Quiet) => {
                return format!("No other host claims {address} {where_} any more.");
            }
            Some(End::Gone) => return format!("This host no longer has {address} {where_}."),
            Some(End::Usable) => return format!("{address} {where_} can be used: no other host has it."),
            Some(End::Ours) => {
                return format!(
                    "The other MAC for {address} {where_} is a device of this host: it is not contested."
                );
            }
            Some(End::LetGo) => {
                return format!(
                    "The other network namespace of this machine has {address} no more: it is not contested {where_}."
                );
            }
            None => {}
        }
        let names: Vec<String> = others.iter().map(|other| written(&other.mac)).collect();
        let own = written(&self.mac);
        if self.dad_failed.is_some() {
            let whose = if names.is_empty() {
                "another host has it".to_owned()
            } else {
                format!("{} has it", names.join(" and "))
            };
            return format!(
                "This host ({own}) cannot use its address {address} {where_}: {whose}, as duplicate address detection found."
            );
        }
        format!(
            "{} claims {address}, which is this host's own {where_} ({own}): packets of its peers go to the other one.",
            names.join(" and ")
        )
    }

    fn why(&self, place: &NeighbourPlace, others: &[&Claimant]) -> Vec<String> {
        let address = place.address;
        let mut why = Vec::new();
        let listeners = named(&self.listeners, self.dad_failed.is_some());
        if self.dad_failed.is_some() {
            why.push(format!(
                "The address is there and does not work (dadfailed): bind() to {address} fails with EADDRNOTAVAIL, so that a service configured for it does not start, and who connects to it reaches the other host. The kernel does not try again by itself."
            ));
            if let Some(listeners) = listeners {
                why.push(format!("{listeners} all the same: no connection reaches it there."));
            }
        } else {
            why.push(
                "Peers keep whichever announcement they heard last: new connections reach the other host, which refuses or resets them; established ones hang. Nothing on this host shows it.".to_owned(),
            );
            if let Some(listeners) = listeners {
                why.push(format!("{listeners} and loses connections to the other host."));
            }
        }
        for other in others {
            let mac = written(&other.mac);
            match &other.holder {
                Some(holder) => why.push(format!(
                    "{mac} is {} of another network namespace of this machine{}.",
                    shown(&holder.device),
                    if holder.has_address {
                        ", which has the address as well"
                    } else {
                        ", which answers for it"
                    }
                )),
                None if !other.other_addresses.is_empty() => {
                    let also: Vec<String> = other.other_addresses.iter().map(ToString::to_string).collect();
                    why.push(format!("{mac} is the machine that also has {}.", also.join(", ")));
                }
                None => {}
            }
            if VRRP.iter().any(|prefix| other.mac.starts_with(prefix)) {
                why.push(format!(
                    "{mac} is a virtual router's (VRRP): two masters, which do not hear each other's advertisements."
                ));
            }
        }
        why
    }

    fn remedies(&self, place: &NeighbourPlace, others: &[&Claimant]) -> Vec<Remedy> {
        let (address, device) = (place.address, &place.device);
        let here = |command: Command| within(place.netns.as_deref(), None, command);
        let with_prefix = format!("{address}/{}", self.prefix);
        let mut remedies = Vec::new();
        if let Some(first) = others.first() {
            let names = others.iter().map(|other| written(&other.mac));
            let find = names.fold(Command::new("grep"), |grep, mac| grep.arg("-e").arg(mac));
            let whose = match first.holder {
                Some(_) => {
                    "take the address from the other network namespace, or give this one another; its MAC: "
                }
                None => {
                    "find the other machine by its MAC (a clone, a static address inside a DHCP range, a second master) and take the address from it: "
                }
            };
            remedies
                .push(Remedy::from(whose).and(Command::new("bridge").words("fdb show")).and(" | ").and(find));
        } else {
            remedies.push(Remedy::from(format!(
                "find the other host that has {address}, and take it from that host"
            )));
        }
        if self.dad_failed.is_some() {
            let change = |verb: &'static str| {
                here(Command::new("ip").words("-6 addr").arg(verb).arg(&with_prefix).arg("dev").arg(device))
            };
            remedies.push(
                Remedy::from(
                    "or give this host another address; once no other has it, have it checked again: ",
                )
                .and(change("del"))
                .and(" && ")
                .and(change("add")),
            );
        } else if address.is_ipv4() {
            let ask = Command::new("arping").words("-D -c 3 -I").arg(device).arg(address);
            remedies.push(Remedy::from("see who else answers: ").and(here(ask)));
            let announce = Command::new("arping").words("-U -c 3 -I").arg(device).arg(address);
            remedies.push(Remedy::from("then announce it again: ").and(here(announce)));
        }
        remedies
    }

    fn evidence(&self, key: &Key, place: &NeighbourPlace) -> Vec<(u64, String)> {
        let address = place.address;
        let mut evidence = Vec::new();
        for other in self.others(key) {
            let mac = written(&other.mac);
            evidence.push((other.first_ns, format!("{mac} {}", says(other.how, address))));
            if other.claims > 1 {
                let times = text::times(other.claims);
                evidence.push((other.last_ns, format!("{mac} has claimed {address} {times} so far")));
            }
        }
        if let Some((since_ns, _)) = self.dad_failed {
            evidence.push((since_ns, format!("duplicate address detection for {address} failed")));
        }
        evidence
    }
}

fn says(how: Claim, address: IpAddr) -> String {
    match how {
        Claim::Announcement => format!("announces {address} (gratuitous ARP)"),
        Claim::Question => format!("asks for a neighbour from {address}"),
        Claim::Answer => format!("answers for {address}"),
        Claim::Advertisement => format!("announces {address} (neighbour advertisement)"),
        Claim::Defence => format!("defends {address} against this host's question whether it is free"),
    }
}

fn claimant(other: &Claimant, now_ns: u64, view: &View<'_>) -> AddressClaimant {
    let holder = other.holder.as_ref();
    AddressClaimant {
        mac: written(&other.mac),
        claims: other.claims,
        last_claim_ms: now_ns.saturating_sub(other.last_ns) / 1_000_000,
        claimed_from: holder.map(|holder| holder.device.clone()),
        claimed_from_netns: holder.and_then(|holder| view.world.known.namespace(holder.netns)),
        other_addresses: other.other_addresses.clone(),
    }
}

/// `nginx[17] listens there on port 443`; where `bound`, only those at this very address.
fn named(listeners: &[ListensAt], bound: bool) -> Option<String> {
    let who: Vec<&ListensAt> = listeners.iter().filter(|one| one.bound || !bound).collect();
    let names: Vec<String> = who
        .iter()
        .take(NAMED)
        .map(|one| format!("{}[{}] listens there on port {}", shown(&one.comm), one.pid, one.port))
        .collect();
    let more = who.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    (!names.is_empty()).then(|| format!("{}{more}", names.join(", ")))
}
