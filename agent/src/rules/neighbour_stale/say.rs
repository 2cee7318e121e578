//! What is said about a neighbour entry that points to the wrong MAC.

use ebpf_probes::probes::neigh::{flag, state, unheard};

use super::{End, Suspect};
use crate::{
    domains::neighbour::{mac, state_name},
    known::context::Answered,
    pipeline::{
        View,
        incident::{Cause, Confidence, Details, Kind, NeighbourPlace, NeighbourStaleDetails, Severity},
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
/// As many unanswered packets leave no doubt.
const CERTAIN: u32 = 3;

impl Suspect {
    pub(super) fn report(&self, key: &Key, now_ns: u64, end: Option<End<'_>>, view: &View<'_>) -> Report {
        let mut place = neighbours::place(key, "", view.world);
        place.is_gateway = view.world.gateway(key.0, &place.device, place.address).is_some();
        let process = view.world.known.named(&self.owner);
        // What is behind a router may not hear us for other reasons.
        let counts = !self.last.is_routed()
            && self.last.what != unheard::DATAGRAM
            && (self.last.unanswered >= CERTAIN || self.connections.len() > 1);
        let is_said = |answered: &Answered| answered.macs == [self.last.seen_mac];
        let certain = counts || self.answered.as_ref().is_some_and(is_said);
        Report {
            kind: Kind::NeighbourStale,
            subject: self.subject(key, &place.device),
            severity: Severity::Critical,
            began_ns: self.last.seen_since_ns.min(self.first_ns),
            count: self.connections.len().max(1) as u64,
            summary: self.summary(&place, now_ns, end, view),
            why: self.why(&place, now_ns, view),
            cause: Some(Cause {
                outcome: Some(end.map_or("pending", |end| end.name(self)).to_owned()),
                elapsed_ms: Some(now_ns.saturating_sub(self.last.seen_since_ns) / 1_000_000),
                ..neighbours::cause(
                    place.address,
                    if certain { Confidence::Certain } else { Confidence::Likely },
                )
            }),
            caused_by: vec![],
            remedies: self.remedies(&place, process.as_ref().map(|process| process.pid)),
            evidence: self.evidence(&place, now_ns, end, view),
            process,
            details: Details::NeighbourStale(NeighbourStaleDetails {
                cached_mac: self.cached(),
                seen_mac: self.seen(),
                nud_state: state_name(self.last.state),
                state_ms: age_ms(self.last.state_since_ns, now_ns),
                cached_for_ms: age_ms(self.last.mac_since_ns, now_ns),
                seen_for_ms: now_ns.saturating_sub(self.last.seen_since_ns) / 1_000_000,
                unanswered: self.last.unanswered,
                connections: self.connections.len() as u32,
                ports: self.ports.iter().copied().collect(),
                ended_by: end.map(|end| end.name(self).to_owned()),
                neighbour: place,
            }),
        }
    }

    fn cached(&self) -> String {
        mac(&self.last.cached_mac, ETH_ALEN).unwrap_or_default()
    }

    fn seen(&self) -> String {
        mac(&self.last.seen_mac, ETH_ALEN).unwrap_or_default()
    }

    fn summary(&self, place: &NeighbourPlace, now_ns: u64, end: Option<End<'_>>, view: &View<'_>) -> String {
        let (address, where_) = (place.address, on(place));
        let lasted = duration(now_ns.saturating_sub(self.last.seen_since_ns));
        match end {
            Some(End::Entry(record)) => {
                let now = mac(&record.new_mac, record.mac_len);
                let by = match view.world.known.named(&record.owner) {
                    Some(who) if record.flags & flag::BY_HAND != 0 => format!(" by {}", text::process(&who)),
                    _ if self.asks_since_ns.is_some() => {
                        " by the kernel itself, which asked again".to_owned()
                    }
                    _ => " by a packet of its own".to_owned(),
                };
                match now {
                    Some(now) if record.new_mac != self.last.cached_mac => {
                        format!("The entry of {address} {where_} was corrected to {now}{by}, after {lasted}.")
                    }
                    _ => format!("The wrong entry of {address} {where_} was removed{by}, after {lasted}."),
                }
            }
            Some(End::Found) => {
                format!("The wrong entry of {address} {where_} is no longer in the table, after {lasted}.")
            }
            Some(End::Answered) => {
                format!(
                    "{address} {where_} hears this host again, after {lasted}; its entry still holds {}.",
                    self.cached()
                )
            }
            Some(End::Together) => format!(
                "{} and {} both are {address}'s {where_}: its entry is not wrong.",
                self.cached(),
                self.seen()
            ),
            Some(End::Conflict) => format!(
                "Two machines have {address} {where_}, {} and {}: its entry is one of theirs.",
                self.cached(),
                self.seen()
            ),
            Some(End::Quiet) => format!(
                "Nothing is sent to {address} {where_} any more; its entry still held {} when last seen, while it is at {}.",
                self.cached(),
                self.seen()
            ),
            None => {
                let what = if place.is_gateway {
                    format!("the default gateway {address}")
                } else {
                    address.to_string()
                };
                let (cached, entry, seen) = (self.cached(), self.entry(now_ns), self.seen());
                if let Some(peers) = self.peers() {
                    return format!(
                        "Replies to {peers} go by way of {what} {where_} to {cached}, which this host has cached ({entry}); packets from there come from {seen}, and replies are not heard: {}.",
                        self.loss()
                    );
                }
                format!(
                    "Replies to {what} {where_} go to {cached}, which this host has cached ({entry}); its packets come from {seen}, and it does not hear this host: {}.",
                    self.loss()
                )
            }
        }
    }

    /// `198.51.100.10 and 2 others`: who is behind the neighbour, if it is a router.
    fn peers(&self) -> Option<String> {
        let first = self.beyond.first()?;
        Some(match self.beyond.len() - 1 {
            0 => first.to_string(),
            1 => format!("{first} and another"),
            more => format!("{first} and {more} others"),
        })
    }

    /// `STALE, cached for 3 min 2 s`.
    fn entry(&self, now_ns: u64) -> String {
        let state = state_name(self.last.state);
        match self.last.mac_since_ns {
            0 => state,
            since => format!("{state}, cached for {}", duration(now_ns.saturating_sub(since))),
        }
    }

    /// `4 packets unanswered on 2 connections to port 5432`.
    fn loss(&self) -> String {
        if self.last.what == unheard::DATAGRAM {
            let port = self.last.tuple.local_port;
            return format!(
                "the same datagram came to port {port} again {}, each time after it was answered",
                text::count(self.last.unanswered.into(), "time", "times")
            );
        }
        let packets = text::count(self.last.unanswered.into(), "packet", "packets");
        let connections = text::count(self.connections.len() as u64, "connection", "connections");
        let ports: Vec<String> = self.ports.iter().take(4).map(u16::to_string).collect();
        let port = if self.ports.len() == 1 { "port" } else { "ports" };
        let to = if self.serves { "to" } else { "of" };
        format!("{packets} sent again without an answer on {connections} {to} {port} {}", ports.join(", "))
    }

    fn why(&self, place: &NeighbourPlace, now_ns: u64, view: &View<'_>) -> Vec<String> {
        let seen = duration(now_ns.saturating_sub(self.last.seen_since_ns));
        let mut why = vec![if self.beyond.is_empty() {
            format!(
                "The address has changed hands: a packet came from {} {seen} ago, while frames for it still go to {}, which may be gone.",
                self.seen(),
                self.cached()
            )
        } else {
            format!(
                "Another router has taken over: what is behind {} came from {} {seen} ago, while frames for it still go to {}, which may be gone.",
                place.address,
                self.seen(),
                self.cached()
            )
        }];
        why.push(match self.last.state {
            state if state & state::PERMANENT != 0 => {
                "The entry is PERMANENT: it was set by hand, and the kernel will never ask.".to_owned()
            }
            state::REACHABLE => "The entry is REACHABLE: it was confirmed within the last minute, by its old owner or by other traffic since (MSG_CONFIRM, acknowledgements), and until that has passed the kernel does not ask.".to_owned(),
            state::STALE => "The entry is STALE: the kernel believes it until something is sent, and then for five seconds more.".to_owned(),
            state::DELAY => "The entry is in DELAY: the kernel asks when five seconds have passed without a sign of life.".to_owned(),
            state::PROBE => "The entry is in PROBE: the kernel asks the old MAC, and again for the address only when that stays silent.".to_owned(),
            other => format!("The entry's state is {}.", state_name(other)),
        });
        if let Some(who) = view.world.known.named(&self.owner) {
            let role = if self.serves { "serves" } else { "talks to" };
            let whom = self.peers().unwrap_or_else(|| place.address.to_string());
            why.push(format!("{} {role} {whom}; nothing is wrong with it.", text::process(&who)));
        }
        why
    }

    fn remedies(&self, place: &NeighbourPlace, process: Option<u32>) -> Vec<Remedy> {
        let (address, device) = (place.address, &place.device);
        let here = |command: Command| within(place.netns.as_deref(), process, command);
        let neigh = || Command::new("ip").arg("neigh");
        let mut remedies = vec![here(neigh().arg("del").arg(address).arg("dev").arg(device))];
        let replace = here(
            neigh()
                .arg("replace")
                .arg(address)
                .arg("lladdr")
                .arg(self.seen())
                .arg("dev")
                .arg(device)
                .words("nud reachable"),
        );
        if self.last.state & state::PERMANENT != 0 {
            remedies.push(Remedy::from("find who sets it PERMANENT, or set it right: ").and(replace));
        } else {
            remedies.push(Remedy::from("or set it right: ").and(replace));
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            // With slashes, because a device's name may have dots in it.
            let setting = format!("net/{family}/neigh/{device}/base_reachable_time_ms");
            remedies.push(
                Remedy::from(
                    "where addresses are reused: announce them when they move (on the new machine: ",
                )
                .and(Command::new("arping").words("-A -c 3 -I DEVICE").arg(address))
                .and("), or lower the time for which an entry is believed: ")
                .and(here(Command::new("sysctl").arg(setting))),
            );
        }
        remedies
    }

    fn evidence(
        &self,
        place: &NeighbourPlace,
        now_ns: u64,
        end: Option<End<'_>>,
        view: &View<'_>,
    ) -> Vec<(u64, String)> {
        let mut seen = Vec::new();
        if self.last.mac_since_ns != 0 {
            seen.push((
                self.last.mac_since_ns,
                format!("{} is cached at {} on {}", place.address, self.cached(), shown(&place.device)),
            ));
        }
        seen.push((
            self.last.seen_since_ns,
            match self.beyond.first() {
                Some(peer) => format!(
                    "a packet of {peer}, which {} forwards, comes from {} instead",
                    place.address,
                    self.seen()
                ),
                None => format!("a packet of {} comes from {} instead", place.address, self.seen()),
            },
        ));
        let what = match self.last.what {
            unheard::SYN_ACK => "SYN-ACK",
            unheard::SYN => "SYN",
            _ => "data",
        };
        let whom = self.beyond.first().copied().unwrap_or(place.address);
        if self.last.what == unheard::DATAGRAM {
            seen.push((self.last_ns, self.loss()));
        } else {
            seen.push((self.first_ns, format!("the first packet is sent to {whom} again")));
        }
        if self.last_ns != self.first_ns && self.last.what != unheard::DATAGRAM {
            seen.push((self.last_ns, format!("{what} sent again: {}", self.loss())));
        }
        seen.extend(self.answered.as_ref().map(|answered| neighbours::answered(answered, &place.device)));
        if let Some(at) = self.asks_since_ns {
            seen.push((at, "the kernel begins to doubt the entry, and asks".to_owned()));
        }
        match end {
            Some(End::Entry(_)) => seen.push((now_ns, self.summary(place, now_ns, end, view))),
            Some(End::Answered) => seen.push((now_ns, "a connection is established after all".to_owned())),
            Some(End::Found) => seen.push((now_ns, "the table was read again".to_owned())),
            Some(End::Together) => {
                seen.push((
                    now_ns,
                    "a connection between the two MACs had been established before".to_owned(),
                ));
            }
            Some(End::Conflict) => {
                seen.push((now_ns, "the cached MAC resets what the other one asks for".to_owned()));
            }
            Some(End::Quiet) | None => {}
        }
        seen
    }
}

impl End<'_> {
    fn name(self, suspect: &Suspect) -> &'static str {
        match self {
            End::Entry(record) if record.flags & flag::BY_HAND != 0 => {
                if record.new_state == state::FAILED {
                    "removed"
                } else {
                    "corrected"
                }
            }
            End::Entry(_) if suspect.asks_since_ns.is_some() => "healed",
            End::Entry(record) if record.new_mac == [0; 8] => "removed",
            End::Entry(_) => "corrected",
            End::Found => "corrected",
            End::Answered => "answered",
            End::Together => "same_neighbour",
            End::Conflict => "conflict",
            End::Quiet => "idle",
        }
    }
}

fn age_ms(since_ns: u64, now_ns: u64) -> Option<u64> {
    (since_ns != 0).then(|| now_ns.saturating_sub(since_ns) / 1_000_000)
}
