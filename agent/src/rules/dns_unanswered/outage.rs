//! A DNS server that answers no program, and those that wait for it.

use std::{collections::BTreeMap, net::IpAddr};

use ebpf_probes::abi::Netns;

use crate::{domains::dns::LookupOp, rules::text::Program};

/// A server, as far as it is the same to all that ask: pods and the host share a network, another namespace is one of
/// its own, and so is each loopback.
pub(super) type Key = (IpAddr, Option<Netns>);

/// A program that waits for the server.
#[derive(Debug, Clone)]
pub(super) struct Sufferer {
    /// The first of its lookups that was seen.
    pub(super) first: LookupOp,
    /// It waits now.
    pub(super) waits: bool,
}

/// A server that answers no program.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) id: String,
    pub(super) key: Key,
    /// Those that wait, or have waited.
    pub(super) programs: BTreeMap<Program, Sufferer>,
    /// Programs that found no room.
    pub(super) left_out: u64,
    /// The lookup that waits longest, or did.
    pub(super) lead: LookupOp,
    pub(super) began_ns: u64,
    /// When it was last seen to be silent.
    pub(super) silent_ns: u64,
    /// When it was last emitted, and with how many programs.
    pub(super) emitted_ns: u64,
    pub(super) emitted_programs: usize,
}

impl Outage {
    /// Programs so far.
    pub(super) fn total(&self) -> u64 {
        self.programs.len() as u64 + self.left_out
    }

    /// Programs that wait now.
    pub(super) fn waiting(&self) -> u64 {
        self.programs.values().filter(|sufferer| sufferer.waits).count() as u64
    }

    /// Those that wait first, then by when they began.
    pub(super) fn worst(&self) -> Vec<&Sufferer> {
        let mut all: Vec<&Sufferer> = self.programs.values().collect();
        all.sort_by_key(|sufferer| (!sufferer.waits, sufferer.first.started_ns, sufferer.first.cookie));
        all
    }
}
