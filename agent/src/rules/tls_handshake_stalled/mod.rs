//! `tls_handshake_stalled`: a handshake makes no progress and this host owes the next message. Groups
//! the handshakes that stall for one reason into one situation; whom to blame is [`blame`]'s business,
//! what to say about it [`say`]'s. Clients whose peer owes the first answer are [`peer_owes`]'s.

#[cfg(test)]
mod adopted_tests;
mod advice;
mod aside;
#[cfg(test)]
mod attribution_tests;
mod blame;
mod candidates;
mod evidence;
mod grouping;
mod idle;
mod obstacle;
mod obstacle_advice;
#[cfg(test)]
mod obstacle_tests;
mod obstacle_words;
mod peer_owes;
mod peer_says;
#[cfg(test)]
mod peer_tests;
mod peer_waits;
mod rivals;
mod say;
mod situation;
mod stall;
mod suspects;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use aside::LeftOut;
use ebpf_probes::{
    abi::Netns,
    probes::tls::{Handshake, SERVER, SPEAKS_TLS, stage},
};
use idle::as_if_read;
use obstacle::{Obstacle, Slowed};
use peer_owes::{PeerOwes, mirrored};
use situation::{Situation, key, owed_here, owner, still_pending, was_unread};
use stall::{Stall, Waiting, unread};
use suspects::Blame;

use crate::{
    domains::{
        Event, Record, connect,
        tls::{self, TlsStep},
    },
    known::{
        bounded::{Bounded, Table},
        context::Snapshot,
    },
    pipeline::{
        Diagnose, ProcessRef, Request, Rule, View,
        incident::{Confidence, Kind},
    },
};

/// Handshakes followed at most.
const HANDSHAKES: usize = 4096;
/// Services remembered to have answered a ClientHello, at most.
const SERVICES: usize = 4096;
/// A process is looked at at most this often.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

pub(super) const RULE: Rule = Rule {
    kind: Kind::TlsHandshakeStalled,
    about: "a TLS handshake stands still: this host owes the next message, and what its process waits for; or the peer or the path does",
    opens: "no progress for 1 s (--tls-stall) while the next message is this host's to send (3 s where its thread computes, or waits for a processor); a client's hello unanswered for 10 s, or never acknowledged",
    make: || Box::new(TlsHandshakeStalled::default()),
};

struct TlsHandshakeStalled {
    /// Stalled handshakes by cookie.
    stalled: Bounded<u64, Waiting>,
    /// Those that belong to no situation yet, in the order they came.
    fresh: Vec<u64>,
    situations: BTreeMap<u64, Situation>,
    next: u64,
    snapshots: Bounded<u32, Arc<Snapshot>>,
    looked_ns: Bounded<u32, u64>,
    /// Connects and lookups that were blamed for some stall: their like is no unrelated habit.
    blamed: Bounded<u64, ()>,
    /// Clients whose peers owe the answer.
    peers: PeerOwes,
    /// Services that have answered a ClientHello with a ServerHello: network namespace and port.
    answers: Bounded<(Netns, u16), ()>,
}

impl Default for TlsHandshakeStalled {
    fn default() -> Self {
        Self {
            stalled: Bounded::new(HANDSHAKES),
            fresh: Vec::new(),
            situations: BTreeMap::new(),
            next: 0,
            snapshots: Bounded::new(64),
            looked_ns: Bounded::new(1024),
            blamed: Bounded::new(4096),
            peers: PeerOwes::default(),
            answers: Bounded::new(SERVICES),
        }
    }
}

impl Diagnose for TlsHandshakeStalled {
    fn tables(&self) -> Vec<Table> {
        vec![
            self.stalled.table("tls_handshake_stalled_waiting"),
            self.snapshots.table("tls_handshake_stalled_snapshots"),
            self.looked_ns.table("tls_handshake_stalled_looked"),
            self.blamed.table("tls_handshake_stalled_blamed"),
            self.answers.table("tls_handshake_stalled_services"),
            self.peers.table(),
        ]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        self.at_peers(event, view);
        match &event.what {
            Record::Tls(tls::Record::Handshake(TlsStep::Pending, hs)) => self.pending(hs, view),
            Record::Tls(tls::Record::Handshake(TlsStep::Read, hs)) => self.read(hs, view),
            Record::Tls(tls::Record::Handshake(TlsStep::Phase, hs)) => self.moved(hs, event.boot_ns, view),
            Record::Tick => self.judge(true, view),
            _ => {}
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, view: &mut View<'_>) {
        for situation in self.situations.values_mut() {
            let slowed = situation.snapshot.as_ref().and_then(|before| Slowed::between(before, snapshot));
            situation.slowed = situation.slowed.or(slowed);
        }
        let seen = Arc::new(snapshot.clone());
        if snapshot.asked != 0 {
            self.snapshots.insert(snapshot.asked, seen.clone());
        }
        self.snapshots.insert(snapshot.process, seen);
        self.judge(false, view);
    }
}

impl TlsHandshakeStalled {
    /// What clients' handshakes wait for at their peers.
    fn at_peers(&mut self, event: &Event, view: &mut View<'_>) {
        let Self { peers, stalled, .. } = self;
        match &event.what {
            Record::Tls(tls::Record::Handshake(TlsStep::Pending, hs)) => {
                peers.seen(hs, event.boot_ns, view);
            }
            Record::Tls(tls::Record::Handshake(TlsStep::Phase, hs)) => peers.moved(hs, event.boot_ns, view),
            Record::Connect(connect::Record::Unacked(unacked)) => peers.unacked(unacked, view),
            Record::Connect(connect::Record::Settled(unacked)) => peers.settled(unacked, view),
            Record::Tick => {
                // Those of processes that are not asked for are reported nowhere.
                let servers: Vec<Handshake> = stalled
                    .values()
                    .map(|other| other.hs)
                    .filter(|hs| hs.role == SERVER)
                    .filter(|hs| view.world.known.is_wanted(&owner(hs, None, view)))
                    .collect();
                let there = |hs: &Handshake| {
                    servers
                        .iter()
                        .any(|other| mirrored(&other.tuple, &hs.tuple) || mirrored(&other.wire, &hs.tuple))
                };
                peers.tick(there, view);
            }
            _ => {}
        }
    }

    fn pending(&mut self, hs: &Handshake, view: &mut View<'_>) {
        if !owed_here(hs) {
            // It has moved, and that was lost: what it waits for now is the peer's to send.
            return self.moved(hs, view.now_ns, view);
        }
        let sni = view.world.server_name(hs.cookie);
        let known = self.stalled.get_mut(&hs.cookie).and_then(|known| {
            (known.hs, known.sni) = (*hs, sni.clone());
            known.situation
        });
        if let Some(number) = known {
            // Reported again each time its age has doubled.
            if self.situations.get(&number).is_some_and(|situation| situation.lead.cookie == hs.cookie) {
                self.refresh(number, true, view);
            }
            return;
        }
        if self.stalled.get(&hs.cookie).is_none() {
            self.stalled.insert(hs.cookie, Waiting { hs: *hs, sni, situation: None });
        }
        if !self.fresh.contains(&hs.cookie) && self.fresh.len() < HANDSHAKES {
            self.fresh.push(hs.cookie);
        }
    }

    /// A thread has read what waited: the stall goes on, and is that thread's now.
    fn read(&mut self, hs: &Handshake, view: &mut View<'_>) {
        let Some(known) = self.stalled.get_mut(&hs.cookie) else { return };
        let was_unread = unread(&known.hs);
        known.hs = *hs;
        let Some(number) = known.situation else { return };
        let Some(mut situation) = self.situations.remove(&number) else { return };
        situation.waiting.insert(hs.cookie, unread(hs));
        let leads = situation.lead.cookie == hs.cookie;
        if leads && was_unread && unread(&situation.lead) {
            self.settle_unread(&mut situation, hs, view);
        }
        self.situations.insert(number, situation);
        if leads {
            self.refresh(number, false, view);
        }
    }

    /// What the reading of a hello proves: what ended just before it was what the service did first.
    fn settle_unread(&self, situation: &mut Situation, hs: &Handshake, view: &View<'_>) {
        let unread = Handshake { flags: situation.lead.flags, ..*hs };
        let waited = as_if_read(&unread, &hs.reader);
        let snapshot = situation.snapshot.clone();
        let stall = self.stall(&waited, hs.read_ns, true, snapshot.as_deref(), view);
        if let Some(proven) = stall.blame(None)
            && situation.blame.as_ref().is_none_or(|before| before.confidence <= proven.confidence)
        {
            situation.key = proven.suspect.key();
            situation.blame = Some(proven);
        }
    }

    /// Gives each new stall its situation. Those a thread has read come first: they may be why the others
    /// are not read. With `all`, the situations there are are weighed again.
    fn judge(&mut self, all: bool, view: &mut View<'_>) {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|cookie| self.stalled.get(cookie).is_some());
        fresh.sort_by_key(|cookie| {
            self.stalled.get(cookie).map(|waiting| (unread(&waiting.hs), waiting.hs.moved_ns, *cookie))
        });
        let mut undecided = Vec::new();
        for cookie in fresh {
            if let Some(service) = self.place(cookie, &undecided, view) {
                undecided.push(service);
                self.fresh.push(cookie);
            }
        }
        if all {
            let numbers: Vec<u64> = self.situations.keys().copied().collect();
            for number in numbers {
                self.refresh(number, false, view);
            }
        }
    }

    /// Asks for a look at a process, unless it was looked at a moment ago.
    fn look_at(&mut self, process: u32, hs: &Handshake, view: &mut View<'_>) {
        let looked_ns = self.looked_ns.get(&process).copied();
        if looked_ns.is_none_or(|at| view.now_ns.saturating_sub(at) >= LOOK_EVERY_NS) {
            self.looked_ns.insert(process, view.now_ns);
            view.requests.push(Request::Process(ProcessRef {
                process,
                thread: hs.reader.thread,
                cookie: hs.cookie,
            }));
        }
    }

    /// The look that a situation rests on, if it is one at the process of the handshake that leads now; a new
    /// one, if that is another.
    fn current_look(
        &mut self,
        known: Option<&Arc<Snapshot>>,
        hs: &Handshake,
        view: &mut View<'_>,
    ) -> Option<Arc<Snapshot>> {
        let process = owner(hs, None, view).process;
        let is_of = |seen: &&Arc<Snapshot>| seen.process == process || (unread(hs) && seen.asked == process);
        if let Some(known) = known.filter(is_of) {
            return Some(known.clone());
        }
        let found = self.snapshot_for(hs, process);
        if found.is_none() && process != 0 {
            self.look_at(process, hs, view);
        }
        found
    }

    /// Whether the service has been seen to answer a ClientHello: here, or by the kernel, which remembers what was
    /// healthy too.
    fn answers(&self, hs: &Handshake) -> bool {
        hs.flags & SPEAKS_TLS != 0 || self.answers.get(&(hs.owner.netns, hs.tuple.local_port)).is_some()
    }

    /// What a handshake waits for, and what was left out when that is nothing.
    fn weigh(&self, hs: &Handshake, snapshot: Option<&Snapshot>, view: &View<'_>) -> Weighed {
        let as_read = unread(hs).then(|| as_if_read(hs, &hs.owner));
        let stall = self.stall(as_read.as_ref().unwrap_or(hs), view.now_ns, false, snapshot, view);
        // What the thread was seen in for certain is more than what may be.
        let sure =
            || Obstacle::of(snapshot, hs, None).is_some_and(|one| one.confidence == Confidence::Certain);
        let blame = stall.blame(None).filter(|blame| blame.confidence > Confidence::Possible || !sure());
        let left_out = if blame.is_none() { stall.left_out() } else { LeftOut::default() };
        Weighed { blame, left_out, waits_for_peer: stall.waits_for_peer() }
    }

    /// A handshake moved, or ended.
    fn moved(&mut self, hs: &Handshake, at_ns: u64, view: &mut View<'_>) {
        let service = (hs.owner.netns, hs.tuple.local_port);
        if hs.role == SERVER && hs.stage == stage::SERVER_FLIGHT && self.answers.get(&service).is_none() {
            self.answers.insert(service, ());
        }
        let Some(waiting) = self.stalled.get(&hs.cookie) else { return };
        let (before, number) = (waiting.hs, waiting.situation);
        self.stalled.remove(&hs.cookie);
        let Some(number) = number else { return };
        let Some(mut situation) = self.situations.remove(&number) else { return };
        situation.waiting.remove(&hs.cookie);
        let leads = situation.lead.cookie == hs.cookie;
        situation.answers |= self.answers(hs);
        if leads {
            self.settle(&mut situation, &before, at_ns, view);
        }
        if situation.waiting.is_empty() {
            let report = say::report(&situation, at_ns, Some(hs), view);
            view.store.over(at_ns, &situation.id, report);
            return;
        }
        if leads {
            let next = situation
                .waiting
                .iter()
                .filter_map(|(cookie, unread)| Some((*unread, self.stalled.get(cookie)?)))
                .min_by_key(|(unread, waiting)| (*unread, waiting.hs.moved_ns, waiting.hs.cookie))
                .map(|(_, waiting)| (waiting.hs, waiting.sni.clone()));
            if let Some((mut hs, sni)) = next {
                // Whose it is, too: no thread has read it, so only its service is known.
                if unread(&hs) {
                    hs.owner = owner(&hs, situation.snapshot.as_deref(), view);
                }
                (situation.lead, situation.sni) = (hs, sni);
                let before = situation.blame.take();
                situation.blame = match unread(&hs) {
                    true => before.and_then(|blame| blame.left_behind(view.world, at_ns)),
                    false => before.and_then(|blame| blame.inherited(view.world)),
                };
                situation.key = key(&hs, situation.blame.as_ref());
            }
        }
        self.situations.insert(number, situation);
    }

    /// What the end of a stall proves: whatever ended just before it was what it waited for.
    fn settle(&self, situation: &mut Situation, before: &Handshake, at_ns: u64, view: &View<'_>) {
        if unread(before) || was_unread(situation, before, at_ns) {
            return;
        }
        let snapshot = situation.snapshot.clone();
        let stall = self.stall(before, at_ns, true, snapshot.as_deref(), view);
        let suspected = situation.blame.as_ref().map(|blame| blame.suspect.cookie());
        let proven = stall.blame(suspected);
        situation.blame = match (proven, situation.blame.take()) {
            (Some(proven), Some(before)) if before.confidence > proven.confidence => Some(before),
            (Some(proven), _) => Some(proven),
            // It went on while the suspect was still pending: that was not it.
            (None, Some(mut before)) if still_pending(&before, view) => {
                before.confidence = Confidence::Possible;
                Some(before)
            }
            (None, before) => before.map(|before| before.refreshed(view.world)),
        };
        if situation.blame.is_none() {
            situation.left_out = stall.left_out();
        }
        situation.key = key(before, situation.blame.as_ref());
    }

    fn stall<'a>(
        &'a self,
        hs: &'a Handshake,
        now_ns: u64,
        moved: bool,
        snapshot: Option<&'a Snapshot>,
        view: &View<'a>,
    ) -> Stall<'a> {
        let (world, blamed, stalled) = (view.world, &self.blamed, &self.stalled);
        let (posture, habits) = Default::default();
        Stall { hs, now_ns, moved, world, snapshot, blamed, stalled, posture, habits }
    }

    /// A look at the process that is younger than the stall. A child that was seen in its parent's stead holds
    /// one connection: that says nothing about others.
    fn snapshot_for(&self, hs: &Handshake, process: u32) -> Option<Arc<Snapshot>> {
        let snapshot = self.snapshots.get(&process)?;
        let fits = snapshot.asked != process || snapshot.cookie == hs.cookie;
        (fits && snapshot.boot_ns >= hs.read_ns.max(hs.moved_ns)).then(|| snapshot.clone())
    }
}

/// What the weighing of one stall gave.
struct Weighed {
    blame: Option<Blame>,
    left_out: LeftOut,
    waits_for_peer: bool,
}
