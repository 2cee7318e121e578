//! ProcessRef a stalled handshake waits for: weighs what is under way, and what a snapshot of the process
//! showed, by thread, start, coverage and alignment. A wrong name is worse than none.

use std::cmp::Reverse;

use ebpf_probes::probes::tls::ADOPTED;

use super::{
    candidates::Candidate,
    idle::accepted,
    rivals::Rivals,
    stall::{Stall, unread},
    suspects::{Blame, Relation},
};
use crate::{
    known::context::{Posture, SeenThread},
    pipeline::incident::Confidence,
};

/// A handshake that moves within this long of an operation's end was waiting for it.
const ALIGNED_NS: u64 = 100_000_000;
/// Operations that end within this long end together.
const TOGETHER_NS: u64 = 5_000_000;
/// What a server does for a connection before it reads from it begins within this long of the accept.
const ACCEPTED_NS: u64 = 1_000_000_000;
/// A thread that waits on this many descriptors may wait on more than a snapshot lists.
const MANY: usize = 8;

impl Stall<'_> {
    /// The most convincing suspect; of several as convincing, the one with the cookie `before`. That what came before
    /// culprit started was a ClientHello is concluded, and so nothing is certain of it.
    pub(super) fn blame(&self, before: Option<u64>) -> Option<Blame> {
        let mut blame = self.most_convincing(before)?;
        if self.hs.flags & ADOPTED != 0 {
            blame.confidence = blame.confidence.min(Confidence::Likely);
        }
        Some(blame)
    }

    fn most_convincing(&self, before: Option<u64>) -> Option<Blame> {
        if unread(self.hs) && !self.moved {
            // One that waits to be accepted is no thread's yet: nothing was begun for it.
            if self.snapshot.is_some_and(|snapshot| accepted(snapshot, self.hs) == Some(false)) {
                return self.keeps_all_busy();
            }
            return self.best(self.candidates(false), before).or_else(|| self.keeps_all_busy());
        }
        // In a crowd, nearly every thread is in an operation of its own: the others need not be looked at.
        if self.posture() != Posture::EventLoop
            && let Some(blame) = self.best(self.candidates(true), before)
            && blame.confidence == Confidence::Certain
        {
            return Some(blame);
        }
        self.best(self.candidates(false), before)
    }

    fn best(&self, candidates: Vec<Candidate<'_>>, before: Option<u64>) -> Option<Blame> {
        let shared = |candidate: &&Candidate<'_>| self.shared(candidate);
        let rivals = candidates.iter().any(|candidate| self.shared(candidate)).then(|| Rivals::of(self));
        let own =
            rivals.as_ref().and_then(|rivals| rivals.pair(self.hs.cookie, candidates.iter().filter(shared)));
        let weighed = candidates.into_iter().filter_map(|candidate| {
            let others = rivals.as_ref().is_some_and(|rivals| rivals.began(&candidate));
            if candidate.relation == Relation::SameProcess && others {
                return None;
            }
            let confidence = self.weigh(&candidate)?;
            // Of one thread's operations the last; of those begun on others' behalf the one that is this
            // handshake's by the order of things, or the first after the reading, or the last to end.
            let gap = candidate.started_ns.saturating_sub(self.since_ns());
            let rank = match candidate.ended_ns {
                _ if !self.shared(&candidate) => u64::MAX - gap,
                Some(ended_ns) if self.moved => self.now_ns.saturating_sub(ended_ns),
                _ if own.as_ref().is_some_and(|own| own.cookie == candidate.cookie) => 0,
                _ => gap.saturating_add(1),
            };
            let other = candidate.relation != Relation::SameThread;
            // While it waits, it waits for what is pending.
            let over = !self.moved && candidate.ended_ns.is_some();
            Some(((Reverse(confidence), other, over, rank), candidate))
        });
        let mut weighed: Vec<_> = weighed.collect();
        weighed.sort_by_key(|(order, _)| *order);
        let (order, best) = weighed.first()?;
        let (Reverse(mut confidence), .., first) = *order;
        // Whose end it was, when several end at once, is what was thought before.
        let as_good: Vec<&Candidate<'_>> = weighed
            .iter()
            .filter(|((Reverse(other), .., rank), candidate)| {
                self.moved
                    && candidate.ended_ns.is_some()
                    && self.shared(candidate)
                    && *other == confidence
                    && rank.abs_diff(first) < TOGETHER_NS
            })
            .map(|(_, candidate)| candidate)
            .collect();
        let known = as_good.iter().find(|candidate| Some(candidate.cookie) == before);
        let chosen = known.map_or(best.cookie, |known| known.cookie);
        let mut mixed = as_good.iter().any(|other| !other.is_like(best));
        if mixed {
            confidence = confidence.min(Confidence::Likely);
        }
        if let Some(own) = own
            && own.mixed
            && (mixed || !self.moved)
            && confidence == Confidence::Likely
            && self.shared(best)
        {
            mixed = true;
            confidence = Confidence::Possible;
        }
        let (_, candidate) = weighed.into_iter().find(|(_, candidate)| candidate.cookie == chosen)?;
        let relation = candidate.relation;
        if self.shared(&candidate) && self.narrowed() {
            confidence = confidence.min(Confidence::Likely);
        }
        Some(Blame { suspect: candidate.suspect(self), confidence, relation, mixed })
    }

    /// It was begun by one that serves other handshakes too.
    fn shared(&self, candidate: &Candidate<'_>) -> bool {
        candidate.relation != Relation::SameThread || self.posture() == Posture::EventLoop
    }

    /// How sure it is that the handshake waits for this; `None`: it does not.
    fn weigh(&self, candidate: &Candidate<'_>) -> Option<Confidence> {
        let since = self.since_ns();
        if candidate.started_ns < since || candidate.started_ns > self.now_ns {
            return None;
        }
        // Begun for a connection before its hello came: it delays nothing until then.
        let came = since.max(self.hs.started_ns);
        let end = candidate.ended_ns.unwrap_or(self.now_ns).min(self.now_ns);
        if end < came {
            return None;
        }
        let stall = self.now_ns.saturating_sub(came).max(1);
        let covers_most = end.saturating_sub(candidate.started_ns.max(came)) * 2 >= stall;
        // An accepted connection is served at once: what begins long after it, and before the hello, may be
        // any other's.
        let detached =
            candidate.started_ns < came && candidate.started_ns.saturating_sub(since) > ACCEPTED_NS;
        let aligned = self.moved
            && candidate.ended_ns.is_some_and(|ended| self.now_ns.saturating_sub(ended) <= ALIGNED_NS);
        let posture = self.posture();
        // What a thread begins itself is its own doing, unless it serves many.
        let habit = (candidate.relation != Relation::SameThread || posture == Posture::EventLoop)
            && self.is_habit(candidate);
        if aligned && covers_most {
            // One of many attempts ends at any time.
            return Some(match (habit, detached) {
                (true, _) => Confidence::Possible,
                (false, true) => Confidence::Likely,
                (false, false) => Confidence::Certain,
            });
        }
        // It went on without it.
        if self.moved && candidate.ended_ns.is_none() && candidate.relation != Relation::SameThread {
            return None;
        }
        let pending = candidate.ended_ns.is_none();
        let in_its_way = covers_most || (pending && candidate.relation == Relation::SameThread);
        if !in_its_way {
            return None;
        }
        let in_it = self.thread().is_some_and(|thread| thread.sockets.contains(&candidate.cookie));
        // What began after the snapshot cannot be in it.
        let later = self.snapshot.is_some_and(|snapshot| candidate.started_ns > snapshot.boot_ns);
        match candidate.relation {
            Relation::SameThread => Some(match posture {
                _ if in_it => Confidence::Certain,
                _ if habit || (pending && !self.is_attended(candidate)) => Confidence::Possible,
                Posture::EventLoop | Posture::Threads => Confidence::Likely,
                Posture::Descriptors | Posture::Processes if !later && pending => Confidence::Likely,
                Posture::Running | Posture::Disk | Posture::Stopped | Posture::Frozen | Posture::Sleep
                    if !later && pending =>
                {
                    Confidence::Possible
                }
                _ => Confidence::Certain,
            }),
            Relation::SameProcess => match posture {
                // It waits for something else, or for nothing.
                Posture::Descriptors
                | Posture::Running
                | Posture::Disk
                | Posture::Stopped
                | Posture::Frozen
                | Posture::Sleep => None,
                _ if habit || detached || !self.is_attended(candidate) => Some(Confidence::Possible),
                _ => Some(Confidence::Likely),
            },
            Relation::Helper => match posture {
                _ if detached => Some(Confidence::Possible),
                Posture::Running | Posture::Disk | Posture::Stopped | Posture::Frozen => {
                    Some(Confidence::Possible)
                }
                _ => Some(Confidence::Likely),
            },
        }
    }

    /// A thread of the process waits for it, as far as the snapshot can say: a connection over which a
    /// line of a log was sent is owed no answer, and a lookup given up looks like one still under way.
    fn is_attended(&self, candidate: &Candidate<'_>) -> bool {
        let Some(snapshot) = self.snapshot.filter(|snapshot| snapshot.boot_ns >= self.since_ns()) else {
            return true;
        };
        let waits = |thread: &SeenThread| {
            thread.sockets.contains(&candidate.cookie)
                || thread.posture == Posture::EventLoop
                || thread.shown.waits_on.len() >= MANY
        };
        let seen = match candidate.owner().filter(|owner| owner.thread != 0) {
            Some(owner) => snapshot.threads.iter().any(|thread| thread.shown.tid == owner.thread),
            None => snapshot.threads_left_out == 0,
        };
        !seen
            || snapshot.sockets_cut
            || candidate.started_ns > snapshot.boot_ns
            || snapshot.threads.iter().any(waits)
    }

    /// What keeps every thread that could take or read the connection: of the only thread for certain, of several
    /// likely. Whenever it began.
    pub(super) fn keeps_all_busy(&self) -> Option<Blame> {
        let snapshot = self.snapshot.filter(|snapshot| {
            snapshot.process == self.hs.reader.process && snapshot.threads_left_out == 0
        })?;
        let pending: Vec<Candidate<'_>> =
            self.candidates(false).into_iter().filter(|candidate| candidate.ended_ns.is_none()).collect();
        let in_it =
            |thread: &SeenThread, candidate: &Candidate<'_>| thread.sockets.contains(&candidate.cookie);
        let keeps = |thread: &&SeenThread| pending.iter().any(|candidate| in_it(thread, candidate));
        let mut threads = snapshot.threads.iter().filter(|thread| !thread.accepts);
        let first = threads.clone().next()?;
        if !threads.all(|thread| keeps(&thread)) {
            return None;
        }
        let confidence = if snapshot.threads.len() == 1 { Confidence::Certain } else { Confidence::Likely };
        let candidate = pending.into_iter().find(|candidate| in_it(first, candidate))?;
        let relation = Relation::SameProcess;
        Some(Blame { suspect: candidate.suspect(self), confidence, relation, mixed: false })
    }
}
