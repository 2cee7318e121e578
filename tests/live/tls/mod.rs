//! TLS handshakes: both sides, the hellos in every form they take, and what makes one stall.

pub(crate) mod handshakes;
mod hellos;
mod incidents;
mod segments;
