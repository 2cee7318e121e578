//! What the correlation asks the world: names for numbers, and what is under way.

use std::net::IpAddr;

use ebpf_probes::abi::{Netns, Owner, ProbeId, Tuple};

use super::{
    World,
    context::{Loaded, ProcessContext},
    operations::{ConnectOp, LookupOp},
    select::Narrowed,
};
use crate::{
    fact::{Endpoint, Process},
    text::host::Name,
};

impl World {
    /// The machine's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether a probe is attached: what it does not see did not necessarily not happen.
    pub fn sees(&self, probe: ProbeId) -> bool {
        self.attached.iter().any(|name| name == super::probe_name(probe))
    }

    /// The wall clock at a moment as RFC 3339 with microseconds.
    pub fn wall_text(&self, boot_ns: u64) -> String {
        self.wall(boot_ns)
    }

    /// A thread with its process's names; `None` when it is unknown. Whichever thread acts, the process has one
    /// name.
    pub fn named(&self, owner: &Owner) -> Option<Process> {
        let mut process = (owner.process != 0).then(|| self.process(owner))?;
        let leader = self.processes.get(&owner.process).and_then(|known| known.leader.as_ref());
        if let Some(leader) = leader.filter(|leader| **leader != process.comm) {
            process.thread = Some(std::mem::replace(&mut process.comm, leader.clone()));
        }
        Some(process)
    }

    /// A thread in words: `thread 44`, with its name when it has one of its own.
    pub fn thread(&self, owner: &Owner) -> String {
        match self.named(owner).and_then(|process| process.thread) {
            Some(name) => format!("thread {} ({name})", owner.thread),
            None => format!("thread {}", owner.thread),
        }
    }

    /// What is known of a process.
    pub fn known(&self, process: u32) -> Option<&ProcessContext> {
        self.processes.get(&process)
    }

    /// What a process has loaded, as it was seen when it was last looked at.
    pub fn loaded(&self, process: u32) -> Option<&Loaded> {
        self.loaded.get(&process)
    }

    /// Whether an owner passes the filters by process, container and the like.
    pub fn is_wanted(&self, owner: &Owner) -> bool {
        !self.select.by_owner || self.wanted(owner)
    }

    /// The filters that let a process pass and hide some of what it does: what is not seen of it may have happened.
    pub fn narrowed(&self) -> Vec<Narrowed<'_>> {
        self.select.narrowed()
    }

    /// An address in an owner's namespace, with the name that its process may believe.
    pub fn at(&self, address: [u8; 16], port: u16, owner: &Owner) -> Endpoint {
        self.endpoint(address, port, owner)
    }

    /// The own end of a connection.
    pub fn own_end(&self, tuple: &Tuple) -> Endpoint {
        self.local(tuple)
    }

    /// The server name a handshake's client asked for.
    pub fn server_name(&self, cookie: u64) -> Option<Name> {
        self.tls.server_name(cookie)
    }

    /// The process that listens at an address of a namespace: its id and name.
    pub fn listener_at(&self, netns: Netns, address: IpAddr, port: u16) -> Option<(u32, String)> {
        self.listener(netns, address, port).cloned()
    }

    /// The kernel's word for a drop reason.
    pub fn drop_reason(&self, reason: u32) -> Option<String> {
        self.drop_reasons.get(&reason).cloned()
    }

    /// A connect that waits, or ended slowly or badly.
    pub fn connect_op(&self, cookie: u64) -> Option<&ConnectOp> {
        self.operations.connects.get(&cookie)
    }

    /// All of them, in no particular order.
    pub fn connect_ops(&self) -> impl Iterator<Item = &ConnectOp> {
        self.operations.connects.values()
    }

    /// Lookups of these owners under way and those that took long, in no particular order.
    pub fn lookup_ops(&self, of: impl Fn(&Owner) -> bool) -> Vec<LookupOp> {
        self.dns.operations(of)
    }

    /// A neighbour of the namespace that does not answer, or did not within the last second: its device.
    pub fn silent_neighbour(&self, netns: Netns, address: [u8; 16], now_ns: u64) -> Option<SilentNeighbour> {
        self.silent.get(&(netns, address)).filter(|silent| silent.holds_at(now_ns)).cloned()
    }

    /// The last neighbour of the namespace that did not answer.
    pub fn last_silent_neighbour(&self, netns: Netns, now_ns: u64) -> Option<(IpAddr, SilentNeighbour)> {
        self.silent
            .iter()
            .filter(|((at, _), silent)| *at == netns && silent.holds_at(now_ns))
            .max_by_key(|(_, silent)| silent.since_ns)
            .map(|((_, address), silent)| (crate::event::address(*address), silent.clone()))
    }
}

/// A neighbour that does not answer ARP or NDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentNeighbour {
    /// The network namespace it is looked for in.
    pub netns: Netns,
    /// The device it should be behind.
    pub device: String,
    /// Since when it has been asked without an answer, CLOCK_BOOTTIME in nanoseconds.
    pub since_ns: u64,
    /// When the kernel gave up, if it has.
    pub failed_ns: Option<u64>,
}

impl SilentNeighbour {
    /// A failure explains what failed within the seconds after it.
    const EXPLAINS_NS: u64 = 2_000_000_000;

    fn holds_at(&self, now_ns: u64) -> bool {
        self.failed_ns.is_none_or(|failed| now_ns.saturating_sub(failed) < Self::EXPLAINS_NS)
    }
}
