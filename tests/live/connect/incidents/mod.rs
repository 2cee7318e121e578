//! `connect_stalled`, `connect_failing`, `connection_stalled`, `listen_queue_full` and `response_overdue`, live: each situation built with real sockets, and named once.

mod accepting;
mod drops;
mod ingress;
mod outside_handshakes;
mod overdue;
mod policies;
mod stalled;
