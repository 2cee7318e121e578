//! What is said about a neighbour that does not answer.

use ebpf_probes::{
    abi::{IPPROTO_TCP, IPPROTO_UDP, Owner},
    probes::neigh::flag,
};

use super::{End, Reason, Unanswered, Waiter, Withdrawn};
use crate::{
    domains::{
        connect::{Outcome, outcome},
        neighbour::mac,
    },
    known::context::{Kinship, Stacked},
    pipeline::{
        View,
        incident::{
            Cause, Confidence, Details, Kind, NeighbourPlace, NeighbourUnresolvedDetails, NeighbourWaiter,
            Severity,
        },
        remedy::Remedy,
        report::Report,
    },
    rules::{
        neighbours::{self, Key, on, within},
        text::{self, duration},
    },
    text::{shell::Command, shown},
};

/// Ethernet addresses have as many bytes.
const ETH_ALEN: u16 = 6;

impl Unanswered {
    pub(super) fn report(&self, key: &Key, now_ns: u64, end: Option<End<'_>>, view: &View<'_>) -> Report {
        let mut place = neighbours::place(key, &self.device, view.world);
        place.is_gateway = view.world.gateway(key.0, &place.device, place.address).is_some();
        // Those that were given up soon are no one's trouble: they come last.
        let (soon, earnest): (Vec<_>, Vec<_>) = self.waiters.iter().partition(|waiter| waiter.gave_up_soon());
        let waiters: Vec<NeighbourWaiter> =
            earnest.into_iter().chain(soon).map(|waiter| waiter.shown(view)).collect();
        let process = waiters.iter().find_map(|waiter| waiter.process.clone());
        let asked_ns = now_ns.saturating_sub(self.since_ns);
        Report {
            kind: Kind::NeighbourUnresolved,
            subject: self.subject(key),
            severity: match self.reason() {
                None | Some(Reason::Withdrawn(_)) if place.is_gateway => Severity::Critical,
                _ => Severity::Warning,
            },
            began_ns: self.since_ns,
            count: self.failures.max(1),
            summary: self.summary(&place, &waiters, now_ns, end, view),
            why: self.why(&place, now_ns, view),
            cause: Some(Cause {
                outcome: Some(match end {
                    None if self.failed_ns.is_some() => "failed".to_owned(),
                    None => "pending".to_owned(),
                    Some(End::Answered(_) | End::Found(_)) => "answered".to_owned(),
                    Some(End::Set(_)) => "set".to_owned(),
                    Some(End::Removed(_)) => "removed".to_owned(),
                    Some(End::Quiet) => "idle".to_owned(),
                }),
                elapsed_ms: Some(asked_ns / 1_000_000),
                // That the sender's address is why no answer comes is likely, not more.
                ..neighbours::cause(
                    place.address,
                    match self.reason() {
                        Some(Reason::Foreign(_)) => Confidence::Likely,
                        _ => Confidence::Certain,
                    },
                )
            }),
            caused_by: vec![],
            remedies: self.reason().map_or_else(
                || remedies(&place, process.as_ref().map(|process| process.pid)),
                |reason| reason.remedies(&place, process.as_ref().map(|process| process.pid)),
            ),
            evidence: self.evidence(&place, now_ns, end, view),
            process,
            details: Details::NeighbourUnresolved(NeighbourUnresolvedDetails {
                neighbour: place,
                unresolved_ms: asked_ns / 1_000_000,
                unanswered_probes: self.unanswered,
                last_mac: self.mac.clone(),
                waiters,
                waiters_left_out: self.left_out,
                other_neighbours: self.others,
                removed_by: self.withdrawn.and_then(|was| view.world.known.named(&was.owner)),
            }),
        }
    }

    fn summary(
        &self,
        place: &NeighbourPlace,
        waiters: &[NeighbourWaiter],
        now_ns: u64,
        end: Option<End<'_>>,
        view: &View<'_>,
    ) -> String {
        let asked_ns = now_ns.saturating_sub(self.since_ns);
        let (what, inside) = (name(place, "The"), name(place, "the"));
        let how = neighbours::resolution(place.address);
        let where_ = on(place);
        match end {
            Some(End::Answered(_) | End::Found(_)) => {
                return format!("{what} answers {how} {where_} again, after {}.", duration(asked_ns));
            }
            Some(End::Set(record)) => {
                let mac = mac(&record.new_mac, record.mac_len).unwrap_or_else(|| "no MAC".to_owned());
                let again = if self.withdrawn.is_some() { " again" } else { "" };
                return format!(
                    "The entry of {inside} {where_} was set{again}{}, to {mac}, after {}: {how} had not been answered.",
                    by_hand(record, view),
                    duration(asked_ns)
                );
            }
            Some(End::Removed(_)) => {
                return format!(
                    "The entry of {inside} {where_}, which did not answer {how}, was removed after {}.",
                    duration(asked_ns)
                );
            }
            Some(End::Quiet) => {
                return format!("{what} did not answer {how} {where_}; no process asks for it any more.");
            }
            None => {}
        }
        let others = match self.others {
            0 => String::new(),
            1 => ", nor does one more neighbour there".to_owned(),
            others => format!(", nor do {others} more neighbours there"),
        };
        let reason = self.reason();
        let head = match &reason {
            Some(Reason::Stacked(stacked, netns, device)) => format!(
                "{what} cannot answer {how} {where_}{others}: it is {}, {}",
                own_device(device, *netns, view),
                stacked.because(&place.device)
            ),
            Some(Reason::Foreign(sender)) => format!(
                "{what} does not answer {how} {where_} when asked in the name of {sender}, which is of no network of {}{others}",
                shown(&place.device)
            ),
            Some(Reason::Withdrawn(was)) => format!(
                "The entry of {inside} {where_} was removed{} {} ago and {how} for it gets no answer{others}",
                was.by(view),
                duration(now_ns.saturating_sub(was.at_ns))
            ),
            None => format!("{what} does not answer {how} {where_}{others}"),
        };
        let beyond = place.is_gateway && !matches!(reason, Some(Reason::Foreign(_) | Reason::Stacked(..)));
        format!("{head}: {}.", consequence(waiters, self.left_out, beyond))
    }

    fn why(&self, place: &NeighbourPlace, now_ns: u64, view: &View<'_>) -> Vec<String> {
        let how = neighbours::resolution(place.address);
        let questions = text::count(self.unanswered.into(), "question", "questions");
        let asked = duration(self.last_ns.max(self.since_ns).saturating_sub(self.since_ns));
        let mut why = vec![format!(
            "{questions} in {asked} went unanswered: without a MAC no packet leaves this host, and what waits gets EHOSTUNREACH."
        )];
        match self.reason() {
            Some(Reason::Stacked(stacked, ..)) => {
                why.push(stacked.why());
                return why;
            }
            Some(Reason::Foreign(sender)) => {
                why.push(format!(
                    "The packets that wait come from {sender}, and with arp_announce=0 on {} the questions carry that sender too. Many routers and hosts answer only senders of their own network: with another source address it may answer.",
                    shown(&place.device)
                ));
                return why;
            }
            Some(Reason::Withdrawn(_)) | None => {}
        }
        if let Some(was) = &self.withdrawn {
            let kept = if was.permanent {
                format!(
                    "The entry was PERMANENT: what maintains it{} writes it, and the host there need never answer {how}.",
                    was.by(view)
                )
            } else {
                format!("The entry was removed by hand{}.", was.by(view))
            };
            why.push(kept);
            return why;
        }
        why.push(match (&self.mac, self.known_until_ns) {
            (Some(mac), Some(until)) => format!(
                "Until {} ago it was at {mac}: it has gone down, has left this link, or something between drops {how} since then.",
                duration(now_ns.saturating_sub(until))
            ),
            _ => format!(
                "It has not been heard of since culprit watches: it is down, not on this link, or something between drops {how}."
            ),
        });
        why
    }

    fn evidence(
        &self,
        place: &NeighbourPlace,
        now_ns: u64,
        end: Option<End<'_>>,
        view: &View<'_>,
    ) -> Vec<(u64, String)> {
        let how = neighbours::resolution(place.address);
        let mut seen = vec![(
            self.since_ns,
            format!("{how} question for {} sent on {}", place.address, shown(&place.device)),
        )];
        for waiter in self.waiters.iter().take(6) {
            let shown = waiter.shown(view);
            seen.push((waiter.at_ns, format!("{} waits for it", sentence(&shown))));
            if let Some((connect, at)) = &waiter.ended {
                let became = match outcome(connect).0 {
                    Outcome::Aborted => "was given up".to_owned(),
                    other => format!("failed: {}", other.name().replace('_', " ")),
                };
                seen.push((*at, format!("{} {became}", sentence(&shown))));
            }
        }
        if let Some(was) = &self.withdrawn {
            seen.push((was.at_ns, format!("its entry was removed{}", was.by(view))));
        }
        seen.extend(self.answered.as_ref().map(|answered| neighbours::answered(answered, &place.device)));
        if let Some(at) = self.failed_ns {
            let times =
                if self.failures > 1 { format!(", {} times so far", self.failures) } else { String::new() };
            seen.push((at, format!("the kernel gave up: FAILED{times}")));
        }
        match end {
            Some(End::Answered(record)) => {
                let at = mac(&record.new_mac, record.mac_len).unwrap_or_default();
                seen.push((now_ns, format!("it is at {at}")));
            }
            Some(End::Set(record)) => {
                let at = mac(&record.new_mac, record.mac_len).unwrap_or_default();
                seen.push((now_ns, format!("its entry was set to {at}{}", by_hand(record, view))));
            }
            Some(End::Removed(record)) => {
                let by =
                    if record.flags & flag::BY_HAND != 0 { by_hand(record, view) } else { String::new() };
                seen.push((now_ns, format!("the entry was removed{by}")));
            }
            Some(End::Found(found)) => {
                let at = mac(&found, ETH_ALEN).unwrap_or_default();
                seen.push((now_ns, format!("it is at {at}, says the table, which was read again")));
            }
            Some(End::Quiet) | None => {}
        }
        seen
    }
}

fn by_hand(record: &ebpf_probes::probes::neigh::NeighRecord, view: &View<'_>) -> String {
    view.world
        .known
        .named(&record.owner)
        .map_or_else(String::new, |who| format!(" by {}", text::process(&who)))
}

/// `eth0 of this machine's network namespace blue`.
fn own_device(device: &str, netns: ebpf_probes::abi::Netns, view: &View<'_>) -> String {
    match view.world.known.namespace(netns) {
        Some(name) => format!("{} of this machine's network namespace {}", shown(device), shown(&name)),
        None => format!("this host's own {}", shown(device)),
    }
}

impl Stacked {
    /// Why the device that asks does not hear it.
    fn because(&self, asks: &str) -> String {
        let (kind, asks) = (&self.kind, shown(asks));
        match self.kinship {
            Kinship::Child => format!(
                "a {kind} child of {asks} itself, and a {kind} child and its parent device never hear each other"
            ),
            Kinship::Parent => format!(
                "the parent device of {asks}, which is a {kind}, and a {kind} child and its parent device never hear each other"
            ),
            Kinship::Sibling => format!(
                "a {kind} of the same parent device as {asks}, and in mode {} they do not hear each other",
                self.mode
            ),
        }
    }

    fn why(&self) -> String {
        let kind = &self.kind;
        match (self.kinship, self.mode.as_str()) {
            (Kinship::Sibling, mode) => format!(
                "This is how {kind} in mode {mode} works: what one child sends goes out by the parent's link, not to its siblings. From other machines the address can be reached."
            ),
            (_, "vepa") => format!(
                "This is how {kind} works: what the parent sends goes out by its link, and comes back only from a switch that reflects it (hairpin). From other machines the address can be reached."
            ),
            _ => format!(
                "This is how {kind} works: what the parent sends goes out by its link, not to its children. From other machines the address can be reached; nothing is wrong with it."
            ),
        }
    }
}

impl Reason<'_> {
    fn remedies(&self, place: &NeighbourPlace, process: Option<u32>) -> Vec<Remedy> {
        let (address, device) = (place.address, &place.device);
        let here = |command: Command| within(place.netns.as_deref(), process, command);
        let ip = || Command::new("ip");
        match self {
            Reason::Withdrawn(_) => vec![
                Remedy::from("see that its entry is written again: ")
                    .and(here(ip().words("neigh show").arg(address).arg("dev").arg(device))),
                Remedy::from(format!(
                    "look at the log of whatever keeps the entries of {} (a CNI's or a tunnel's agent)",
                    shown(device)
                )),
            ],
            Reason::Stacked(stacked, ..) if stacked.kinship == Kinship::Child => {
                let (kind, bits) = (&stacked.kind, if address.is_ipv4() { 32 } else { 128 });
                let add = ip().words("link add link").arg(device).arg("name").arg(format!("{kind}0"));
                let route = ip().words("route add").arg(format!("{address}/{bits}")).arg("dev");
                vec![
                    Remedy::from(format!("give this host a {kind} of its own beside it: "))
                        .and(here(add.arg("type").arg(kind).words("mode bridge"))),
                    Remedy::from("and go by that, once it is up: ").and(here(route.arg(format!("{kind}0")))),
                    Remedy::from("or join host and child by a bridge or a veth pair instead"),
                ]
            }
            Reason::Stacked(stacked, ..) if stacked.kinship == Kinship::Sibling => {
                vec![Remedy::from(format!("give both children mode bridge instead of {}", stacked.mode))]
            }
            Reason::Stacked(stacked, ..) => vec![
                Remedy::from(format!(
                    "reach the host by an address of another device, or give it a {} of its own with an address there",
                    stacked.kind
                )),
                Remedy::from("or join host and child by a bridge or a veth pair instead"),
            ],
            Reason::Foreign(sender) => {
                // With slashes, because a device's name may have dots in it.
                let setting = format!("net/ipv4/conf/{device}/arp_announce=2");
                let ask = Command::new("arping").words("-c 3 -I").arg(device).arg(address);
                vec![
                    Remedy::from(format!("ask in the name of an address of {}: ", shown(device)))
                        .and(here(Command::new("sysctl").arg("-w").arg(setting))),
                    Remedy::from("see whether it answers then: ").and(here(ask)),
                    Remedy::from(format!(
                        "or let packets to it leave with a source address of its network instead of {sender}"
                    )),
                ]
            }
        }
    }
}

impl Withdrawn {
    /// ` by felix[812]`, or nothing.
    fn by(&self, view: &View<'_>) -> String {
        view.world
            .known
            .named(&self.owner)
            .map_or_else(String::new, |who| format!(" by {}", text::process(&who)))
    }
}

/// `10.0.1.90`, `The default gateway 10.0.1.1`.
fn name(place: &NeighbourPlace, the: &str) -> String {
    if place.is_gateway {
        format!("{the} default gateway {}", place.address)
    } else {
        place.address.to_string()
    }
}

/// What that means for those who wait.
fn consequence(waiters: &[NeighbourWaiter], left_out: u32, beyond: bool) -> String {
    let Some(first) = waiters.first() else { return "no process is known to wait for it".into() };
    let more = waiters.len() as u64 - 1 + u64::from(left_out);
    let rest = match more {
        0 => String::new(),
        1 => " (and one more)".to_owned(),
        more => format!(" (and {more} more)"),
    };
    let verb = match first.outcome {
        Some(Outcome::Aborted) => "was given up",
        Some(_) => "failed",
        None => "waits for it",
    };
    let beyond = if beyond { "; nothing beyond it can be reached" } else { "" };
    format!("{} {verb}{rest}{beyond}", sentence(first))
}

/// `curl[812]'s connect to 10.0.1.90:5432`.
fn sentence(waiter: &NeighbourWaiter) -> String {
    let to = text::place(&waiter.destination);
    let what = match (waiter.protocol.as_str(), waiter.forwarded) {
        (protocol, true) => format!("forwarded {protocol} from {}", waiter.source.ip),
        ("tcp", _) => "connection".to_owned(),
        (protocol, _) => format!("{protocol} packet"),
    };
    match &waiter.process {
        Some(process) => format!("{}'s {what} to {to}", text::process(process)),
        None => format!("{what} to {to}"),
    }
}

pub(super) fn remedies(place: &NeighbourPlace, process: Option<u32>) -> Vec<Remedy> {
    let (address, device) = (place.address, &place.device);
    let here = |command: Command| within(place.netns.as_deref(), process, command);
    let tool = here(if address.is_ipv4() {
        Command::new("arping").words("-c 3 -I").arg(device).arg(address)
    } else {
        // A device may be called what looks like an option.
        Command::new("ndisc6").arg("--").arg(address).arg(device)
    });
    let look = here(Command::new("ip").words("neigh show").arg(address).arg("dev").arg(device));
    let link = |likely: &str| {
        let device = shown(device);
        Remedy::from(format!("see whether {address} is up and on the link of {device} ({likely}): "))
    };
    if place.is_gateway {
        let show = if address.is_ipv4() { "route show default" } else { "-6 route show default" };
        let routes = here(Command::new("ip").words(show));
        vec![
            link("cable, VLAN, security group").and(tool),
            Remedy::from("see whether the default route is right: ").and(routes),
            look,
        ]
    } else {
        vec![link("VLAN, security group, host firewall").and(tool), look]
    }
}

impl Waiter {
    fn shown(&self, view: &View<'_>) -> NeighbourWaiter {
        let record = &self.record;
        let (tuple, world) = (&record.tuple, view.world);
        // What is forwarded has its owner in another namespace of this host, if anywhere.
        let forwarded = || world.forwarded_connect(tuple).map(|op| op.connect.owner);
        let owner = if record.forwarded == 0 { Some(record.owner) } else { self.owner.or_else(forwarded) };
        NeighbourWaiter {
            process: owner.and_then(|owner| world.known.named(&owner)),
            protocol: match tuple.protocol {
                IPPROTO_TCP => "tcp".to_owned(),
                IPPROTO_UDP => "udp".to_owned(),
                other => other.to_string(),
            },
            source: world.known.local(tuple),
            // Names are known where the packet's owner lives, which need not be where it leaves.
            destination: world.known.at(
                tuple.remote,
                tuple.remote_port,
                &owner
                    .filter(|owner| owner.netns.is_known())
                    .unwrap_or(Owner { netns: record.netns(), ..Owner::default() }),
            ),
            forwarded: record.forwarded != 0,
            outcome: self.ended.as_ref().map(|(connect, _)| outcome(connect).0),
        }
    }
}
