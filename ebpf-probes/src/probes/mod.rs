//! One probe a file: its records, its hooks, its programs. The [`PROBES`] table is what everything
//! else derives from: flags, help, `list`, `doctor`, the README's table, metric labels.

pub mod clock;
pub mod connect;
pub mod dns;
pub mod neigh;
pub mod tls;

use crate::spec::Probe;

/// Every probe, in the order help and documentation list them.
pub const PROBES: &[Probe] = &[connect::PROBE, tls::PROBE, dns::PROBE, neigh::PROBE, clock::PROBE];
