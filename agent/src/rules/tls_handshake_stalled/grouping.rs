//! Which stalled handshakes are one situation: those of a service that wait for the same, of whichever process of the
//! program. A situation begins with the first, others join it, and two that prove to have one cause become one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ebpf_probes::probes::tls::Handshake;

use super::{
    TlsHandshakeStalled, Weighed,
    aside::LeftOut,
    obstacle::{Obstacle, computes},
    say,
    situation::{PEERS, Situation, Speaks, key, owner, program, service, speaks, was_unread},
    stall::unread,
    suspects::{Blame, Suspect},
};
use crate::{
    known::context::Snapshot,
    pipeline::{View, incident::Confidence},
    text::host::Name,
};

/// Situations at most.
const SITUATIONS: usize = 128;
/// A thread that lacks nothing but a processor is given this long: others of a busy machine have it.
const CATCHES_UP_NS: u64 = 3_000_000_000;

impl TlsHandshakeStalled {
    /// Finds or begins the handshake's situation. Its service: not yet, its process is being looked at, or,
    /// for what no thread has read, that of another handshake of the same service is.
    pub(super) fn place(&mut self, cookie: u64, undecided: &[String], view: &mut View<'_>) -> Option<String> {
        let waiting = self.stalled.get(&cookie)?;
        let (mut hs, sni) = (waiting.hs, waiting.sni.clone());
        let asked = owner(&hs, None, view);
        if !view.world.known.is_wanted(&asked) {
            return None;
        }
        let snapshot = self.snapshot_for(&hs, asked.process);
        let owner = owner(&hs, snapshot.as_deref(), view);
        if unread(&hs) {
            hs.owner = owner;
        }
        let service = service(&hs, &owner);
        let Weighed { blame, left_out, waits_for_peer } = self.weigh(&hs, snapshot.as_deref(), view);
        if waits_for_peer {
            return None;
        }
        let answers = self.answers(&hs);
        let speaks = speaks(&hs, blame.as_ref(), &left_out, snapshot.as_deref(), answers);
        if snapshot.is_some() && speaks == Speaks::NoTls {
            return None;
        }
        let key = key(&hs, blame.as_ref());
        let like = self.like(&service, &key, unread(&hs));
        if let Some(number) = like.or_else(|| self.same_story(&hs, &key, blame.as_ref(), view)) {
            self.join(number, cookie, &hs, blame.as_ref(), view);
            return None;
        }
        if unread(&hs) && undecided.contains(&service) {
            return Some(service);
        }
        if snapshot.is_none() && asked.process != 0 {
            self.look_at(asked.process, &hs, view);
            // The answer comes before time goes on, or not at all.
            if self.looked_ns.get(&asked.process) == Some(&view.now_ns) {
                return Some(service);
            }
        }
        if blame.is_none() && self.may_catch_up(&hs, snapshot.as_deref(), view) {
            self.look_at(asked.process, &hs, view);
            return Some(service);
        }
        self.begin(&hs, sni, service, key, (blame, left_out), snapshot, view);
        None
    }

    /// Nothing is in the way, and it computes, or waits for a processor that others have.
    fn may_catch_up(&self, hs: &Handshake, snapshot: Option<&Snapshot>, view: &View<'_>) -> bool {
        view.now_ns.saturating_sub(hs.moved_ns) < CATCHES_UP_NS
            && Obstacle::of(snapshot, hs, None).is_none()
            && snapshot.is_some_and(|snapshot| computes(snapshot, hs))
    }

    /// A situation of this service and reason; for what no thread has read, any that keeps the service busy.
    fn like(&self, service: &str, key: &str, unread: bool) -> Option<u64> {
        let same = |situation: &&Situation| situation.service == service;
        let exact = self.situations.iter().find(|(_, situation)| same(situation) && situation.key == key);
        let any = || self.situations.iter().find(|(_, situation)| unread && same(situation));
        exact.or_else(any).map(|(number, _)| *number)
    }

    /// A situation of the same program, in whichever of its processes and on whichever port, with the same cause: a pool of
    /// processes suffers it together.
    fn same_story(&self, hs: &Handshake, key: &str, blame: Option<&Blame>, view: &View<'_>) -> Option<u64> {
        blame.filter(|blame| blame.confidence > Confidence::Possible)?;
        let program = program(hs, view)?;
        let same = |situation: &Situation| {
            situation.key == key
                && situation.lead.role == hs.role
                && super::situation::program(&situation.lead, view).as_ref() == Some(&program)
        };
        self.situations.iter().find(|(_, situation)| same(situation)).map(|(number, _)| *number)
    }

    /// What a situation waits for proves to be another one's cause: it goes on as part of that.
    pub(super) fn merge(&mut self, situation: &Situation, into: u64, view: &mut View<'_>) {
        let mut report = say::report(situation, view.now_ns, None, view);
        let Some(other) = self.situations.get_mut(&into) else { return };
        report.caused_by = vec![other.id.clone()];
        let evidence = "another incident has the same cause: its updates stand there";
        report.evidence.push((view.now_ns, evidence.into()));
        for (cookie, unread) in &situation.waiting {
            other.waiting.insert(*cookie, *unread);
            if let Some(waiting) = self.stalled.get_mut(cookie) {
                waiting.situation = Some(into);
            }
        }
        let room = PEERS.saturating_sub(other.peers.len());
        other.peers.extend(situation.peers.iter().take(room));
        other.count += situation.count;
        other.began_ns = other.began_ns.min(situation.began_ns);
        let id = other.id.clone();
        view.store.over(view.now_ns, &situation.id, report);
        self.note_blamed(&id, situation.blame.as_ref(), view);
        self.refresh(into, true, view);
    }

    fn join(&mut self, number: u64, cookie: u64, hs: &Handshake, blame: Option<&Blame>, view: &mut View<'_>) {
        if let Some(waiting) = self.stalled.get_mut(&cookie) {
            waiting.situation = Some(number);
        }
        let Some(situation) = self.situations.get_mut(&number) else { return };
        situation.waiting.insert(cookie, unread(hs));
        if situation.peers.len() < PEERS {
            situation.peers.insert(hs.tuple.remote);
        }
        situation.count += 1;
        let (id, due) = (situation.id.clone(), situation.count.is_power_of_two());
        self.note_blamed(&id, blame, view);
        // One handshake more is reported when their number has doubled.
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
        (blame, left_out): (Option<Blame>, LeftOut),
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
            emitted: (String::new(), Confidence::Possible, vec![]),
            key,
            id: String::new(),
            lead: *hs,
            sni,
            blame,
            left_out,
            answers: self.answers(hs),
            peers: BTreeSet::from([hs.tuple.remote]),
            snapshot,
            slowed: None,
            began_ns: hs.moved_ns,
            count: 1,
            waiting: BTreeMap::from([(hs.cookie, unread(hs))]),
        };
        situation.emitted = situation.conclusion(view);
        let report = say::report(&situation, view.now_ns, None, view);
        situation.id = view.store.open(view.now_ns, view.world, report);
        self.note_blamed(&situation.id, situation.blame.as_ref(), view);
        self.situations.insert(number, situation);
    }

    /// Weighs the evidence again; reports it when the conclusion has changed, or when it is due.
    pub(super) fn refresh(&mut self, number: u64, due: bool, view: &mut View<'_>) {
        let Some(situation) = self.situations.get(&number) else { return };
        let Some(waiting) = self.stalled.get(&situation.lead.cookie) else { return };
        let (mut hs, sni) = (waiting.hs, waiting.sni.clone());
        if was_unread(situation, &hs, view.now_ns) {
            return;
        }
        let known = situation.snapshot.clone();
        let snapshot = self.current_look(known.as_ref(), &hs, view);
        if unread(&hs) {
            hs.owner = owner(&hs, snapshot.as_deref(), view);
        }
        let Weighed { blame, left_out, .. } = self.weigh(&hs, snapshot.as_deref(), view);
        let answers = self.answers(&hs);
        let Some(mut situation) = self.situations.remove(&number) else { return };
        let before = situation.key.clone();
        // Doubt does not take back what was sure; a new suspect does.
        if blame.is_none() && situation.blame.is_some() {
            let kept = situation.blame.take();
            situation.blame = match unread(&hs) {
                true => kept.and_then(|kept| kept.left_behind(view.world, view.now_ns)),
                false => kept.map(|kept| kept.refreshed(view.world)),
            };
            if situation.blame.is_none() {
                situation.key = key(&hs, None);
            }
        } else {
            situation.key = key(&hs, blame.as_ref());
            situation.blame = blame;
        }
        situation.snapshot = snapshot;
        situation.left_out = left_out;
        situation.answers |= answers;
        (situation.lead, situation.sni) = (hs, sni);
        if situation.key != before
            && let Some(other) = self.same_story(&hs, &situation.key, situation.blame.as_ref(), view)
        {
            self.merge(&situation, other, view);
            return;
        }
        let now = situation.conclusion(view);
        if due || now != situation.emitted {
            situation.emitted = now;
            let report = say::report(&situation, view.now_ns, None, view);
            view.store.update(view.now_ns, view.world, &situation.id, report);
        }
        self.note_blamed(&situation.id, situation.blame.as_ref(), view);
        if situation.blame.is_none() && situation.wants_second_look(view.now_ns) {
            let process = situation.snapshot.as_ref().map_or(0, |seen| seen.process);
            self.look_at(process, &hs, view);
        }
        self.situations.insert(number, situation);
    }

    /// What is blamed explains itself here, and nowhere else.
    pub(super) fn note_blamed(&mut self, id: &str, blame: Option<&Blame>, view: &mut View<'_>) {
        let Some(Blame { suspect, confidence, mixed, .. }) = blame else { return };
        if *confidence == Confidence::Possible && !mixed {
            return;
        }
        if let Suspect::Connect(op, _) = suspect {
            view.store.claim(op.connect.cookie, id);
        }
        for cookie in suspect.attempts(view.world) {
            // A lookup may have an incident of its own, which explains this one.
            if matches!(suspect, Suspect::Lookup(_)) && view.store.live_claim(cookie).is_none() {
                view.store.claim(cookie, id);
            }
            if self.blamed.get(&cookie).is_none() {
                self.blamed.insert(cookie, ());
            }
        }
    }
}
