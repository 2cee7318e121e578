//! What a live view shows, gathered in passing where facts and incidents come by: bounded, and put together only
//! when the view asks for it.

use std::{collections::HashMap, sync::Arc};

use super::words::who;
use crate::{
    domains::{
        Fact, Failure, What,
        connect::{self},
        dns,
        neighbour::{self, NeighbourTransition},
        tls::{self, Role, Session},
    },
    fact::peer,
    pipeline::incident::{Incident, State},
    pipeline::world::World,
    text::{host, shown},
};

/// Rows of a table at most.
pub(super) const ROWS: usize = 256;
/// Handshakes and neighbours followed at most, each.
const FOLLOWED: usize = 4096;
/// Handshakes and neighbours of which nothing was heard for this long are forgotten: their end was lost.
const SILENT_NS: u64 = 300_000_000_000;
/// Incidents that are over and kept.
const RESOLVED: usize = 32;
/// Spans that failures are counted by, and their length: a minute together.
const SPANS: usize = 12;
const SPAN_NS: u64 = 5_000_000_000;

/// Something under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending {
    pub(super) what: &'static str,
    pub(super) process: String,
    pub(super) destination: String,
    pub(super) since_ns: u64,
    pub(super) state: String,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failing {
    pub(super) process: String,
    pub(super) destination: String,
    pub(super) error: String,
    pub(super) count: u64,
    /// In the last minute.
    pub(super) rate: u64,
    pub(super) last_ns: u64,
}

/// All that is shown at a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// CLOCK_BOOTTIME.
    pub(super) now_ns: u64,
    /// RFC 3339.
    pub(super) wall: String,
    pub(super) facts: u64,
    pub(super) lost: u64,
    /// With when each was reported.
    pub(super) incidents: Vec<(Arc<Incident>, u64)>,
    pub(super) pending: Vec<Pending>,
    pub(super) failing: Vec<Failing>,
    /// Rows that found no room.
    pub(super) left_out: [usize; 3],
}

type Failed = (String, String, String);

struct Counted {
    count: u64,
    last_ns: u64,
    /// The span that is being counted in, and all of them.
    span: u64,
    spans: [u32; SPANS],
}

/// Follows facts and incidents.
#[derive(Default)]
pub(super) struct Collector {
    facts: u64,
    now_ns: u64,
    open: HashMap<String, (Arc<Incident>, u64)>,
    resolved: Vec<(Arc<Incident>, u64)>,
    /// With when each was last heard of.
    followed: HashMap<String, (Pending, u64)>,
    failing: HashMap<Failed, Counted>,
}

impl Collector {
    pub(super) fn fact(&mut self, fact: &Fact) {
        self.facts += 1;
        self.now_ns = self.now_ns.max(fact.boot_ns);
        self.follow(fact);
        if let Some(Failure { destination, error }) = fact.what.described().failure() {
            self.failed((who(fact.process.as_ref()), destination, error), fact.boot_ns);
        }
    }

    pub(super) fn incident(&mut self, incident: Incident) {
        let (id, incident) = (incident.id.clone(), Arc::new(incident));
        if incident.state == State::Resolved {
            self.open.remove(&id);
            self.resolved.retain(|(known, _)| known.id != id);
            if self.resolved.len() >= RESOLVED {
                self.resolved.remove(0);
            }
            self.resolved.push((incident, self.now_ns));
        } else {
            self.resolved.retain(|(known, _)| known.id != id);
            self.open.insert(id, (incident, self.now_ns));
            oldest_out(&mut self.open, ROWS, |(_, at)| *at);
        }
    }

    /// Handshakes and neighbours: what began, moved or is over.
    fn follow(&mut self, fact: &Fact) {
        let (key, pending) = match &fact.what {
            What::Tls(tls::What::ClientHello { session, .. }) => handshake(session, fact, 0.0, "ClientHello"),
            What::Tls(tls::What::ServerHello { session, elapsed_ms, .. }) => {
                handshake(session, fact, *elapsed_ms, "ServerHello")
            }
            What::Tls(tls::What::ClientFinished { session, elapsed_ms, .. }) => {
                handshake(session, fact, *elapsed_ms, "client finished")
            }
            What::Tls(tls::What::HandshakePending { session, stage, elapsed_ms, .. }) => {
                handshake(session, fact, *elapsed_ms, tls::owes(*stage, session.role))
            }
            What::Tls(tls::What::HandshakeDone { session, .. })
            | What::Tls(tls::What::Alert { session, .. })
            | What::Tls(tls::What::HandshakeClosed { session, .. })
            | What::Tls(tls::What::NotTls { session, .. }) => {
                self.followed.remove(&ends(session));
                return;
            }
            What::Neighbour(neighbour::What::NeighbourChanged(change)) => {
                let key = neighbour_key(change.netns.as_ref(), change.address);
                if change.transition != NeighbourTransition::Resolving {
                    self.followed.remove(&key);
                    return;
                }
                let netns = change.netns.as_ref().map(|name| format!("@{}", shown(name))).unwrap_or_default();
                let pending = Pending {
                    what: "neighbour",
                    process: who(fact.process.as_ref()),
                    destination: format!("{} on {}{netns}", change.address, shown(&change.device)),
                    since_ns: fact.boot_ns,
                    state: "asked for".into(),
                };
                (key, pending)
            }
            What::Neighbour(neighbour::What::NeighbourPacketQueued(waited)) => {
                let key = neighbour_key(waited.netns.as_ref(), waited.address);
                if let Some((pending, heard)) = self.followed.get_mut(&key) {
                    *heard = fact.boot_ns;
                    pending.state = format!("{} packets wait", waited.queued);
                    if fact.process.is_some() {
                        pending.process = who(fact.process.as_ref());
                    }
                }
                return;
            }
            _ => return,
        };
        let since_ns = self.followed.get(&key).map_or(pending.since_ns, |(known, _)| known.since_ns);
        self.followed.insert(key, (Pending { since_ns, ..pending }, fact.boot_ns));
        oldest_out(&mut self.followed, FOLLOWED, |(_, heard)| *heard);
    }

    fn failed(&mut self, key: Failed, at_ns: u64) {
        let new = || Counted { count: 0, last_ns: at_ns, span: at_ns / SPAN_NS, spans: [0; SPANS] };
        let counted = self.failing.entry(key).or_insert_with(new);
        counted.age(at_ns);
        counted.count += 1;
        counted.last_ns = counted.last_ns.max(at_ns);
        let span = &mut counted.spans[(at_ns / SPAN_NS) as usize % SPANS];
        *span = span.saturating_add(1);
        oldest_out(&mut self.failing, ROWS, |counted| counted.last_ns);
    }

    pub(super) fn snapshot(&mut self, world: &World, now_ns: u64) -> Snapshot {
        self.now_ns = now_ns;
        self.followed.retain(|_, (_, heard)| now_ns.saturating_sub(*heard) < SILENT_NS);
        let (facts, more) = world.under_way(now_ns, ROWS);
        let mut pending: Vec<Pending> = facts.iter().filter_map(waiting).collect();
        pending.extend(self.followed.values().map(|(pending, _)| pending.clone()));
        pending.sort_by_key(|row| row.since_ns);
        let left_out = [0, more + pending.len().saturating_sub(ROWS), 0];
        pending.truncate(ROWS);
        let failing = self.failing.iter_mut().map(|((process, destination, error), counted)| {
            counted.age(now_ns);
            Failing {
                process: process.clone(),
                destination: destination.clone(),
                error: error.clone(),
                count: counted.count,
                rate: counted.spans.iter().map(|count| u64::from(*count)).sum(),
                last_ns: counted.last_ns,
            }
        });
        Snapshot {
            now_ns,
            wall: world.wall_text(now_ns),
            facts: self.facts,
            lost: world.known.losses().iter().map(|loss| loss.count).sum(),
            failing: failing.collect(),
            incidents: self.open.values().chain(&self.resolved).cloned().collect(),
            pending,
            left_out,
        }
    }
}

impl Counted {
    /// Spans that are longer ago than a minute count no more.
    fn age(&mut self, now_ns: u64) {
        let now = now_ns / SPAN_NS;
        for span in (self.span + 1..=now).take(SPANS) {
            self.spans[span as usize % SPANS] = 0;
        }
        self.span = self.span.max(now);
    }
}

/// Makes room, a quarter at a time: what was heard of longest ago goes.
fn oldest_out<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    most: usize,
    at: impl Fn(&V) -> u64,
) {
    if map.len() <= most {
        return;
    }
    let mut times: Vec<u64> = map.values().map(&at).collect();
    let (_, bound, _) = times.select_nth_unstable(most / 4);
    let bound = *bound;
    let mut spare = most / 4 + 1;
    map.retain(|_, value| {
        let goes = at(value) <= bound && spare > 0;
        spare -= usize::from(goes);
        !goes
    });
}

fn neighbour_key(netns: Option<&String>, address: std::net::IpAddr) -> String {
    format!("neighbour {netns:?} {address}")
}

fn ends(session: &Session) -> String {
    let at = |end: &crate::fact::Endpoint| std::net::SocketAddr::new(end.ip, end.port);
    format!("{:?} {} {}", session.role, at(&session.local), at(&session.peer))
}

fn handshake(session: &Session, fact: &Fact, elapsed_ms: f64, state: &str) -> (String, Pending) {
    let arrow = if session.role == Role::Client { "→" } else { "←" };
    let sni = session.sni.as_ref().map(|sni| format!(" {}", host::words(sni, session.sni_invalid.as_ref())));
    let pending = Pending {
        what: "handshake",
        process: who(fact.process.as_ref()),
        destination: format!("{arrow} {}{}", peer(&session.peer), sni.unwrap_or_default()),
        since_ns: fact.boot_ns.saturating_sub((elapsed_ms * 1e6) as u64),
        state: state.to_owned(),
    };
    (ends(session), pending)
}

/// A connect or a lookup that waits.
fn waiting(fact: &Fact) -> Option<Pending> {
    let (what, destination, state) = match &fact.what {
        What::Connect(connect::What::ConnectPending { destination, syn_retransmits, drops, .. }) => {
            let mut state = String::from("SYN_SENT");
            for (count, what) in [(*syn_retransmits, "retries"), (*drops, "dropped here")] {
                if count > 0 {
                    state += &format!(", {count} {what}");
                }
            }
            ("connect", format!("→ {}", peer(destination)), state)
        }
        What::Dns(dns::What::DnsPending { server, name, query_type, queries, .. }) => {
            let state = format!("{query_type} {}, asked {queries}×", host::host(name));
            ("lookup", format!("→ {}", peer(server)), state)
        }
        _ => return None,
    };
    let process = who(fact.process.as_ref());
    Some(Pending { what, process, destination, since_ns: fact.boot_ns, state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domains::connect::Outcome,
        fact::{Endpoint, Process, Protocol},
    };

    fn refused(port: u16, at_ns: u64) -> Fact {
        let end = |port| Endpoint { ip: [192, 0, 2, 1].into(), port, name: None, wire: None };
        Fact {
            at: String::new(),
            boot_ns: at_ns,
            probe: "connect",
            process: Some(Process { pid: 7, tid: 7, comm: "a\x1bb".into(), ..Process::default() }),
            what: What::Connect(connect::What::ConnectEnded {
                protocol: Protocol::Tcp,
                source: end(0),
                destination: end(port),
                outcome: Outcome::Refused,
                errno: Some("ECONNREFUSED".into()),
                answered_by_host: None,
                unread_errno: None,
                syn_retransmits: 0,
                since_before_start: false,
                duration_ms: 0.1,
            }),
        }
    }

    #[test]
    fn failures_are_counted_by_process_destination_and_error_and_the_rate_is_of_the_last_minute() {
        let mut collector = Collector::default();
        let second = 1_000_000_000;
        for at in [1, 2, 30, 100] {
            collector.fact(&refused(80, at * second));
        }
        let failing = collector.snapshot(&World::default(), 110 * second).failing;
        assert_eq!(failing.len(), 1);
        let row = &failing[0];
        assert_eq!((row.count, row.rate, row.last_ns), (4, 1, 100 * second));
        assert_eq!(row.process, "\"a\\u{1b}b\"[7]");
        assert_eq!(row.error, "refused (ECONNREFUSED)");
        let later = collector.snapshot(&World::default(), 200 * second).failing;
        assert_eq!((later[0].count, later[0].rate), (4, 0));
    }

    #[test]
    fn a_program_that_fails_everywhere_fills_no_more_than_a_table_and_the_latest_stay() {
        let mut collector = Collector::default();
        for port in 1..=1000 {
            collector.fact(&refused(port, u64::from(port)));
            assert!(collector.failing.len() <= ROWS);
        }
        let snapshot = collector.snapshot(&World::default(), 1000);
        assert!(snapshot.failing.iter().any(|row| row.destination.ends_with(":1000")));
    }
}
