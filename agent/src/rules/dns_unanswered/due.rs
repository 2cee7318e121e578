//! Which lookups that have waited long enough are this rule's: those that a process still waits for, that were answered
//! nowhere else, and that no stalled handshake explains.

use super::{
    DnsUnanswered, LATE_NS, WEIGHED_NS,
    groups::Followed,
    lookup::{Bad, key},
    say,
};
use crate::{
    domains::dns::{Heard, LookupOp},
    pipeline::{
        ProcessRef, Request, View,
        incident::{DnsOutcome, Kind},
        world::World,
    },
    rules::resolvers,
};

impl DnsUnanswered {
    /// Whether a lookup that has waited long enough is to be reported, as far as is known without a look.
    pub(super) fn is_due(&mut self, op: &LookupOp, view: &mut View<'_>) -> bool {
        let world = view.world;
        if !op.recursive
            || !world.known.is_wanted(&op.owner)
            || self.decided.get(&key(op)).is_some()
            || self.asked.iter().any(|asked| key(asked) == key(op))
        {
            return false;
        }
        let stalls = |(_, kind): (&str, Kind)| kind == Kind::TlsHandshakeStalled;
        if view.store.live_claim(op.cookie).is_some_and(stalls) && resolvers::half(op, world).is_none() {
            self.decided.insert(key(op), ());
            return false;
        }
        if let Some(heard) = answered_since(op, world) {
            self.decided.insert(key(op), ());
            if heard.at_ns.saturating_sub(op.started_ns) >= LATE_NS {
                let at_ns = heard.at_ns;
                let outcome = DnsOutcome::AnsweredElsewhere;
                self.bad(Bad { op: op.clone(), at_ns, outcome, followed: false }, view);
            }
            return false;
        }
        // What its server waits for is reported first, moments from now.
        let stall_ns = world.known.dns_stall_ns();
        !resolvers::upstream(op, world).is_some_and(|upstream| {
            view.now_ns.saturating_sub(upstream.op.started_ns) < stall_ns
                && view.now_ns.saturating_sub(op.started_ns) < stall_ns.saturating_add(WEIGHED_NS)
        })
    }

    /// The looks have come, or will not.
    pub(super) fn answered(&mut self, which: impl Fn(&LookupOp) -> bool, view: &mut View<'_>) {
        let (come, wait): (Vec<LookupOp>, Vec<LookupOp>) =
            std::mem::take(&mut self.asked).into_iter().partition(which);
        self.asked = wait;
        for op in come {
            self.decide(op, view);
        }
    }

    /// A lookup has waited long enough: its process suffers, or has given it up.
    pub(super) fn decide(&mut self, op: LookupOp, view: &mut View<'_>) {
        if self.looks.is_given_up(&op, 0) {
            self.decided.insert(key(&op), ());
            let (at_ns, outcome) = (view.now_ns, DnsOutcome::GivenUp);
            self.bad(Bad { op, at_ns, outcome, followed: false }, view);
            return;
        }
        self.follow(Followed { op, looked_ns: 0, over_tcp: false }, view);
    }

    /// A truncated answer has a process connect over TCP, and that connect is unanswered.
    pub(super) fn over_tcp(&mut self, view: &mut View<'_>) {
        let (world, now_ns) = (view.world, view.now_ns);
        let stall_ns = world.known.dns_stall_ns();
        let mut found: Vec<(LookupOp, u64)> = world
            .connect_ops()
            .filter(|op| op.ended_ns.is_none() && world.known.is_wanted(&op.connect.owner))
            .filter(|op| now_ns.saturating_sub(op.connect.started_ns) >= stall_ns)
            .filter_map(|op| Some((resolvers::truncated(&op.connect, world)?, &op.connect)))
            .map(|(heard, connect)| (say::as_lookup(heard, connect), connect.cookie))
            .filter(|(op, cookie)| {
                self.groups.of(&key(op)).is_none() && view.store.live_claim(*cookie).is_none()
            })
            .collect();
        found.sort_by_key(|(op, cookie)| (op.started_ns, *cookie));
        for (op, _) in found {
            self.follow(Followed { op, looked_ns: 0, over_tcp: true }, view);
        }
    }
}

/// The answer that a process got to the same question since, from another server or at another attempt.
pub(super) fn answered_since<'a>(op: &LookupOp, world: &'a World) -> Option<&'a Heard> {
    let heard = world.answers().to(op.owner.process, &op.name.text, &op.query_type)?;
    (heard.at_ns >= op.started_ns && heard.verdict.is_answer() && !heard.truncated).then_some(heard)
}

/// Asks for a look at the process that waits.
pub(super) fn look_at(op: &LookupOp, view: &mut View<'_>) {
    view.requests.push(Request::Process(ProcessRef {
        process: op.owner.process,
        thread: op.owner.thread,
        cookie: op.cookie,
    }));
}
