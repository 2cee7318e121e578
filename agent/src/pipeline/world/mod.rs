//! All that is known: what every domain may know of the system, what each remembers, and what follows from several of
//! them together. Records become facts here. Pure: its only inputs are events and [`Context`]s, so a recording gives the
//! same facts anywhere.

mod ask;
mod links;
#[cfg(test)]
mod neighbour_tests;
mod silence;
#[cfg(test)]
mod tests;
mod under_way;

use crate::{
    domains::{Emitted, Event, Fact, Memories, What},
    known::{Known, bounded::Table, context::Context},
};

/// What is known so far.
#[derive(Default)]
pub struct World {
    /// What every domain may know.
    pub known: Known,
    /// What each domain remembers.
    pub domains: Memories,
}

impl World {
    /// Applies what was found out about the system.
    pub fn apply_context(&mut self, context: &Context) {
        self.known.context(context);
        self.domains.context(context);
    }

    /// Applies an event and emits what it means, in order.
    pub fn apply(&mut self, event: &Event, mut emit: impl FnMut(Fact)) {
        let now_ns = event.boot_ns;
        for late in self.domains.before(&self.known, now_ns) {
            self.fact(late).into_iter().for_each(&mut emit);
        }
        let mut facts = self.linked(event);
        facts.extend(self.domains.record(&mut self.known, event));
        // What other clocks say of the moment comes before what was done then.
        let first = self.domains.after(&self.known, now_ns);
        for emitted in first.into_iter().chain(facts) {
            self.fact(emitted).into_iter().for_each(&mut emit);
        }
    }

    /// How full what is remembered is.
    pub fn tables(&self) -> Vec<Table> {
        self.known.tables().into_iter().chain(self.domains.tables()).collect()
    }

    /// What happened as it is emitted, if it was asked for.
    fn fact(&self, Emitted { boot_ns, owner, what }: Emitted<What>) -> Option<Fact> {
        let concerned = self.known.is_wanted(&owner) || what.described().concerns_everyone();
        if !concerned || !what.is_wanted(&self.known.select) {
            return None;
        }
        let process = (owner.process != 0).then(|| self.known.process(&owner));
        Some(Fact { at: self.wall_text(boot_ns), boot_ns, probe: what.probe(), process, what })
    }
}
