//! culprit's agent.
pub mod record;
