//! What the rules about neighbours share: which one, what `ip` calls it, and what it explains.

use std::net::IpAddr;

use ebpf_probes::{
    abi::Netns,
    probes::connect::{Connect, place},
};

use crate::{
    domains::neighbour::{SilentNeighbour, Turn},
    fact::Endpoint,
    pipeline::world::World,
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, NeighbourPlace},
        remedy::Remedy,
    },
    records,
    text::{shell::Command, shown},
};

use super::text;

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
/// the namespace that forwards its packets (a pod's node).
pub(super) fn explaining(connect: &Connect, view: &View<'_>) -> Vec<String> {
    let mut ids = Vec::new();
    for (netns, address) in view.world.neighbours_on_the_way(connect, view.now_ns) {
        for kind in [Kind::NeighbourUnresolved, Kind::NeighbourStale, Kind::NeighbourConflict] {
            ids.extend(
                view.store.live_ids(kind, &about(netns, records::address(address))).map(str::to_owned),
            );
        }
    }
    // Another host may have the destination's address, where the destination is this machine's own.
    let remote = records::address(connect.tuple.remote);
    ids.extend(view.store.live(Kind::AddressConflict).filter_map(|(id, details)| match details {
        Details::AddressConflict(conflict) if conflict.address == remote => Some(id.to_owned()),
        _ => None,
    }));
    // Its packets may have come to a tunnel's end in frames for another MAC.
    let lost = view.world.domains.connect.lost_packet(connect);
    if let Some(lost) = lost.filter(|lost| lost.at & place::TUNNEL != 0) {
        let about = about(lost.netns, records::address(lost.holder));
        ids.extend(view.store.live_ids(Kind::NeighbourStale, &about).map(str::to_owned));
    }
    // On one machine both ends may be ours: the other one's entry for this end is what is wrong.
    let own = records::address(connect.tuple.local);
    ids.extend(view.store.live(Kind::NeighbourStale).filter_map(|(id, details)| match details {
        Details::NeighbourStale(stale)
            if stale.neighbour.address == own && stale.ports.contains(&connect.tuple.remote_port) =>
        {
            Some(id.to_owned())
        }
        _ => None,
    }));
    ids.dedup();
    ids
}

/// What became of the entry of the neighbour a connect goes by, shortly before it began or while it lasts.
pub(super) struct Past {
    /// When and what, for the evidence.
    pub(super) seen: (u64, String),
    /// What that may mean. It is no proof.
    pub(super) why: String,
    /// What to do.
    pub(super) remedy: Remedy,
}

/// A change that long ago is no news.
const PAST_NS: u64 = 120_000_000_000;

/// See [`Past`]; `began_ns`: when it first went wrong.
pub(super) fn past(connect: &Connect, began_ns: u64, view: &View<'_>) -> Option<Past> {
    let (address, biography) = view.world.biography(connect)?;
    let at = biography.at_ns;
    if at.saturating_add(PAST_NS) < began_ns || at > view.now_ns {
        return None;
    }
    let device = &biography.device;
    let by = match view.world.known.named(&biography.owner) {
        Some(who) => format!(" by {}", text::process(&who)),
        None => " by a packet".to_owned(),
    };
    let when = if at <= began_ns {
        format!("{} before", text::duration(began_ns - at))
    } else {
        format!("{} after it began", text::duration(at - began_ns))
    };
    let entry = format!("the entry of {address} on {}", shown(device));
    let (seen, why) = match &biography.what {
        Turn::Moved { from, to } => (
            format!("{entry} moved from {from} to {to}{by}"),
            format!("{entry} moved from {from} to {to} {when}{by}: does {to} have the address and serve it?"),
        ),
        Turn::SetPermanent { to } => (
            format!("{entry} was set PERMANENT at {to}{by}"),
            format!("{entry} was set PERMANENT at {to} {when}{by}: is that still its MAC?"),
        ),
        Turn::Removed { from } => (
            format!("{entry} was removed{by}; it was at {from}"),
            format!("{entry}, at {from}, was removed {when}{by}."),
        ),
    };
    let ask = Command::new("ip").words("neigh del").arg(address).arg("dev").arg(device);
    let why = format!("{}{}", why[..1].to_uppercase(), &why[1..]);
    Some(Past {
        seen: (at, seen),
        why,
        remedy: Remedy::from("have the neighbour asked for again: ").and(beside(connect, view.world, ask)),
    })
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

/// Which of those explain a connect that was answered: not that the neighbour says nothing.
pub(super) fn answering(explained_by: Vec<String>, view: &View<'_>) -> Vec<String> {
    let answers = |id: &String| view.store.kind(id) != Some(Kind::NeighbourUnresolved);
    explained_by.into_iter().filter(answers).collect()
}

/// What to do about what explains a connect: the first remedy of each incident.
pub(super) fn remedies(explained_by: &[String], view: &View<'_>) -> Vec<Remedy> {
    explained_by.iter().filter_map(|id| view.store.remedy(id)).cloned().collect()
}
