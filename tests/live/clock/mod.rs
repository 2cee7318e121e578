//! The wall clock: who sets it, by how much, and how wrong it is.

mod incidents;
pub(crate) mod steps;
