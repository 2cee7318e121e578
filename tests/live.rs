//! Live tests: the real kernel and real sockets, in network namespaces each test makes and removes.
//!
//! They need root and skip with a printed reason without it, unless `CULPRIT_LIVE=require`.
//! `CULPRIT_BIN` names another binary to test; `CULPRIT_TEST_SLOW` stretches every deadline (a virtual
//! machine under emulation: 5 to 10).

pub mod harness;

#[path = "live/clock.rs"]
mod clock;
#[path = "live/commands.rs"]
mod commands;
#[path = "live/compat.rs"]
mod compat;
#[path = "live/connect.rs"]
mod connect;
#[path = "live/containers.rs"]
mod containers;
#[path = "live/daemon/mod.rs"]
mod daemon;
#[path = "live/dns.rs"]
mod dns;
#[path = "live/filters.rs"]
mod filters;
#[path = "live/hellos.rs"]
mod hellos;
#[path = "live/hostile.rs"]
mod hostile;
#[path = "live/incidents/mod.rs"]
mod incidents;
#[path = "live/lifecycle.rs"]
mod lifecycle;
#[path = "live/load.rs"]
mod load;
#[path = "live/namespaces.rs"]
mod namespaces;
#[path = "live/neigh.rs"]
mod neigh;
#[path = "live/output.rs"]
mod output;
#[path = "live/quiet.rs"]
mod quiet;
#[path = "live/recording.rs"]
mod recording;
#[path = "live/rejected.rs"]
mod rejected;
#[path = "live/resolvers.rs"]
mod resolvers;
#[path = "live/roads.rs"]
mod roads;
#[path = "live/segments.rs"]
mod segments;
#[path = "live/tls.rs"]
mod tls;
#[path = "live/top.rs"]
mod top;
#[path = "live/translated.rs"]
mod translated;
#[path = "live/udp.rs"]
mod udp;
