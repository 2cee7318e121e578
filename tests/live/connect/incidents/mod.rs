//! `connect_stalled` and `connect_failing`, live: each situation built with real sockets, and named once.

mod drops;
mod ingress;
mod outside_handshakes;
mod policies;
