//! Events → incidents: pure, in event time. The engine hands every event and every piece of context to
//! each rule it is given; what they conclude is kept, folded and reported by the [`Store`]. It never reads
//! a clock, a file or a socket, so a recording gives the same incidents anywhere. When a rule needs to
//! know what a process or the network looks like it says so ([`Request`]); a live session answers.

use super::{
    incident::Incident,
    rule::{Diagnose, Rule, View},
    store::Store,
    world::World,
};
use crate::{
    domains::{Event, Record},
    known::{bounded::Table, context::Context, request::Request},
};

/// All rules over one stream of events.
pub(super) struct Engine {
    rules: Vec<Box<dyn Diagnose>>,
    store: Store,
    requests: Vec<Request>,
    now_ns: u64,
}

impl Engine {
    /// An engine with these rules: those that explain come before those that would otherwise report the same again.
    #[must_use]
    pub(super) fn new(rules: &[Rule]) -> Self {
        let rules = rules.iter().map(|rule| (rule.make)()).collect();
        Self { rules, store: Store::default(), requests: Vec::new(), now_ns: 0 }
    }

    /// Takes in an event the world has just applied; what it made of it.
    pub(super) fn event(&mut self, event: &Event, world: &World) -> Vec<Incident> {
        // Recordings may hold anything: time does not go back.
        self.now_ns = self.now_ns.max(event.boot_ns);
        let mut view =
            View { now_ns: self.now_ns, world, store: &mut self.store, requests: &mut self.requests };
        for rule in &mut self.rules {
            rule.event(event, &mut view);
        }
        if matches!(event.what, Record::Tick) {
            self.store.tick(self.now_ns, world);
        }
        self.store.take()
    }

    /// Takes in something the world has just found out about the system.
    pub(super) fn context(&mut self, context: &Context, world: &World) -> Vec<Incident> {
        // It may be the first that is heard of the time.
        match context {
            Context::Reference(reading) => self.now_ns = self.now_ns.max(reading.boot_ns),
            Context::Watched(watched) => self.now_ns = self.now_ns.max(watched.boot_ns),
            Context::OwnAddress(own) => self.now_ns = self.now_ns.max(own.boot_ns),
            _ => {}
        }
        let mut view =
            View { now_ns: self.now_ns, world, store: &mut self.store, requests: &mut self.requests };
        for rule in &mut self.rules {
            match context {
                Context::Snapshot(snapshot) => rule.snapshot(snapshot, &mut view),
                Context::Watched(watched) => rule.watched(watched, &mut view),
                Context::Network(network) => rule.network(network, &mut view),
                Context::Holders(holders) => rule.holders(holders, &mut view),
                Context::OwnAddress(own) => rule.own_address(own, &mut view),
                Context::Listeners(listeners) => rule.listeners(listeners, &mut view),
                Context::Answered(answered) => rule.answered(answered, &mut view),
                Context::Reference(_) => rule.compared(&mut view),
                Context::Exposed(exposed) => rule.exposed(exposed, &mut view),
                Context::Reach(reach) => rule.reached(reach, &mut view),
                _ => {}
            }
        }
        self.store.take()
    }

    /// The stream ends: what is over and waits to be reported is reported.
    pub(super) fn finish(&mut self, world: &World) -> Vec<Incident> {
        self.store.tick(u64::MAX, world);
        self.store.take()
    }

    /// What is to be looked at now.
    pub(super) fn requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// How full what the rules and the store remember is.
    pub(super) fn tables(&self) -> Vec<Table> {
        self.store.tables().into_iter().chain(self.rules.iter().flat_map(|rule| rule.tables())).collect()
    }

    /// Incidents opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.store.opened()
    }
}
