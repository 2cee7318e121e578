//! culprit's agent, in the order data flows:
//!
//! ```text
//! kernel ──ring──▶ event ──▶ enrich ──▶ fact ──▶ sinks (text · json · summary)
//!                    ▲          ▲
//!                    └─ record ─┘   replay enters here: no root, no kernel
//! ```
//!
//! Imports go one way, and `cargo xtask ci` checks it. `run` and `cli` may use everything; nothing uses
//! them but `main`.

pub mod kernel;
pub mod event;
pub mod enrich;
pub mod fact;
pub mod record;
pub mod sinks;
pub mod output;
pub mod replay;
pub mod doctor;
pub mod cli;
pub mod run;
