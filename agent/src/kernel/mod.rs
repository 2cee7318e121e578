//! The boundary with the kernel: what it offers ([`btf`]), what we ask of it ([`plan`]), loading and
//! attaching ([`load`]), and the ring ([`ring`]). Knows nothing of what the records mean.

pub mod adopt;
pub mod btf;
pub mod cgroup;
pub mod counters;
mod deferred;
pub mod executables;
pub mod generation;
pub mod load;
pub mod memory;
mod missed;
pub mod namespaces;
pub mod neighbours;
mod object;
pub mod plan;
pub mod ring;
pub mod sweep;
pub mod tcpinfo;
pub mod timens;
pub mod tracefs;
mod unacked;
pub mod usage;
