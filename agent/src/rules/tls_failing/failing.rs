//! Handshakes of one program with one peer or service that fail in the same way: how often, with whom, since when.
//! Bounded; what finds no room is counted, not listed.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use ebpf_probes::{abi::Owner, probes::tls::Handshake};

use super::{
    WINDOW_NS,
    ending::{Ending, How, role},
    times::Times,
};
use crate::{domains::tls::Role, pipeline::incident::TlsFailure, text::host::Name, time::SECOND_NS};

/// Failures that are kept as evidence, at most.
const RECENT: usize = 64;
/// Addresses of the other end listed at most, and names asked for.
const PEERS: usize = 256;
const NAMES: usize = 16;

/// One handshake that failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) at: u64,
    pub(super) peer: IpAddr,
    pub(super) how: How,
    pub(super) lasted_ns: u64,
    /// It, and those before it that were not reported.
    weight: u64,
}

/// What is known of the handshake that failed last.
#[derive(Clone)]
pub(super) struct Last {
    pub(super) at: u64,
    pub(super) hs: Handshake,
    pub(super) owner: Owner,
    pub(super) sni: Option<Name>,
    pub(super) version: Option<String>,
}

/// Those that fail in one way.
pub(super) struct Failing {
    /// The incident; empty while there is none.
    pub(super) id: String,
    pub(super) failure: TlsFailure,
    pub(super) by: Role,
    pub(super) last: Last,
    /// The last ones, oldest first.
    pub(super) recent: VecDeque<Failure>,
    pub(super) began_ns: u64,
    pub(super) endings: BTreeMap<How, u64>,
    pub(super) peers: BTreeMap<IpAddr, u64>,
    /// Failures with addresses that found no room.
    pub(super) left_out: u64,
    names: Vec<(Name, u64)>,
    /// Handshakes the service had completed by the first failure.
    served_first: u32,
    /// The clock's incident that was last said to explain it.
    pub(super) clock: Option<String>,
    /// In which time the processes live.
    pub(super) times: Times,
}

impl Failing {
    pub(super) fn new(ending: &Ending, last: Last) -> Self {
        Self {
            id: String::new(),
            failure: ending.failure,
            by: ending.by,
            served_first: last.hs.served,
            began_ns: last.at,
            last,
            recent: VecDeque::new(),
            endings: BTreeMap::new(),
            peers: BTreeMap::new(),
            left_out: 0,
            names: vec![],
            clock: None,
            times: Times::default(),
        }
    }

    /// Which side this host is.
    pub(super) fn role(&self) -> Role {
        role(&self.last.hs)
    }

    /// Another one failed.
    pub(super) fn add(&mut self, ending: &Ending, last: Last, peer: IpAddr) {
        let failure = Failure {
            at: last.at,
            peer,
            how: ending.how,
            lasted_ns: last.at.saturating_sub(last.hs.started_ns),
            weight: 1 + u64::from(last.hs.unreported),
        };
        self.by = ending.by;
        if self.id.is_empty() {
            self.forget_before(last.at);
        } else {
            self.count(&failure);
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(failure);
        if let Some(name) = &last.sni {
            let known = self.names.iter().position(|(known, _)| known == name);
            match known {
                Some(at) => self.names[at].1 += 1,
                None if self.names.len() < NAMES => self.names.push((name.clone(), 1)),
                None => {}
            }
        }
        self.last = last;
    }

    /// Forgets what is no longer recent: while there is no incident that rests on it.
    pub(super) fn forget_before(&mut self, now_ns: u64) {
        while self.recent.front().is_some_and(|failure| now_ns.saturating_sub(failure.at) >= WINDOW_NS) {
            self.recent.pop_front();
        }
    }

    /// It becomes an incident by what there is of it.
    pub(super) fn begins(&mut self) {
        self.began_ns = self.recent.front().map_or(self.began_ns, |failure| failure.at);
        for failure in self.recent.clone() {
            self.count(&failure);
        }
    }

    fn count(&mut self, failure: &Failure) {
        *self.endings.entry(failure.how).or_default() += failure.weight;
        if self.peers.contains_key(&failure.peer) || self.peers.len() < PEERS {
            *self.peers.entry(failure.peer).or_default() += failure.weight;
        } else {
            self.left_out += failure.weight;
        }
    }

    /// Failures since it began.
    pub(super) fn total(&self) -> u64 {
        self.endings.values().sum()
    }

    /// The ending there is most of; of several, an alert that is in clear, for it says why.
    pub(super) fn most(&self) -> How {
        let clear = |how: &How| matches!(how, How::Alert(_));
        let most = self.endings.iter().max_by_key(|(how, count)| (clear(how), **count));
        most.map_or(How::Closed, |(how, _)| *how)
    }

    /// The name asked for most often, if names are asked for.
    pub(super) fn name(&self) -> Option<&Name> {
        self.names.iter().max_by_key(|(_, count)| *count).map(|(name, _)| name)
    }

    /// Handshakes the service completed since it began; 0 where they are not counted.
    pub(super) fn completed(&self) -> u64 {
        self.last.hs.served.checked_sub(self.served_first).map_or(0, u64::from)
    }

    /// From the first to the last of those that are recent.
    pub(super) fn span_ns(&self) -> u64 {
        let at = |failure: Option<&Failure>| failure.map_or(0, |failure| failure.at);
        at(self.recent.back()).saturating_sub(at(self.recent.front()))
    }

    /// Whether several of them prove nothing when they come at once: closed connections, as a restart closes those that
    /// are under way, and what a scanner's clients do before it is known as one.
    pub(super) fn takes_time(&self) -> bool {
        let is_closed = matches!(
            self.failure,
            TlsFailure::ClosedUnanswered
                | TlsFailure::ClosedAfterServerFlight
                | TlsFailure::ClosedAfterClientFlight
        );
        is_closed || (self.role() == Role::Server && self.failure != TlsFailure::ServerFlightRefused)
    }
}

/// Those that prove nothing at once count from here on.
pub(super) const SPREAD_NS: u64 = SECOND_NS;
