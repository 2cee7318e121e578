//! The only way from what happened, or was found out, to facts, incidents and requests: live sessions, replays and
//! the rules' tests all take it. Pure, in event time: it reads no clock and does no I/O.

mod clocks;
mod connects;
mod describe;
mod engine;
mod handshakes;
pub mod incident;
mod kind;
pub mod local_waits;
mod lookups;
mod neighbours;
pub mod remedy;
pub mod report;
mod rule;
mod store;
pub mod world;

use engine::Engine;
use incident::Incident;
pub use rule::{Diagnose, Rule, View};
pub use store::Store;
use world::World;

pub use crate::known::request::{ProcessRef, Request};
use crate::{
    domains::{Event, Fact},
    known::{bounded::Table, context::Context},
};

/// What the pipeline takes.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A record, decoded.
    Event(&'a Event),
    /// Something about the system: looked up, or the answer to a request.
    Context(&'a Context),
}

/// What came of one item.
#[derive(Debug, Default)]
pub struct Step {
    /// What it means, in order.
    pub facts: Vec<Fact>,
    /// Incidents it opened, updated or resolved.
    pub incidents: Vec<Incident>,
    /// What is to be looked at; answered by context.
    pub requests: Vec<Request>,
}

/// What is known, and the rules over it.
pub struct Pipeline {
    world: World,
    engine: Engine,
}

impl Pipeline {
    /// A pipeline that knows nothing yet.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Self {
        Self { world: World::default(), engine: Engine::new(rules) }
    }

    /// Applies one item.
    pub fn step(&mut self, item: Item<'_>) -> Step {
        match item {
            Item::Event(event) => {
                let mut facts = Vec::new();
                self.world.apply(event, |fact| facts.push(fact));
                let incidents = self.engine.event(event, &self.world);
                Step { facts, incidents, requests: self.engine.requests() }
            }
            Item::Context(context) => {
                self.world.apply_context(context);
                // What a rule asks for now is asked for with the next event.
                Step { incidents: self.engine.context(context, &self.world), ..Step::default() }
            }
        }
    }

    /// The stream ends: incidents that are over and wait to be resolved are.
    pub fn finish(&mut self) -> Vec<Incident> {
        self.engine.finish(&self.world)
    }

    /// What is known.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Incidents opened so far.
    pub fn opened(&self) -> u64 {
        self.engine.opened()
    }

    /// How full every table is.
    pub fn tables(&self) -> Vec<Table> {
        self.world.tables().into_iter().chain(self.engine.tables()).collect()
    }
}
