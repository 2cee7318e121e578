//! `tls_handshake_stalled` and `tls_failing`, live: real servers and clients on real sockets, each situation named exactly
//! once.

mod attribution;
mod blocked_servers;
mod failing;
mod listeners;
mod local_causes;
mod network_causes;
mod no_incident;
mod recurrence;
mod runtimes;
mod silent_peers;
mod unrelated_activity;
