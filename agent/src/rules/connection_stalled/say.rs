//! What is said about connections whose data is not acknowledged.

use ebpf_probes::probes::connect::Connect;

use super::{
    ConnectionStalled,
    finding::{Finding, Passes, idle_ns},
    groups::{Group, Member},
    is_service,
};
use crate::{
    domains::connect::DataEnd,
    fact::{BEFORE_START, Endpoint},
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, ConnectionStalledDetails, Details, Kind, Severity},
        remedy::Remedy,
        report::Report,
    },
    rules::{
        biography::{Fate, Past, past_of},
        drops::{self, Reason},
        neighbours::{self, within},
        text::{self, address, count, duration, place, times},
    },
    text::shell::Command,
};

/// IP and TCP headers without options.
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;

/// The account of a situation; `end`: how its last connection ended. `None` when nothing waits.
pub(super) fn report(
    rule: &ConnectionStalled,
    number: u64,
    now_ns: u64,
    end: Option<DataEnd>,
    view: &View<'_>,
) -> Option<Report> {
    let (group, lead) = (rule.groups.get(number)?, rule.groups.lead(number)?);
    let unacked = &lead.unacked;
    let known = &view.world.known;
    let says = Says {
        group,
        lead,
        finding: Finding::of(unacked, !group.explained_by.is_empty()),
        what: group.what,
        peer: known.remote(&unacked.tuple, &lead.owner),
        who: known.named(&lead.owner).as_ref().map_or_else(|| "A process".to_owned(), text::process),
        is_service: is_service(unacked, view),
        waiting: if end.is_some() { 0 } else { rule.groups.waiting(number) },
        now_ns,
        end,
        view,
    };
    Some(says.report())
}

struct Says<'a> {
    group: &'a Group,
    lead: &'a Member,
    finding: Finding,
    /// What is not acknowledged.
    what: &'static str,
    peer: Endpoint,
    who: String,
    is_service: bool,
    waiting: u64,
    now_ns: u64,
    end: Option<DataEnd>,
    view: &'a View<'a>,
}

impl Says<'_> {
    fn report(&self) -> Report {
        let (unacked, known) = (&self.lead.unacked, &self.view.world.known);
        let age_ns = self.now_ns.saturating_sub(unacked.since_ns);
        let (mut why, mut remedies, mut evidence) = (self.why(), self.remedies(), self.evidence());
        let (mut kind, mut confidence) = self.cause();
        if let Some(past) = self.past() {
            if let Some(blamed) = past.blamed {
                (kind, confidence) = (CauseKind::Neighbour, blamed);
            }
            past.reported(&mut why, &mut remedies, &mut evidence);
        }
        let drop_reason =
            (unacked.drops > 0).then(|| self.view.world.drop_reason(unacked.drop_reason)).flatten();
        Report {
            kind: Kind::ConnectionStalled,
            subject: self.group.subject.clone(),
            severity: self.severity(),
            began_ns: unacked.since_ns,
            count: self.group.total,
            process: known.named(&self.lead.owner),
            summary: self.summary(),
            why,
            cause: Some(Cause {
                kind,
                confidence,
                destination: Some(self.peer.clone()),
                outcome: Some(self.outcome().to_owned()),
                dropped_by_host: Some(unacked.drops).filter(|drops| *drops > 0),
                drop_reason: drop_reason.clone(),
                elapsed_ms: Some(age_ns / 1_000_000),
                ..Cause::default()
            }),
            caused_by: self.group.explained_by.clone(),
            remedies,
            evidence,
            details: Details::ConnectionStalled(ConnectionStalledDetails {
                local: known.local(&unacked.tuple),
                peer: self.peer.clone(),
                is_service: self.is_service,
                stalled_ms: age_ns / 1_000_000,
                unacked_bytes: unacked.bytes(),
                waiting_bytes: unacked.waiting(),
                retransmits: unacked.timeouts,
                segment_bytes: Some(unacked.segment).filter(|bytes| *bytes != 0),
                mss: unacked.mss,
                path_mtu: unacked.path_mtu,
                small_segments_pass: self.finding.is_path_mtu().then_some(true),
                idle_ms: idle_ns(unacked).map(|ns| ns / 1_000_000),
                peer_is_heard: unacked.is_heard(),
                new_connections_work: unacked.fresh_ns != 0,
                dropped_by_host: unacked.drops,
                drop_reason,
                since_before_start: unacked.is_adopted(),
                waiting: self.waiting,
                peers: self.group.peers.iter().copied().collect(),
            }),
        }
    }

    /// What became of the neighbour's entry, where nothing else explains the silence.
    fn past(&self) -> Option<Past> {
        let unacked = &self.lead.unacked;
        let fate = match self.finding {
            Finding::Neighbour | Finding::Dropped | Finding::PathMtu(_) | Finding::OneSegment => return None,
            // What had been idle may have been forgotten meanwhile, and a peer that is heard is there.
            Finding::Forgotten(true) | Finding::Deaf => Fate::Other,
            Finding::Forgotten(false) | Finding::Silent => Fate::Silent,
        };
        past_of((unacked.cookie, &unacked.tuple, &self.lead.owner), unacked.since_ns, fate, self.view)
    }

    /// Clients come and go: that one of a service's is gone is no fault.
    fn severity(&self) -> Severity {
        let gone = matches!(self.finding, Finding::Silent | Finding::Forgotten(_) | Finding::Deaf);
        if self.is_service && gone { Severity::Info } else { Severity::Warning }
    }

    fn cause(&self) -> (CauseKind, Confidence) {
        match self.finding {
            Finding::Neighbour => (CauseKind::Neighbour, Confidence::Certain),
            Finding::Dropped if self.dropped_for().is_filter() => (CauseKind::Filter, Confidence::Likely),
            Finding::Dropped => (CauseKind::Path, Confidence::Likely),
            Finding::PathMtu(Passes::Later) | Finding::Forgotten(true) => {
                (CauseKind::Path, Confidence::Likely)
            }
            Finding::PathMtu(_) | Finding::OneSegment | Finding::Forgotten(false) | Finding::Deaf => {
                (CauseKind::Path, Confidence::Possible)
            }
            Finding::Silent => (CauseKind::Peer, Confidence::Possible),
        }
    }

    fn outcome(&self) -> &'static str {
        match self.end {
            None => "pending",
            Some(DataEnd::Acknowledged) => "acknowledged",
            Some(DataEnd::WindowClosed) => "window_closed",
            Some(DataEnd::Closed) => "closed",
            Some(DataEnd::Reset) => "reset",
            Some(DataEnd::TimedOut) => "timed_out",
            Some(DataEnd::Ended) => "ended",
        }
    }

    /// `10.0.0.7:443`; of a service's client, its address.
    fn to(&self) -> String {
        if self.is_service { self.peer.ip.to_string() } else { place(&self.peer) }
    }

    fn summary(&self) -> String {
        let unacked = &self.lead.unacked;
        let age = duration(self.now_ns.saturating_sub(unacked.since_ns));
        let since = if unacked.is_adopted() { BEFORE_START } else { "" };
        let (who, to, what) = (&self.who, self.to(), self.what);
        let bytes = count(u64::from(unacked.bytes()), "byte", "bytes");
        if let Some(end) = self.end {
            let became = match end {
                DataEnd::Acknowledged => "was acknowledged",
                DataEnd::WindowClosed => "is not taken any more, for the peer's window is closed,",
                DataEnd::Closed => "was never acknowledged, and the process closed the connection",
                DataEnd::Reset => "was never acknowledged, and the connection was reset",
                DataEnd::TimedOut => "was never acknowledged, and the kernel gave up (ETIMEDOUT)",
                DataEnd::Ended => "was never acknowledged, and the connection ended",
            };
            return format!("{who}'s {what} to {to} ({bytes}) {became} after {age}.");
        }
        let more = match self.waiting {
            0 | 1 => String::new(),
            many => format!(", one of {many} connections"),
        };
        let again = times(u64::from(unacked.timeouts));
        let begins = format!(
            "{who} sends its {what} to {to}{more}, and {bytes} of it are not acknowledged for {age}{since}, sent again {again}"
        );
        match self.finding {
            Finding::Neighbour => format!("{begins}, because a neighbour entry on the way is wrong."),
            Finding::Dropped => format!("{begins}: this host itself drops them{}.", self.dropped_by()),
            Finding::PathMtu(_) => format!(
                "{begins}: segments of {} bytes are lost and small ones pass, as where the path MTU is less than {}.",
                unacked.segment,
                self.packet()
            ),
            Finding::OneSegment => {
                format!("{begins}: one segment is lost each time, and those after it arrive.")
            }
            Finding::Forgotten(_) => match idle_ns(unacked) {
                Some(idle) => format!(
                    "{begins}: the connection had been idle for {}, and something on the way has forgotten it, or the peer is gone.",
                    duration(idle)
                ),
                None => format!(
                    "{begins}, while new connections to it work: something on the way has forgotten this one."
                ),
            },
            Finding::Deaf => format!("{begins}, while packets of the peer arrive."),
            Finding::Silent => format!("{begins}: nothing comes from the peer."),
        }
    }

    /// The largest packet of the connection, bytes.
    fn packet(&self) -> u32 {
        let headers = if self.peer.ip.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        self.lead.unacked.path_mtu.max(self.lead.unacked.segment.saturating_add(headers))
    }

    fn dropped_for(&self) -> Reason {
        Reason::of(self.view.world.drop_reason(self.lead.unacked.drop_reason).as_deref())
    }

    /// What drops its packets here, as of a connect's; where on their way they were is not recorded.
    fn verdict(&self) -> Option<drops::Verdict> {
        let unacked = &self.lead.unacked;
        let connect = Connect {
            cookie: unacked.cookie,
            owner: self.lead.owner,
            tuple: unacked.tuple,
            started_ns: unacked.since_ns,
            drops: unacked.drops,
            drop_reason: unacked.drop_reason,
            ..Connect::default()
        };
        drops::verdict(&connect, self.view.world)
    }

    fn dropped_by(&self) -> String {
        let unacked = &self.lead.unacked;
        let reason = self.view.world.drop_reason(unacked.drop_reason);
        reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
    }

    fn why(&self) -> Vec<String> {
        let unacked = &self.lead.unacked;
        let mut why = Vec::new();
        match self.finding {
            Finding::Neighbour => why.push(neighbours::why(&self.group.explained_by, self.view).to_owned()),
            Finding::Dropped => why.extend(self.verdict().map(|verdict| verdict.why)),
            Finding::PathMtu(passes) => {
                why.push(match passes {
                    Passes::Later => "The peer acknowledges smaller segments that were sent later, and not the large one before them.".to_owned(),
                    Passes::Earlier => "Packets of the peer arrive meanwhile, and only small segments of this connection were ever acknowledged.".to_owned(),
                    Passes::Others => "New connections to the peer are established meanwhile, and only small segments of this one were ever acknowledged.".to_owned(),
                });
                why.push(format!(
                    "This host believes that packets of {} bytes pass (MSS {}): where a tunnel, a VPN or an overlay on the way takes less, it must hear so by ICMP (fragmentation needed, packet too big), and that is filtered somewhere.",
                    unacked.path_mtu, unacked.mss
                ));
                why.push(match self.what {
                    "certificate flight" | "ClientHello" => format!("A TLS handshake hangs there: its {} is the first thing that is large.", self.what),
                    _ => "Handshakes and short requests work, and whatever fills a segment hangs: certificates, uploads, large answers.".to_owned(),
                });
            }
            Finding::OneSegment => why.push("What inspects contents on the way, or a damaged packet, drops one segment and not others; a link that loses some would let it through in the end.".to_owned()),
            Finding::Forgotten(works) => {
                if works {
                    why.push(self.fresh());
                }
                if let Some(idle) = idle_ns(unacked) {
                    why.push(format!(
                        "NATs, firewalls and load balancers forget connections on which nothing passes for a while, and drop what comes later; here nothing had come for {}.",
                        duration(idle)
                    ));
                }
                if !works {
                    why.push("Whether the peer can be reached at all is not known: no new connection to it was seen meanwhile.".to_owned());
                }
            }
            Finding::Deaf => why.push("What comes from the peer does not acknowledge: packets in this direction are lost on the way, or the peer does not take them for part of this connection.".to_owned()),
            Finding::Silent => why.push("The peer is down or out of reach, or the way there swallows packets: nothing else has come from it since either.".to_owned()),
        }
        match self.end {
            Some(DataEnd::Reset) => why.push("A reset in the end means that the peer no longer knows the connection: it was restarted, or what forgot the connection says so.".to_owned()),
            _ if self.is_service && self.finding == Finding::Silent => why.push(
                "It is a client of this service: clients that are switched off or lose their network look like this."
                    .to_owned(),
            ),
            _ => {}
        }
        why
    }

    fn fresh(&self) -> String {
        let unacked = &self.lead.unacked;
        format!(
            "A new connection {} port {} was established {} after this one stopped: the peer is there.",
            if self.is_service { format!("of {} to", self.peer.ip) } else { format!("to {},", self.peer.ip) },
            unacked.fresh_port,
            duration(unacked.fresh_ns.saturating_sub(unacked.since_ns))
        )
    }

    fn evidence(&self) -> Vec<(u64, String)> {
        let unacked = &self.lead.unacked;
        let mut evidence = Vec::new();
        if unacked.before_ns != 0 {
            evidence.push((unacked.before_ns, format!("something last came from {} before", self.to())));
        }
        let large = format!(
            "{} sends its {} to {} from port {}: {} are not acknowledged",
            self.who,
            self.what,
            self.to(),
            unacked.tuple.local_port,
            count(u64::from(unacked.bytes()), "byte", "bytes")
        );
        evidence.push((unacked.since_ns, large));
        if unacked.again_ns != 0 {
            let segment = count(u64::from(unacked.segment), "byte", "bytes");
            let again = times(u64::from(unacked.timeouts));
            evidence
                .push((unacked.again_ns, format!("a segment of {segment} is sent again, {again} so far")));
        }
        if unacked.is_heard() {
            let sacked = match unacked.sacked {
                0 => "something comes from the peer".to_owned(),
                sacked => format!(
                    "the peer acknowledges {} sent after it",
                    count(u64::from(sacked), "segment", "segments")
                ),
            };
            evidence.push((unacked.heard_ns, sacked));
        }
        if unacked.fresh_ns != 0 {
            let of = if self.is_service { "a new connection of" } else { "a new connection to" };
            evidence.push((unacked.fresh_ns, format!("{of} {} is established", self.peer.ip)));
        }
        if unacked.drops > 0 {
            let drops = count(u64::from(unacked.drops), "packet", "packets");
            evidence.push((self.now_ns, format!("this host drops {drops} of it{}", self.dropped_by())));
        }
        if self.end.is_some() {
            evidence.push((self.now_ns, format!("it ended: {}", self.outcome())));
        }
        evidence
    }

    /// A command where the connection is.
    fn there(&self, command: Command) -> Remedy {
        let netns = self.view.world.known.namespace(self.lead.owner.netns);
        let process = Some(self.lead.owner.process).filter(|process| *process != 0);
        within(netns.as_deref(), process, command)
    }

    fn remedies(&self) -> Vec<Remedy> {
        let (unacked, ip) = (&self.lead.unacked, self.peer.ip);
        let look =
            Remedy::from("see whether that goes on: ").and(self.there(
                Command::new("ss").words("-tnoi sport =").arg(format!(":{}", unacked.tuple.local_port)),
            ));
        let route = || {
            Remedy::from(format!("check that {ip} is up and that its packets find the way back: "))
                .and(self.there(text::route_get(ip)))
        };
        match self.finding {
            Finding::Neighbour => neighbours::remedies(&self.group.explained_by, self.view),
            Finding::Dropped => {
                let rules = || {
                    let rules = self.there(Command::new("nft").words("list ruleset"));
                    vec![Remedy::from("look at what drops it: ").and(rules)]
                };
                // A rule about a client names the service's own port.
                let of_reason = self.verdict().filter(|_| !self.is_service).map(|verdict| verdict.remedies);
                let mut remedies = of_reason.unwrap_or_else(rules);
                remedies.push(look);
                remedies
            }
            Finding::PathMtu(_) => vec![
                Remedy::from("find out what passes: ")
                    .and(self.there(Command::new("tracepath").arg("-n").arg(ip))),
                "let ICMP \"fragmentation needed\" (type 3, code 4; ICMPv6 type 2) through in every firewall on the way".into(),
                "or have the router before the narrow part clamp the MSS (nft: tcp flags syn tcp option maxseg size set rt mtu)".into(),
                Remedy::from("or let this host find it out by itself from now on: ").and(self.there(
                    Command::new("sysctl").words("-w net.ipv4.tcp_mtu_probing=1"),
                )),
            ],
            Finding::Forgotten(_) => {
                let mut remedies = Vec::new();
                if let Some(idle) = idle_ns(unacked) {
                    let seconds = (idle / 1_000_000_000).max(1);
                    remedies.push(Remedy::from(format!(
                        "have the program send keepalives oftener than every {seconds} s (SO_KEEPALIVE with TCP_KEEPIDLE below {seconds}, or its pool's own), or close connections that were idle that long"
                    )));
                    remedies.push(Remedy::from(format!(
                        "or raise the idle timeout of the NAT, firewall or load balancer before {ip} above what the pool keeps"
                    )));
                }
                remedies.push(
                    "set TCP_USER_TIMEOUT, so that a request on a dead connection fails within seconds and is tried on a new one".into(),
                );
                remedies.push(look);
                remedies
            }
            Finding::OneSegment => vec![
                format!("look at what inspects traffic to {}: an IDS, a proxy, a checksum offload", address(&self.peer)).into(),
                look,
            ],
            Finding::Deaf | Finding::Silent => vec![route(), look],
        }
    }
}
