//! What every program uses: emission, counters, filters, owners, packets. Only for the `bpf` target.
//!
//! Knows no probe. What two probes share as state stands here under a name of its own.

pub(crate) mod address;
pub(crate) mod counters;
pub(crate) mod filter;
pub(crate) mod lacking;
pub(crate) mod netns;
pub(crate) mod owner;
pub(crate) mod packet;
pub(crate) mod ring;
pub(crate) mod tcp;
pub(crate) mod time;
pub(crate) mod verifier;
