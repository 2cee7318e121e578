//! What culprit's kernel programs and its agent agree on, and the programs themselves.
//!
//! Two faces of one package: for the agent this is a contract library (records, kinds, the
//! [`probes::PROBES`] table with every hook and kernel field); for the `bpf` target, or with the
//! `lint` feature, it also holds the programs that `main.rs` turns into the kernel object.
#![cfg_attr(not(test), no_std)]
// BPF assembly, for one atomic instruction: agent/build.rs lets this crate and aya-ebpf use it.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod fields;
pub mod metrics;
pub mod probes;
pub mod spec;

#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod bpf;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod hooks;
