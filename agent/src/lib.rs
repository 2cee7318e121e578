//! culprit's agent, in the order data flows:
//!
//! ```text
//! kernel ──ring──▶ event ──▶ enrich ──▶ fact ──────────────────────────▶ sinks (text · json · summary · recorder)
//!    │               ▲          ├──▶ correlate (rules) ──▶ incident ──────▶ and, in the daemon, by queues:
//!    │               └─ record ─┘            │                             store ──▶ stdout · stream · webhook
//!    └─ counters ──▶ metrics                 └─▶ request: a snapshot of a process, once per incident
//! ```
//!
//! A replay enters at `event`: no root, no kernel. The correlation is pure and in event time.
//!
//! Imports go one way, and `cargo xtask check` checks it. `run` and `cli` may use everything; nothing uses
//! them but `main`.

pub mod cli;
pub mod clocks;
pub mod clockwatch;
pub mod config;
pub mod doctor;
pub mod domains;
pub mod fact;
pub mod incidents;
pub mod kernel;
pub mod known;
pub mod list;
pub mod log;
pub mod metrics;
pub mod namespaces;
pub mod neighbours;
pub mod neighdump;
pub mod network;
pub mod observe;
pub mod outputs;
pub mod pipeline;
pub mod record;
pub mod records;
pub mod reference;
pub mod replay;
pub mod rules;
pub mod run;
pub mod severity;
pub mod snapshot;
pub mod terminal;
pub mod text;
pub mod time;
pub mod units;
