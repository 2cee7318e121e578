//! `connect_stalled`, `connect_failing` and `listen_queue_full`, live: each situation built with real sockets, and named once.

mod accepting;
mod drops;
mod ingress;
mod outside_handshakes;
mod policies;
