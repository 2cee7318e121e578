//! What a rule is to the engine.

use super::{incident::Kind, store::Store, world::World};
use crate::{
    domains::Event,
    known::{
        bounded::Table,
        context::{Answered, Exposed, Holders, Listeners, Network, OwnAddress, Reach, Snapshot, Watched},
        request::Request,
    },
};

/// What a rule works with.
pub struct View<'a> {
    /// The time: the event's.
    pub now_ns: u64,
    /// Names, and what is under way.
    pub world: &'a World,
    /// The incidents.
    pub store: &'a mut Store,
    /// What is to be looked at.
    pub requests: &'a mut Vec<Request>,
}

/// A diagnosis.
pub struct Rule {
    /// The kind of incident it opens.
    pub kind: Kind,
    /// One sentence: what situation.
    pub about: &'static str,
    /// When it opens one.
    pub opens: &'static str,
    /// A fresh one.
    pub make: fn() -> Box<dyn Diagnose>,
}

/// What every rule does: listens, remembers a bounded amount, and reports to the store.
pub trait Diagnose: Send {
    /// Something happened, or time passed.
    fn event(&mut self, event: &Event, view: &mut View<'_>);
    /// A process was looked at.
    fn snapshot(&mut self, _snapshot: &Snapshot, _view: &mut View<'_>) {}
    /// The connections of a process that was asked for were looked at, as they are every two seconds.
    fn watched(&mut self, _watched: &Watched, _view: &mut View<'_>) {}
    /// A network namespace was looked at.
    fn network(&mut self, _network: &Network, _view: &mut View<'_>) {}
    /// It was looked who on this machine has a neighbour's address or MACs.
    fn holders(&mut self, _holders: &Holders, _view: &mut View<'_>) {}
    /// Something became of an address of this host.
    fn own_address(&mut self, _own: &OwnAddress, _view: &mut View<'_>) {}
    /// It was looked who listens at an address.
    fn listeners(&mut self, _listeners: &Listeners, _view: &mut View<'_>) {}
    /// Everybody on a link was asked for a neighbour.
    fn answered(&mut self, _answered: &Answered, _view: &mut View<'_>) {}
    /// A reference clock was read.
    fn compared(&mut self, _view: &mut View<'_>) {}
    /// How full what it remembers is.
    fn tables(&self) -> Vec<Table> {
        vec![]
    }
    /// The way to a destination was looked at.
    fn reached(&mut self, _reach: &Reach, _view: &mut View<'_>) {}
    /// Processes were looked for.
    fn exposed(&mut self, _exposed: &Exposed, _view: &mut View<'_>) {}
}
