//! The agent in the kernel: what it attaches and leaves behind, its limits, its modes, the namespaces and containers
//! it looks into.

mod anomalies_mode;
mod compat;
mod containers;
mod executables;
mod lifecycle;
mod load;
mod namespaces;
mod started_late;
