//! A diagnosis that is never made: the shortest rule there can be.

use crate::{
    domains::{Event, Record, connect},
    pipeline::{Diagnose, Rule, View, incident::Kind},
};

pub(super) const RULE: Rule =
    Rule { kind: Kind::Toy, about: "nothing", opens: "never", make: || Box::new(Toy::default()) };

/// What is remembered.
#[derive(Default)]
struct Toy {
    connects: u64,
}

impl Diagnose for Toy {
    fn event(&mut self, event: &Event, _view: &mut View<'_>) {
        if let Record::Connect(connect::Record::Connect(..)) = event.what {
            self.connects += 1;
        }
    }
}
