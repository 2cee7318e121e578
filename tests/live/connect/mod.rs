//! Connects: how applications begin them, what becomes of them, and what of it is an incident.

mod entry_points;
mod icmp_errors;
mod incidents;
pub(crate) mod outcomes;
mod translated;
mod udp;
