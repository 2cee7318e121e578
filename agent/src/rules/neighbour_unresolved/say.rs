//! What is said about a neighbour that does not answer.

use ebpf_probes::{
    abi::{IPPROTO_TCP, IPPROTO_UDP, Owner},
    probes::neigh::flag,
};

use super::{End, Silent, Waiter};
use crate::{
    correlate::{
        View,
        incident::{
            Cause, Confidence, Details, Kind, NeighbourPlace, NeighbourUnresolvedDetails, NeighbourWaiter,
            Severity,
        },
        remedy::Remedy,
        report::Report,
    },
    enrich::{connect::outcome, neigh::mac},
    rules::{
        neighbours::{self, Key, on, within},
        text::{self, duration},
    },
    text::{shell::Command, shown},
};

/// Ethernet addresses have as many bytes.
const ETH_ALEN: u16 = 6;

impl Silent {
    pub(super) fn report(&self, key: &Key, now_ns: u64, end: Option<End<'_>>, view: &View<'_>) -> Report {
        let mut place = neighbours::place(key, &self.device, view.world);
        place.is_gateway = view.world.gateway(key.0, &place.device, place.address).is_some();
        let waiters: Vec<NeighbourWaiter> = self.waiters.iter().map(|waiter| waiter.shown(view)).collect();
        let process = waiters.iter().find_map(|waiter| waiter.process.clone());
        let asked_ns = now_ns.saturating_sub(self.since_ns);
        Report {
            kind: Kind::NeighbourUnresolved,
            subject: self.subject(key),
            severity: if place.is_gateway { Severity::Critical } else { Severity::Warning },
            began_ns: self.since_ns,
            count: self.failures.max(1),
            summary: self.summary(&place, &waiters, asked_ns, end),
            why: self.why(&place, now_ns),
            cause: Some(Cause {
                outcome: Some(match end {
                    None if self.failed_ns.is_some() => "failed".to_owned(),
                    None => "pending".to_owned(),
                    Some(End::Answered(_) | End::Found(_)) => "answered".to_owned(),
                    Some(End::Removed(_)) => "removed".to_owned(),
                    Some(End::Quiet) => "quiet".to_owned(),
                }),
                elapsed_ms: Some(asked_ns / 1_000_000),
                ..neighbours::cause(place.address, Confidence::Certain)
            }),
            caused_by: vec![],
            remedies: remedies(&place, process.as_ref().map(|process| process.pid)),
            evidence: self.evidence(&place, now_ns, end, view),
            process,
            details: Details::NeighbourUnresolved(NeighbourUnresolvedDetails {
                neighbour: place,
                asked_ms: asked_ns / 1_000_000,
                unanswered_probes: self.unanswered,
                last_mac: self.mac.clone(),
                waiters,
                waiters_left_out: self.left_out,
                others: self.others,
            }),
        }
    }

    fn summary(
        &self,
        place: &NeighbourPlace,
        waiters: &[NeighbourWaiter],
        asked_ns: u64,
        end: Option<End<'_>>,
    ) -> String {
        let what = name(place);
        let how = neighbours::resolution(place.address);
        let where_ = on(place);
        match end {
            Some(End::Answered(_) | End::Found(_)) => {
                return format!("{what} answers {how} {where_} again, after {}.", duration(asked_ns));
            }
            Some(End::Removed(_)) => {
                return format!(
                    "The entry of {what} {where_}, which did not answer {how}, was removed after {}.",
                    duration(asked_ns)
                );
            }
            Some(End::Quiet) => {
                return format!("{what} did not answer {how} {where_}; nobody asks for it any more.");
            }
            None => {}
        }
        let others = match self.others {
            0 => String::new(),
            1 => ", nor does one more neighbour there".to_owned(),
            others => format!(", nor do {others} more neighbours there"),
        };
        let head = format!("{what} does not answer {how} {where_}{others}");
        format!("{head}: {}.", consequence(waiters, self.left_out, place))
    }

    fn why(&self, place: &NeighbourPlace, now_ns: u64) -> Vec<String> {
        let how = neighbours::resolution(place.address);
        let questions = text::count(self.unanswered.into(), "question", "questions");
        let asked = duration(self.last_ns.max(self.since_ns).saturating_sub(self.since_ns));
        let mut why = vec![format!(
            "{questions} in {asked} went unanswered: without a MAC no packet leaves this host, and what waits is told EHOSTUNREACH."
        )];
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
                seen.push((
                    *at,
                    format!("{} failed: {}", sentence(&shown), outcome(connect).0.name().replace('_', " ")),
                ));
            }
        }
        if let Some(at) = self.failed_ns {
            let times =
                if self.failures > 1 { format!(", {} times so far", self.failures) } else { String::new() };
            seen.push((at, format!("the kernel gave up: FAILED{times}")));
        }
        match end {
            Some(End::Answered(record)) => {
                let at = mac(&record.new_mac, record.mac_len).unwrap_or_default();
                let by =
                    if record.flags & flag::BY_HAND != 0 { by_hand(record, view) } else { String::new() };
                seen.push((now_ns, format!("it is at {at}{by}")));
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
    view.world.named(&record.owner).map_or_else(String::new, |who| format!(", by {}", text::process(&who)))
}

/// `10.0.1.90`, `The default gateway 10.0.1.1`.
fn name(place: &NeighbourPlace) -> String {
    if place.is_gateway {
        format!("The default gateway {}", place.address)
    } else {
        place.address.to_string()
    }
}

/// What that means for those who wait.
fn consequence(waiters: &[NeighbourWaiter], left_out: u32, place: &NeighbourPlace) -> String {
    let Some(first) = waiters.first() else { return "nobody is known to wait for it".into() };
    let more = waiters.len() as u64 - 1 + u64::from(left_out);
    let rest = match more {
        0 => String::new(),
        1 => " (and one more)".to_owned(),
        more => format!(" (and {more} more)"),
    };
    let verb = match first.outcome {
        Some(_) => "failed",
        None => "waits for it",
    };
    let beyond = if place.is_gateway { "; nothing beyond it can be reached" } else { "" };
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

fn remedies(place: &NeighbourPlace, process: Option<u32>) -> Vec<Remedy> {
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
        let routes = here(Command::new("ip").words("route show default"));
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
            process: owner.and_then(|owner| world.named(&owner)),
            protocol: match tuple.protocol {
                IPPROTO_TCP => "tcp".to_owned(),
                IPPROTO_UDP => "udp".to_owned(),
                other => other.to_string(),
            },
            source: world.own_end(tuple),
            // Names are known where the packet's owner lives, which need not be where it leaves.
            destination: world.at(
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
