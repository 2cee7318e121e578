//! Live tests: the real kernel and real sockets, in network namespaces each test makes and removes.
//!
//! They need root and skip with a printed reason without it, unless `CULPRIT_LIVE=require`.
//! `CULPRIT_BIN` names another binary to test; `CULPRIT_TEST_SLOW` stretches every deadline (a virtual
//! machine under emulation: 5 to 10).

pub mod harness;

#[path = "live/attach/mod.rs"]
mod attach;
#[path = "live/clock/mod.rs"]
mod clock;
#[path = "live/commands/mod.rs"]
mod commands;
#[path = "live/connect/mod.rs"]
mod connect;
#[path = "live/daemon/mod.rs"]
mod daemon;
#[path = "live/dns/mod.rs"]
mod dns;
#[path = "live/neighbour/mod.rs"]
mod neighbour;
#[path = "live/tls/mod.rs"]
mod tls;
