//! `tls_handshake_stalled`: a handshake makes no progress and this host owes the next message. Groups
//! the handshakes that stall for one reason into one situation; whom to blame is [`blame`]'s business,
//! what to say about it [`say`]'s. A handshake whose peer owes the next message is none of this rule's.

mod advice;
mod blame;
mod evidence;
mod rivals;
mod say;
mod situation;
mod suspects;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use blame::{Blame, Stall, Suspect};
use ebpf_probes::probes::tls::Handshake;
use situation::{
    Situation, Waiting, conclusion, key, owed_here, owner, service, still_pending, unread, was_unread,
};

use super::{Diagnose, Rule};
use crate::{
    correlate::{
        Look, View, Whom,
        incident::{Confidence, Kind},
    },
    enrich::{
        bounded::{Bounded, Table},
        context::Snapshot,
    },
    event::{Event, TlsStep, What},
    text::host::Name,
};

/// Handshakes followed at most, and situations.
const HANDSHAKES: usize = 4096;
const SITUATIONS: usize = 128;
/// A process is looked at at most this often.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

pub(super) const RULE: Rule = Rule {
    kind: Kind::TlsHandshakeStalled,
    about: "a TLS handshake stands still and this host owes the next message: what its process waits for",
    opens: "no progress for 1 s (--tls-stall) while the next message is this host's to send",
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
        ]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            What::Tls(TlsStep::Pending, hs) => self.pending(hs, view),
            What::Tls(TlsStep::Read, hs) => self.read(hs, view),
            What::Tls(TlsStep::Phase, hs) => self.moved(hs, event.boot_ns, view),
            What::Tick => self.judge(true, view),
            _ => {}
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, view: &mut View<'_>) {
        self.snapshots.insert(snapshot.process, Arc::new(snapshot.clone()));
        self.judge(false, view);
    }
}

impl TlsHandshakeStalled {
    fn pending(&mut self, hs: &Handshake, view: &mut View<'_>) {
        if !owed_here(hs) {
            return;
        }
        let sni = view.world.server_name(hs.cookie);
        let known = self.stalled.get_mut(&hs.cookie).and_then(|known| {
            (known.hs, known.sni) = (*hs, sni.clone());
            known.situation
        });
        if let Some(number) = known {
            // Told again each time its age has doubled.
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

    /// Somebody has read what waited: the stall goes on, and is that thread's now.
    fn read(&mut self, hs: &Handshake, view: &mut View<'_>) {
        let Some(known) = self.stalled.get_mut(&hs.cookie) else { return };
        known.hs = *hs;
        let Some(number) = known.situation else { return };
        let Some(situation) = self.situations.get_mut(&number) else { return };
        situation.waiting.insert(hs.cookie, unread(hs));
        if situation.lead.cookie == hs.cookie {
            self.refresh(number, false, view);
        }
    }

    /// Gives each new stall its situation. Those somebody has read come first: they may be why the others
    /// are not read. With `all`, the situations there are are weighed anew.
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

    /// Finds or begins the handshake's situation. Its service: not yet, its process is being looked at, or,
    /// for what nobody has read, that of another handshake of the same service is.
    fn place(&mut self, cookie: u64, undecided: &[String], view: &mut View<'_>) -> Option<String> {
        let waiting = self.stalled.get(&cookie)?;
        let (mut hs, sni) = (waiting.hs, waiting.sni.clone());
        let owner = owner(&hs, view);
        if !view.world.is_wanted(&owner) {
            return None;
        }
        if unread(&hs) {
            hs.owner = owner;
        }
        let service = service(&hs, &owner);
        let snapshot = self.snapshot_for(&hs, owner.process);
        let stall = self.stall(&hs, view.now_ns, false, snapshot.as_deref(), view);
        if stall.waits_for_peer() {
            return None;
        }
        let blame = if unread(&hs) { None } else { stall.blame(None) };
        let key = key(&hs, blame.as_ref());
        if let Some(number) = self.like(&service, &key, unread(&hs)) {
            self.join(number, cookie, &hs, blame.as_ref(), view);
            return None;
        }
        if unread(&hs) && undecided.contains(&service) {
            return Some(service);
        }
        if snapshot.is_none() && owner.process != 0 {
            let looked_ns = self.looked_ns.get(&owner.process).copied();
            if looked_ns.is_none_or(|at| view.now_ns.saturating_sub(at) >= LOOK_EVERY_NS) {
                self.looked_ns.insert(owner.process, view.now_ns);
                let whom = Whom { process: owner.process, thread: hs.reader.thread, cookie: hs.cookie };
                view.looks.push(Look::Process(whom));
                return Some(service);
            }
            // The answer comes before time goes on, or not at all.
            if looked_ns == Some(view.now_ns) {
                return Some(service);
            }
        }
        self.begin(&hs, sni, service, key, blame, snapshot, view);
        None
    }

    /// A situation of this service and reason; for what nobody has read, any that keeps the service busy.
    fn like(&self, service: &str, key: &str, unread: bool) -> Option<u64> {
        let same = |situation: &&Situation| situation.service == service;
        let exact = self.situations.iter().find(|(_, situation)| same(situation) && situation.key == key);
        let any = || self.situations.iter().find(|(_, situation)| unread && same(situation));
        exact.or_else(any).map(|(number, _)| *number)
    }

    fn join(&mut self, number: u64, cookie: u64, hs: &Handshake, blame: Option<&Blame>, view: &mut View<'_>) {
        if let Some(waiting) = self.stalled.get_mut(&cookie) {
            waiting.situation = Some(number);
        }
        let Some(situation) = self.situations.get_mut(&number) else { return };
        situation.waiting.insert(cookie, unread(hs));
        situation.count += 1;
        let (id, due) = (situation.id.clone(), situation.count.is_power_of_two());
        self.note_blamed(&id, blame, view);
        // One handshake more is told when their number has doubled.
        if due {
            self.refresh(number, true, view);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a situation, each with a name")]
    fn begin(
        &mut self,
        hs: &Handshake,
        sni: Option<Name>,
        service: String,
        key: String,
        blame: Option<Blame>,
        snapshot: Option<Arc<Snapshot>>,
        view: &mut View<'_>,
    ) {
        if self.situations.len() >= SITUATIONS {
            return;
        }
        self.next += 1;
        let number = self.next;
        if let Some(waiting) = self.stalled.get_mut(&hs.cookie) {
            waiting.situation = Some(number);
        }
        let mut situation = Situation {
            service,
            told: conclusion(&key, blame.as_ref(), view),
            key,
            id: String::new(),
            lead: *hs,
            sni,
            blame,
            snapshot,
            began_ns: hs.moved_ns,
            count: 1,
            waiting: BTreeMap::from([(hs.cookie, unread(hs))]),
        };
        let report = say::report(&situation, view.now_ns, None, view);
        situation.id = view.store.open(view.now_ns, view.world, report);
        self.note_blamed(&situation.id, situation.blame.as_ref(), view);
        self.situations.insert(number, situation);
    }

    /// Weighs the evidence anew; tells it when the conclusion has changed, or when it is due.
    fn refresh(&mut self, number: u64, due: bool, view: &mut View<'_>) {
        let Some(situation) = self.situations.get(&number) else { return };
        let Some(waiting) = self.stalled.get(&situation.lead.cookie) else { return };
        let (mut hs, sni) = (waiting.hs, waiting.sni.clone());
        if was_unread(situation, &hs, view.now_ns) {
            return;
        }
        if unread(&hs) {
            hs.owner = owner(&hs, view);
        }
        let snapshot = situation.snapshot.clone();
        let stall = self.stall(&hs, view.now_ns, false, snapshot.as_deref(), view);
        let blame = if unread(&hs) { None } else { stall.blame(None) };
        let Some(mut situation) = self.situations.remove(&number) else { return };
        // Doubt does not take back what was sure; a new suspect does.
        let kept = blame.is_none() && situation.blame.is_some() && !unread(&hs);
        if !kept {
            situation.key = key(&hs, blame.as_ref());
            situation.blame = blame;
        }
        (situation.lead, situation.sni) = (hs, sni);
        let now = conclusion(&situation.key, situation.blame.as_ref(), view);
        if due || now != situation.told {
            situation.told = now;
            let report = say::report(&situation, view.now_ns, None, view);
            view.store.update(view.now_ns, view.world, &situation.id, report);
        }
        self.note_blamed(&situation.id, situation.blame.as_ref(), view);
        self.situations.insert(number, situation);
    }

    /// A handshake moved, or ended.
    fn moved(&mut self, hs: &Handshake, at_ns: u64, view: &mut View<'_>) {
        let Some(waiting) = self.stalled.get(&hs.cookie) else { return };
        let (before, number) = (waiting.hs, waiting.situation);
        self.stalled.remove(&hs.cookie);
        let Some(number) = number else { return };
        let Some(mut situation) = self.situations.remove(&number) else { return };
        situation.waiting.remove(&hs.cookie);
        let leads = situation.lead.cookie == hs.cookie;
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
            if let Some((hs, sni)) = next {
                (situation.lead, situation.sni) = (hs, sni);
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
            (None, before) => before,
        };
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

    /// A look at the process that is younger than the stall.
    fn snapshot_for(&self, hs: &Handshake, process: u32) -> Option<Arc<Snapshot>> {
        let snapshot = self.snapshots.get(&process)?;
        (snapshot.boot_ns >= hs.read_ns.max(hs.moved_ns)).then(|| snapshot.clone())
    }

    /// What is blamed explains itself here, and nowhere else.
    fn note_blamed(&mut self, id: &str, blame: Option<&Blame>, view: &mut View<'_>) {
        let Some(Blame { suspect, confidence, mixed, .. }) = blame else { return };
        if *confidence == Confidence::Possible && !mixed {
            return;
        }
        if let Suspect::Connect(op, _) = suspect {
            view.store.claim(op.connect.cookie, id);
        }
        for cookie in suspect.attempts(view.world) {
            if self.blamed.get(&cookie).is_none() {
                self.blamed.insert(cookie, ());
            }
        }
    }
}
