//! What the rules about neighbours share: which one, what `ip` calls it, and what it explains.

use std::net::IpAddr;

use ebpf_probes::{
    abi::Netns,
    probes::connect::{Connect, place},
};

use crate::{
    domains::neighbour::{Biography, Hop, SilentNeighbour, Turn, mac},
    fact::Endpoint,
    known::context::Answered,
    pipeline::world::World,
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, NeighbourPlace},
        remedy::Remedy,
    },
    records,
    text::{shell::Command, shown},
};

/// Incidents that explain another, at most.
const EXPLAINED: usize = 16;

/// A neighbour: network namespace, index of the device, address.
pub(super) type Key = (Netns, u32, [u8; 16]);

/// `ARP` or `NDP`.
pub(super) fn resolution(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ARP" } else { "NDP" }
}

/// Which neighbour that is. `device` names it where the world does not know it.
pub(super) fn place(key: &Key, device: &str, world: &World) -> NeighbourPlace {
    let (netns, ifindex, address) = *key;
    let address = records::address(address);
    let device = if device.is_empty() {
        world.known.device_at(netns, ifindex).unwrap_or_else(|| format!("if{ifindex}"))
    } else {
        device.to_owned()
    };
    NeighbourPlace {
        address,
        device,
        netns: world.known.namespace(netns),
        resolution: resolution(address).to_lowercase(),
        is_gateway: false,
    }
}

/// ` on eth0`, ` on eth0 in netns blue`.
pub(super) fn on(place: &NeighbourPlace) -> String {
    match &place.netns {
        Some(netns) => format!("on {} in network namespace {}", shown(&place.device), shown(netns)),
        None => format!("on {}", shown(&place.device)),
    }
}

/// A command in a network namespace: by its name, or by way of a process that lives there.
pub(super) fn within(netns: Option<&str>, process: Option<u32>, command: Command) -> Remedy {
    let Some(netns) = netns else { return command.into() };
    match (netns.starts_with("net:["), process) {
        (false, _) if command.argv().first().is_some_and(|program| program == "ip") => {
            let args = command.argv().iter().skip(1).cloned();
            Command::new("ip").arg("-n").arg(netns).args(args).into()
        }
        (false, _) => command.by(Command::new("ip").words("netns exec").arg(netns)).into(),
        (true, Some(process)) => {
            command.by(Command::new("nsenter").arg(format!("--net=/proc/{process}/ns/net"))).into()
        }
        (true, None) => Remedy::from(format!("(in {}) ", shown(netns))).and(command),
    }
}

/// A command that is to run where a connect was made.
pub(super) fn beside(connect: &Connect, world: &World, command: Command) -> Remedy {
    let netns = world.known.namespace(connect.owner.netns);
    let process = Some(connect.owner.process).filter(|process| *process != 0);
    within(netns.as_deref(), process, command)
}

/// What to do about a next hop that does not answer.
pub(super) fn silent(ip: IpAddr, silent: &SilentNeighbour, world: &World) -> Remedy {
    let entries = Command::new("ip").words("neigh show").arg(ip).arg("dev").arg(&silent.device);
    let there = within(world.known.namespace(silent.netns).as_deref(), None, entries);
    Remedy::from(format!("is {ip} up and on the link of {}? ", shown(&silent.device))).and(there)
}

/// Who answered when everybody was asked for a neighbour: when, and what that says.
pub(super) fn answered(answered: &Answered, device: &str) -> (u64, String) {
    let address = records::address(answered.address);
    let macs: Vec<String> = answered.macs.iter().filter_map(|one| mac(one, 6)).collect();
    let who = match macs.as_slice() {
        [] => "no answer within a second".to_owned(),
        [one] => format!("{one} answers"),
        many => format!("{} answer", many.join(" and ")),
    };
    let asked = format!("culprit itself asks everybody on {} for {address}", shown(device));
    (answered.boot_ns, format!("{asked}: {who}"))
}

/// A neighbour as a cause.
pub(super) fn cause(address: IpAddr, confidence: Confidence) -> Cause {
    Cause {
        kind: CauseKind::Neighbour,
        confidence,
        destination: Some(Endpoint { ip: address, port: 0, name: None, wire: None }),
        ..Cause::default()
    }
}

/// What incidents about a neighbour are about: their subjects begin with it.
pub(super) fn subject(key: &Key, device: &str) -> String {
    format!("{}{device}", about(key.0, records::address(key.2)))
}

fn about(netns: Netns, address: IpAddr) -> String {
    format!("{netns}|{address}|")
}

/// Ids of open incidents about the neighbours a connect goes by: its destination, the next hop, and the next hop of
/// the namespace that forwards its packets (a pod's node). The same address may be another neighbour's in another
/// namespace, or behind another device: what is not known to be this one explains nothing.
pub(super) fn explaining(connect: &Connect, view: &View<'_>) -> Vec<String> {
    let mut ids = Vec::new();
    for hop in view.world.neighbours_on_the_way(connect, view.now_ns) {
        for kind in [Kind::NeighbourUnresolved, Kind::NeighbourStale, Kind::NeighbourConflict] {
            ids.extend(about_hop(kind, &hop, view));
        }
    }
    ids.extend(contested(connect, view));
    // Its packets may have come to a tunnel's end in frames for another MAC.
    let lost = view.world.domains.connect.lost_packet(connect);
    if let Some(lost) = lost.filter(|lost| lost.at & place::TUNNEL != 0) {
        let about = about(lost.netns, records::address(lost.holder));
        let about = format!("{about}{}", records::comm(&lost.device));
        ids.extend(view.store.live_about(Kind::NeighbourStale, &about).map(str::to_owned));
    }
    // On one machine both ends may be ours: the other one's entry for this end is what is wrong.
    if let Some(hop) = view.world.neighbour_back(connect) {
        ids.extend(about_hop(Kind::NeighbourStale, &hop, view));
    }
    ids.dedup();
    ids
}

/// Ids of open incidents of this kind about this neighbour.
fn about_hop(kind: Kind, hop: &Hop, view: &View<'_>) -> Vec<String> {
    let about = about(hop.netns, records::address(hop.address));
    match (hop.ifindex != 0).then(|| view.world.known.device_at(hop.netns, hop.ifindex)).flatten() {
        Some(device) => view.store.live_about(kind, &format!("{about}{device}")).map(str::to_owned).collect(),
        None => view.store.live_ids(kind, &about).map(str::to_owned).collect(),
    }
}

/// Ids of open incidents about an address of this host that another one has as well: the one the connect is made from, to
/// which the answers go; or the one it goes to, where the entry for it has come to hold the other host's MAC.
fn contested(connect: &Connect, view: &View<'_>) -> Vec<String> {
    let (netns, way) = (connect.owner.netns, connect.way());
    let own = about(netns, records::address(way.local));
    let mut ids: Vec<String> = view.store.live_ids(Kind::AddressConflict, &own).map(str::to_owned).collect();
    let Some((address, Biography { change: Some(change), .. })) = view.world.biography(connect, view.now_ns)
    else {
        return ids;
    };
    if let Turn::Moved { from, to } = &change.what {
        ids.extend(view.store.live(Kind::AddressConflict).filter_map(|(id, details)| match details {
            Details::AddressConflict(conflict)
                if conflict.address == address
                    && conflict.own_mac == *from
                    && conflict.claimed_by.iter().any(|other| other.mac == *to) =>
            {
                Some(id.to_owned())
            }
            _ => None,
        }));
    }
    ids
}

/// Adds what explains a situation to what is known to explain it: what once did still does when it is over.
pub(super) fn merge(known: &mut Vec<String>, more: Vec<String>) {
    for id in more {
        if known.len() < EXPLAINED && !known.contains(&id) {
            known.push(id);
        }
    }
}

/// Why a connect gets nowhere when incidents about neighbours explain it.
pub(super) fn why(explained_by: &[String], view: &View<'_>) -> &'static str {
    match explained_by.iter().find_map(|id| view.store.kind(id)) {
        Some(Kind::NeighbourUnresolved) => {
            "A neighbour on the way does not answer ARP or NDP: no packet leaves for it."
        }
        Some(Kind::NeighbourStale) => {
            "Packets go to a MAC that is no longer the neighbour's: nothing is wrong with either end."
        }
        Some(Kind::NeighbourConflict) => {
            "Two MACs claim an address on the way: packets go now to one of them, now to the other."
        }
        Some(Kind::AddressConflict) => {
            "Another host claims the address as well: packets go now to one of them, now to the other."
        }
        _ => "A neighbour on the way does not answer, or is not where this host believes.",
    }
}

/// How sure it is that incidents about neighbours explain a connect: who claims an address need not get its packets.
pub(super) fn confidence(explained_by: &[String], view: &View<'_>) -> Confidence {
    let is_contested = !explained_by.is_empty() && says_nothing_of_entries(explained_by, view);
    if is_contested { Confidence::Likely } else { Confidence::Certain }
}

/// Nothing that explains a connect says what became of its neighbour's entry.
pub(super) fn says_nothing_of_entries(explained_by: &[String], view: &View<'_>) -> bool {
    explained_by.iter().all(|id| view.store.kind(id) == Some(Kind::AddressConflict))
}

/// Which of those explain a connect that was answered: not that the neighbour says nothing.
pub(super) fn answering(explained_by: Vec<String>, view: &View<'_>) -> Vec<String> {
    let answers = |id: &String| view.store.kind(id) != Some(Kind::NeighbourUnresolved);
    explained_by.into_iter().filter(answers).collect()
}

/// What to do about what explains a connect: the first remedy of each incident.
pub(super) fn remedies(explained_by: &[String], view: &View<'_>) -> Vec<Remedy> {
    explained_by.iter().filter_map(|id| view.store.remedy(id)).cloned().collect()
}
