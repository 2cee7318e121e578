//! Events → incidents: pure, in event time. The engine hands every event and every piece of context to
//! each rule of [`RULES`]; what they conclude is kept, folded and told by the [`Store`]. It never reads
//! a clock, a file or a socket, so a recording gives the same incidents anywhere. When a rule needs to
//! know what a process is doing it says so ([`Look`]); whoever runs live answers with a snapshot.

pub mod incident;
pub mod report;
mod store;

use incident::Incident;
pub use store::Store;

use crate::{
    enrich::{World, context::Context},
    event::Event,
    rules::{Diagnose, RULES},
};

/// A process a rule wants to be looked at, once, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The process.
    pub process: u32,
    /// The thread that matters, 0 for none.
    pub thread: u32,
    /// A socket that should be the process's, 0 for none.
    pub cookie: u64,
}

/// What a rule works with.
pub struct View<'a> {
    /// The time: the event's.
    pub now_ns: u64,
    /// Names, and what is under way.
    pub world: &'a World,
    /// The incidents.
    pub store: &'a mut Store,
    /// Processes to be looked at.
    pub looks: &'a mut Vec<Look>,
}

/// All rules over one stream of events.
pub struct Engine {
    rules: Vec<Box<dyn Diagnose>>,
    store: Store,
    looks: Vec<Look>,
    now_ns: u64,
}

impl Default for Engine {
    fn default() -> Self {
        let rules = RULES.iter().map(|rule| (rule.make)()).collect();
        Self { rules, store: Store::default(), looks: Vec::new(), now_ns: 0 }
    }
}

impl Engine {
    /// Takes in an event the world has just been told of.
    pub fn event(&mut self, event: &Event, world: &World, to: impl FnMut(Incident)) {
        // Recordings may hold anything: time does not go back.
        self.now_ns = self.now_ns.max(event.boot_ns);
        let mut view = View { now_ns: self.now_ns, world, store: &mut self.store, looks: &mut self.looks };
        for rule in &mut self.rules {
            rule.event(event, &mut view);
        }
        if matches!(event.what, crate::event::What::Tick) {
            self.store.tick(self.now_ns, world);
        }
        self.store.take().into_iter().for_each(to);
    }

    /// Takes in something learnt about the system.
    pub fn context(&mut self, context: &Context, world: &World, to: impl FnMut(Incident)) {
        let Context::Snapshot(snapshot) = context else { return };
        let mut view = View { now_ns: self.now_ns, world, store: &mut self.store, looks: &mut self.looks };
        for rule in &mut self.rules {
            rule.snapshot(snapshot, &mut view);
        }
        self.store.take().into_iter().for_each(to);
    }

    /// The stream ends: what is over and waits to be told is told.
    pub fn finish(&mut self, world: &World, to: impl FnMut(Incident)) {
        self.store.tick(u64::MAX, world);
        self.store.take().into_iter().for_each(to);
    }

    /// Processes to be looked at now.
    pub fn looks(&mut self) -> Vec<Look> {
        std::mem::take(&mut self.looks)
    }

    /// Incidents opened so far.
    pub fn opened(&self) -> u64 {
        self.store.opened()
    }
}
