//! What every domain may know of the system, whatever it is about: processes, namespaces, devices, names of addresses,
//! who listens, and what is watched. Filled by context and by lookups that were answered; pure, like all that uses it.

pub mod bounded;
pub mod context;
mod names;
mod netns;
pub mod request;
pub mod select;
mod wire;

use std::net::IpAddr;

use bounded::{Bounded, Table};
use context::{ClockThresholds, Context, Loaded, ProcessContext};
use ebpf_probes::{
    abi::{Netns, Owner, ProbeId, Stat, Tuple},
    probes::PROBES,
};
pub use names::{Answer, Asker, Names};
use select::{Narrowed, Select};
pub use wire::wire;

use crate::{
    fact::{Endpoint, LostBy, Process},
    records,
};

/// Processes remembered at most.
const PROCESSES: usize = 8192;
/// Processes whose libraries are remembered, at most.
const LOADED: usize = 512;
/// A lookup that waits for this long is reported, where a recording does not say.
const DNS_STALL_NS: u64 = 2_000_000_000;
const LISTENERS: usize = 1024;
const DEVICES: usize = 8192;

/// What is known so far.
pub struct Known {
    /// Names of addresses, as lookups gave them.
    pub names: Names,
    /// What was asked for.
    pub select: Select,
    namespaces: netns::Namespaces,
    processes: Bounded<u32, ProcessContext>,
    /// What processes that were looked at have loaded.
    loaded: Bounded<u32, Loaded>,
    listeners: Bounded<(Netns, IpAddr, u16), (u32, String)>,
    devices: Bounded<(Netns, u32), String>,
    losses: Vec<LostBy>,
    node: String,
    time_zone: Option<String>,
    dns_stall_ns: u64,
    clock: ClockThresholds,
    attached: Vec<String>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            names: Names::default(),
            select: Select::default(),
            namespaces: netns::Namespaces::default(),
            processes: Bounded::new(PROCESSES),
            loaded: Bounded::new(LOADED),
            listeners: Bounded::new(LISTENERS),
            devices: Bounded::new(DEVICES),
            losses: Vec::new(),
            node: String::new(),
            time_zone: None,
            dns_stall_ns: DNS_STALL_NS,
            clock: ClockThresholds::default(),
            attached: Vec::new(),
        }
    }
}

impl Known {
    /// Applies what was found out about the system.
    pub fn context(&mut self, context: &Context) {
        match context {
            Context::Origin { netns, select, node, probes, time_zone, dns_stall_ms, clock, .. } => {
                self.clock = *clock;
                self.dns_stall_ns = dns_stall_ms.map_or(DNS_STALL_NS, |ms| ms.saturating_mul(1_000_000));
                self.time_zone.clone_from(time_zone);
                self.node.clone_from(node);
                self.attached.clone_from(&probes.attached);
                self.namespaces.host = *netns;
                self.select.clone_from(select);
            }
            Context::Process(process) => self.processes.insert(process.pid, process.clone()),
            Context::Snapshot(seen) => self.loaded.insert(seen.process, seen.loaded.clone()),
            Context::Network(network) => {
                if network.has_read_namespace() {
                    self.namespaces.lives(network.netns);
                }
            }
            Context::Netns { inode, generation, name } => {
                self.namespaces.named(Netns { inode: *inode, generation: *generation }, name);
            }
            Context::NetnsUnnamed { inode, generation, name } => {
                self.namespaces.unnamed(Netns { inode: *inode, generation: *generation }, name);
            }
            Context::Device { netns, index, name } => self.device(*netns, *index, name.clone()),
            Context::Listener { netns, address, port, process, comm } => {
                self.namespaces.lives(*netns);
                self.listeners.insert((*netns, *address, *port), (*process, comm.clone()));
            }
            // Of one domain, or for the correlation alone.
            Context::Clock { .. }
            | Context::Reference(_)
            | Context::Way { .. }
            | Context::LeapState { .. }
            | Context::Tick { .. }
            | Context::Built { .. }
            | Context::Exposed(_)
            | Context::Reach(_)
            | Context::Holders(_)
            | Context::OwnAddress(_)
            | Context::Listeners(_)
            | Context::Answered(_)
            | Context::Watched(_) => {}
        }
    }

    /// How full what is remembered is.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![
            self.processes.table("processes"),
            self.loaded.table("programs"),
            self.listeners.table("listeners"),
            self.devices.table("devices"),
            self.namespaces.table(),
        ];
        tables.extend(self.names.tables());
        tables
    }

    /// The machine's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The machine's time zone, which has no part in anything.
    pub fn time_zone(&self) -> Option<&str> {
        self.time_zone.as_deref()
    }

    /// From where on the wall clock is wrong enough.
    pub fn clock(&self) -> &ClockThresholds {
        &self.clock
    }

    /// How long a lookup may wait before that is an incident, nanoseconds.
    pub fn dns_stall_ns(&self) -> u64 {
        self.dns_stall_ns
    }

    /// Whether a probe is attached: what it does not see did not necessarily not happen.
    pub fn sees(&self, probe: ProbeId) -> bool {
        self.attached.iter().any(|name| name == probe_name(probe))
    }

    /// What was lost so far, by probe and reason.
    pub fn losses(&self) -> &[LostBy] {
        &self.losses
    }

    /// Whether something of one of these probes was lost.
    pub fn has_lost(&self, probes: &[&str]) -> bool {
        self.losses.iter().any(|loss| loss.count > 0 && probes.contains(&loss.probe.as_str()))
    }

    /// Records of a probe were lost.
    pub fn lost(&mut self, probe: ProbeId, stat: Stat, count: u64) {
        let probe = probe_name(probe);
        let reason = stat.name();
        match self.losses.iter_mut().find(|loss| loss.probe == probe && loss.reason == reason) {
            Some(loss) => loss.count = loss.count.saturating_add(count),
            None => self.losses.push(LostBy { probe: probe.into(), reason: reason.into(), count }),
        }
    }

    /// Whether an owner passes the filters by process, container and the like.
    pub fn is_wanted(&self, owner: &Owner) -> bool {
        !self.select.by_owner || self.processes.get(&owner.process).is_some_and(|process| process.wanted)
    }

    /// The filters that let a process pass and hide some of what it does: what is not seen of it may have happened.
    pub fn narrowed(&self) -> Vec<Narrowed<'_>> {
        self.select.narrowed()
    }

    /// A thread as it acted, with what is known of its process.
    pub fn process(&self, owner: &Owner) -> Process {
        let mut process = Process {
            pid: owner.process,
            // Of one that acted before culprit started only the process is known.
            tid: if owner.thread == 0 { owner.process } else { owner.thread },
            comm: records::comm(&owner.comm),
            netns: self.namespace(owner.netns),
            ..Process::default()
        };
        if let Some(known) = self.processes.get(&owner.process) {
            known.identifies(&mut process);
        }
        process
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

    /// A thread in words: `thread 44`, with its name when it has one of its own; `the process` where it is not known
    /// which thread it was.
    pub fn thread(&self, owner: &Owner) -> String {
        if owner.thread == 0 {
            return "the process".to_owned();
        }
        match self.named(owner).and_then(|process| process.thread) {
            Some(name) => format!("thread {} ({name})", owner.thread),
            None => format!("thread {}", owner.thread),
        }
    }

    /// What is known of a process.
    pub fn of_process(&self, process: u32) -> Option<&ProcessContext> {
        self.processes.get(&process)
    }

    /// What a process has loaded, as it was seen when it was last looked at.
    pub fn loaded(&self, process: u32) -> Option<&Loaded> {
        self.loaded.get(&process)
    }

    /// The name of a network namespace other than the host's own.
    pub fn namespace(&self, netns: Netns) -> Option<String> {
        self.namespaces.name(netns)
    }

    /// The process that listens at an address, or at any address, of a namespace: its id and name.
    pub fn listener_at(&self, netns: Netns, address: IpAddr, port: u16) -> Option<(u32, String)> {
        [address, std::net::Ipv6Addr::UNSPECIFIED.into(), std::net::Ipv4Addr::UNSPECIFIED.into()]
            .into_iter()
            .find_map(|address| self.listeners.get(&(netns, address, port)))
            .cloned()
    }

    /// Gives what was not taken yet to the process that listens for it, when that is known.
    pub fn adopt(&self, owner: &mut Owner, tuple: &Tuple) {
        let local = records::address(tuple.local);
        if let Some((process, comm)) = self.listener_at(owner.netns, local, tuple.local_port) {
            owner.process = process;
            owner.thread = process;
            owner.comm = records::comm_bytes(&comm);
        }
    }

    /// A device has this name.
    pub fn device(&mut self, netns: Netns, index: u32, name: String) {
        if self.devices.get(&(netns, index)) != Some(&name) {
            self.devices.insert((netns, index), name);
        }
    }

    /// The name of a device.
    pub fn device_at(&self, netns: Netns, index: u32) -> Option<String> {
        self.devices.get(&(netns, index)).cloned()
    }

    /// The other end of a connection, with the name that its owner may believe.
    pub fn remote(&self, tuple: &Tuple, owner: &Owner) -> Endpoint {
        self.at(tuple.remote, tuple.remote_port, owner)
    }

    /// The own end of a connection.
    pub fn local(&self, tuple: &Tuple) -> Endpoint {
        Endpoint { ip: records::address(tuple.local), port: tuple.local_port, name: None, wire: None }
    }

    /// An address as an owner sees it: in its namespace, and by the names that it may believe.
    pub fn at(&self, address: [u8; 16], port: u16, owner: &Owner) -> Endpoint {
        let ip = records::address(address);
        let name = self.names.name(owner.netns, ip, self.reader(owner)).map(str::to_owned);
        Endpoint { ip, port, name, wire: None }
    }

    /// An IPv4 address of a name, as far as this owner may believe it. Walks through all names.
    pub fn ipv4_of(&self, owner: &Owner, name: &str) -> Option<IpAddr> {
        self.names.addresses(owner.netns, name, self.reader(owner)).filter(IpAddr::is_ipv4).min()
    }

    /// Which process of that number it is.
    pub fn asker(&self, process: u32) -> Asker {
        (process, self.processes.get(&process).map_or(0, |known| known.started_ns))
    }

    /// An owner as one who wants to know names.
    fn reader(&self, owner: &Owner) -> names::Reader<'_> {
        let known = self.processes.get(&owner.process);
        let resolvers = known.map_or(&[][..], |known| &known.resolvers);
        names::Reader { process: self.asker(owner.process), resolvers }
    }
}

fn probe_name(id: ProbeId) -> &'static str {
    PROBES.get(id.0 as usize).map_or("unknown", |probe| probe.name)
}
