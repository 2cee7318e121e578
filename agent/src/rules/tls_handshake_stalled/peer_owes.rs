//! Handshakes of this host's clients whose ClientHello is not answered: the peer has acknowledged it and is silent, or it
//! never acknowledged it. Then the peer or the path is named, never this host. One whose other end is this host's too is
//! reported there, where more is known.

use std::collections::{BTreeMap, BTreeSet};

use ebpf_probes::{
    abi::Tuple,
    probes::{
        connect::{Unacked, unacked},
        tls::{CLIENT, Handshake, stage},
    },
};

use super::{
    peer_says,
    peer_waits::{End, Group, Waits},
};
use crate::{
    known::bounded::{Bounded, Table},
    pipeline::View,
    records,
    rules::text,
};

/// Handshakes followed at most.
const HANDSHAKES: usize = 4096;
/// A peer that has acknowledged a ClientHello and says nothing for this long does not answer.
const SILENT_NS: u64 = 10_000_000_000;

pub(super) struct PeerOwes {
    waits: Bounded<u64, Waits>,
    groups: BTreeMap<String, Group>,
}

impl Default for PeerOwes {
    fn default() -> Self {
        Self { waits: Bounded::new(HANDSHAKES), groups: BTreeMap::new() }
    }
}

/// Whether the peer owes the first answer.
fn peer_owes(hs: &Handshake) -> bool {
    hs.role == CLIENT && matches!(hs.stage, stage::HELLO_PARTIAL | stage::HELLO)
}

/// Whether these are the two ends of one connection.
pub(super) fn mirrored(one: &Tuple, other: &Tuple) -> bool {
    (one.local, one.local_port, one.remote, one.remote_port)
        == (other.remote, other.remote_port, other.local, other.local_port)
}

fn ended(stage: u32) -> End {
    match stage {
        stage::ALERT => ("failed", "then the handshake ended with an alert"),
        stage::CLOSED => ("closed", "then the connection was closed"),
        stage::NOT_TLS => ("not_tls", "then something came that is not TLS"),
        _ => ("answered", "then it did"),
    }
}

impl PeerOwes {
    pub(super) fn table(&self) -> Table {
        self.waits.table("tls_handshake_stalled_peers")
    }

    /// It has moved.
    pub(super) fn moved(&mut self, hs: &Handshake, at_ns: u64, view: &mut View<'_>) {
        if self.waits.get(&hs.cookie).is_some() {
            self.seen(hs, at_ns, view);
        }
    }

    /// It makes no progress.
    pub(super) fn seen(&mut self, hs: &Handshake, at_ns: u64, view: &mut View<'_>) {
        if !peer_owes(hs) {
            return self.over(hs, at_ns, view);
        }
        if let Some(known) = self.waits.get_mut(&hs.cookie) {
            known.hs = *hs;
        } else if self.waits.len() < HANDSHAKES {
            // What finds no room is left out: an entry that gave way would leave its situation open.
            let sni = view.world.server_name(hs.cookie);
            let (since_ns, subject) = (hs.moved_ns, None);
            let waits = Waits { hs: *hs, sni, unacked: None, since_ns, subject, seen_there: false };
            self.waits.insert(hs.cookie, waits);
        }
    }

    /// What a connection has sent is not acknowledged: of one of these it is the ClientHello.
    pub(super) fn unacked(&mut self, unacked: &Unacked, view: &mut View<'_>) {
        if unacked.cookie == 0 {
            return;
        }
        let Some(waits) = self.waits.get_mut(&unacked.cookie) else { return };
        waits.unacked = Some(*unacked);
        let is_open = waits.subject.clone();
        match is_open {
            Some(subject) => self.update(&subject, unacked.cookie, view),
            None => self.open(unacked.cookie, view),
        }
    }

    /// It is acknowledged now, or the connection has ended, which its handshake says too.
    pub(super) fn settled(&mut self, now: &Unacked, view: &mut View<'_>) {
        let Some(waits) = self.waits.get_mut(&now.cookie).filter(|_| now.cookie != 0) else { return };
        if now.flags & (unacked::CLOSED | unacked::ORPHAN | unacked::GONE) != 0 {
            return;
        }
        waits.unacked = None;
        if let Some(subject) = waits.subject.clone() {
            self.update(&subject, now.cookie, view);
        }
    }

    /// Opens what has waited long enough. `there`: whether the other end of a connection is stalled on this host.
    pub(super) fn tick(&mut self, there: impl Fn(&Handshake) -> bool, view: &mut View<'_>) {
        let due = |waits: &Waits| {
            waits.subject.is_none()
                && !waits.seen_there
                && view.now_ns.saturating_sub(waits.hs.moved_ns) >= SILENT_NS
        };
        let mut cookies: Vec<(u64, u64)> = self
            .waits
            .iter()
            .filter(|(_, waits)| due(waits))
            .map(|(cookie, waits)| (waits.hs.moved_ns, *cookie))
            .collect();
        cookies.sort_unstable();
        for (_, cookie) in cookies {
            let Some(waits) = self.waits.get_mut(&cookie) else { continue };
            waits.seen_there = there(&waits.hs);
            if !waits.seen_there {
                self.open(cookie, view);
            }
        }
    }

    fn open(&mut self, cookie: u64, view: &mut View<'_>) {
        let Some(waits) = self.waits.get_mut(&cookie) else { return };
        let hs = waits.hs;
        // Adopted ones, and those of others, are not this host's clients for sure.
        if !view.world.known.is_wanted(&hs.owner) || view.store.live_claim(cookie).is_some() {
            return;
        }
        let (netns, program, _) = text::program_of(&hs.owner, view.world);
        let to = records::address(hs.tuple.remote);
        let subject = format!("client {netns}|{program}|{to}|{}", hs.tuple.remote_port);
        waits.subject = Some(subject.clone());
        waits.since_ns = hs.moved_ns;
        let is_new = !self.groups.contains_key(&subject);
        let group = self.groups.entry(subject.clone()).or_insert_with(|| Group {
            id: String::new(),
            subject: subject.clone(),
            total: 0,
            waiting: BTreeSet::new(),
        });
        group.total += 1;
        group.waiting.insert((hs.moved_ns, cookie));
        let (id, total) = (group.id.clone(), group.total);
        if is_new {
            let Some(report) = self.report(&subject, view.now_ns, None, view) else { return };
            let id = view.store.open(view.now_ns, view.world, report);
            view.store.claim(cookie, &id);
            if let Some(group) = self.groups.get_mut(&subject) {
                group.id = id;
            }
            return;
        }
        view.store.claim(cookie, &id);
        if total.is_power_of_two()
            && let Some(report) = self.report(&subject, view.now_ns, None, view)
        {
            view.store.update(view.now_ns, view.world, &id, report);
        }
    }

    /// What is new of the oldest one is reported.
    fn update(&mut self, subject: &str, cookie: u64, view: &mut View<'_>) {
        let Some(group) = self.groups.get(subject) else { return };
        let id = group.id.clone();
        if group.waiting.first().is_some_and(|(_, oldest)| *oldest == cookie)
            && let Some(report) = self.report(subject, view.now_ns, None, view)
        {
            view.store.update(view.now_ns, view.world, &id, report);
        }
    }

    fn report(
        &self,
        subject: &str,
        now_ns: u64,
        end: Option<End>,
        view: &View<'_>,
    ) -> Option<crate::pipeline::report::Report> {
        let group = self.groups.get(subject)?;
        let (_, oldest) = group.waiting.first()?;
        Some(peer_says::report(group, self.waits.get(oldest)?, now_ns, end, view))
    }

    /// It was answered, or ended.
    fn over(&mut self, hs: &Handshake, at_ns: u64, view: &mut View<'_>) {
        let Some(waits) = self.waits.get(&hs.cookie) else { return };
        let key = (waits.since_ns, hs.cookie);
        if let Some(subject) = waits.subject.clone()
            && let Some(group) = self.groups.get(&subject)
        {
            if group.waiting.len() <= 1 {
                let (id, report) =
                    (group.id.clone(), self.report(&subject, at_ns, Some(ended(hs.stage)), view));
                self.groups.remove(&subject);
                if let Some(report) = report {
                    view.store.over(at_ns, &id, report);
                }
            } else if let Some(group) = self.groups.get_mut(&subject) {
                group.waiting.remove(&key);
            }
        }
        self.waits.remove(&hs.cookie);
    }
}
