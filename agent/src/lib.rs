//! culprit's agent.
pub mod kernel;
