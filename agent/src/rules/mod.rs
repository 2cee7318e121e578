//! One diagnosis a file, and the table everything else derives from: `culprit list rules`, the README.

use crate::{
    correlate::{View, incident::Kind},
    enrich::{
        bounded::Table,
        context::{Exposed, Holders, Network, Reach, Snapshot},
    },
    event::Event,
};

mod after_handshake;
mod clock_skewed;
mod clock_stepped;
mod clocks;
mod connect_failing;
mod connect_stalled;
mod drops;
mod families;
mod fetch;
#[cfg(test)]
mod hostile;
mod neighbour_conflict;
mod neighbour_stale;
mod neighbour_table_full;
mod neighbour_unresolved;
mod neighbours;
#[cfg(test)]
mod scene;
mod text;
mod tls_handshake_stalled;

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
    /// A network namespace was looked at.
    fn network(&mut self, _network: &Network, _view: &mut View<'_>) {}
    /// It was looked who on this machine has a neighbour's address or MACs.
    fn holders(&mut self, _holders: &Holders, _view: &mut View<'_>) {}
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

/// Every rule. Those that explain come before those that would otherwise tell the same again.
pub const RULES: &[Rule] = &[
    clock_stepped::RULE,
    clock_skewed::RULE,
    neighbour_unresolved::RULE,
    neighbour_stale::RULE,
    neighbour_conflict::RULE,
    neighbour_table_full::RULE,
    tls_handshake_stalled::RULE,
    connect_stalled::RULE,
    connect_failing::RULE,
];
