//! culprit's agent, in the order data flows:
//!
//! ```text
//! sources ──────▶ pipeline ──────────────────────────────────────▶ outputs
//! kernel (ring, sweep) ─┐  domains decode ─▶ world ─▶ facts ──────▶ text · json · summary · recording · top
//! recording ────────────┤                      │
//! observe, clocks, … ───┘ (context)            └─▶ rules ─▶ incidents ─▶ the same, and in the daemon, by queues:
//!     ▲                                             │                  store ─▶ stdout · stream · webhook
//!     └───────────── requests ──────────────────────┘
//! ```
//!
//! A replay enters at `domains`: no root, no kernel. The pipeline is pure and in event time.
//!
//! Imports go one way, and `cargo xtask check` checks it. `run` and `cli` may use everything; nothing uses
//! them but `main`.

pub mod claims;
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
pub mod sockdiag;
pub mod terminal;
pub mod text;
pub mod time;
pub mod units;
