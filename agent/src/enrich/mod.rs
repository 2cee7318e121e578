//! Events → facts. [`World`] remembers what is needed to say them well: processes, names, wall-clock
//! offset, hellos seen so far, lookups under way. Pure: its only inputs are events and [`Context`]s, so
//! a recording gives the same facts anywhere.

pub mod ask;
pub mod bounded;
mod cgroup_path;
mod cgroups;
pub mod clock;
pub mod connect;
pub mod context;
mod dns;
mod drops;
mod families;
mod hello;
mod names;
pub(crate) mod neigh;
mod netns;
pub mod observe;
pub mod operations;
mod pending;
pub mod request;
pub mod select;
mod silence;
pub(crate) mod tls;
mod wire;

use std::{collections::HashMap, net::IpAddr};

use bounded::Bounded;
use context::{Context, ProcessContext};
use ebpf_probes::abi::{Netns, Owner, Tuple};
use select::Select;

use crate::{
    event::{self, Event, What as Raw},
    fact::{Endpoint, Fact, LostBy, NeighbourTransition, Process, What},
};

/// Processes remembered at most.
const PROCESSES: usize = 8192;
/// Processes whose libraries are remembered, at most.
const LOADED: usize = 512;
const LISTENERS: usize = 1024;
const DEVICES: usize = 8192;
const NEIGHBOURS: usize = 256;
const GATEWAYS: usize = 4096;
const WAYS: usize = 1024;

/// What is known so far.
pub struct World {
    namespaces: netns::Namespaces,
    select: Select,
    clock: clock::Clock,
    /// Some hook on the calls that set the clock is not attached.
    clock_degraded: bool,
    processes: Bounded<u32, ProcessContext>,
    /// What processes that were looked at have loaded.
    loaded: Bounded<u32, context::Loaded>,
    names: names::Names,
    listeners: Bounded<(Netns, IpAddr, u16), (u32, String)>,
    devices: Bounded<(Netns, u32), String>,
    drop_reasons: HashMap<u32, String>,
    tls: tls::Handshakes,
    dns: dns::Lookups,
    losses: Vec<LostBy>,
    node: String,
    time_zone: Option<String>,
    attached: Vec<String>,
    operations: operations::Operations,
    drops: drops::Drops,
    silent: Bounded<(Netns, [u8; 16]), ask::SilentNeighbour>,
    /// Next hops of default routes, by namespace.
    gateways: Bounded<Netns, Vec<context::Gateway>>,
    /// Connects that wait for a neighbour, by cookie.
    held_up: Bounded<u64, (Netns, [u8; 16])>,
    /// Forwarded packets that wait for a neighbour, by destination.
    forwarded: Bounded<([u8; 16], u16), silence::Forwarded>,
    /// Successes over IPv4 of processes whose connects over IPv6 are silent, by process and port.
    ipv4: Bounded<(u32, u16), (IpAddr, u64)>,
    /// A connect over IPv6 was last seen waiting, CLOCK_BOOTTIME in nanoseconds.
    ipv6_waits_ns: u64,
    neighbours: neigh::Memory,
    /// How namespaces reach HTTP servers that say what time it is.
    ways: Bounded<(Netns, [u8; 16]), context::Way>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            namespaces: netns::Namespaces::default(),
            select: Select::default(),
            clock: clock::Clock::default(),
            clock_degraded: false,
            processes: Bounded::new(PROCESSES),
            loaded: Bounded::new(LOADED),
            names: names::Names::default(),
            listeners: Bounded::new(LISTENERS),
            devices: Bounded::new(DEVICES),
            drop_reasons: HashMap::new(),
            tls: tls::Handshakes::default(),
            dns: dns::Lookups::default(),
            losses: Vec::new(),
            node: String::new(),
            time_zone: None,
            attached: Vec::new(),
            operations: operations::Operations::default(),
            drops: drops::Drops::default(),
            silent: Bounded::new(NEIGHBOURS),
            gateways: Bounded::new(GATEWAYS),
            held_up: Bounded::new(silence::HELD_UP),
            forwarded: Bounded::new(silence::FORWARDED),
            ipv4: Bounded::new(families::SUCCESSES),
            ipv6_waits_ns: 0,
            neighbours: neigh::Memory::default(),
            ways: Bounded::new(WAYS),
        }
    }
}

/// What happened, and who did it; the rest of a [`Fact`] is the same for all.
type Emitted = (&'static str, Owner, What);

impl World {
    /// Learns something about the system.
    pub fn apply_context(&mut self, context: &Context) {
        match context {
            Context::Origin { drop_reasons, netns, select, node, probes, time_zone, .. } => {
                self.time_zone.clone_from(time_zone);
                self.node.clone_from(node);
                self.attached.clone_from(&probes.attached);
                self.clock_degraded = probes.degraded.iter().any(clock::misses_calls);
                self.namespaces.host = *netns;
                self.select.clone_from(select);
                let reason = |(name, number): &(String, u32)| {
                    (*number, name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name).to_owned())
                };
                self.drop_reasons = drop_reasons.iter().map(reason).collect();
            }
            Context::Clock { boot_ns, offset_ns } => self.clock.stands(*boot_ns, *offset_ns),
            Context::Reference(reading) => clock::references::heard(self, reading),
            Context::Way { netns, generation, address, way } => {
                let netns = Netns { inode: *netns, generation: *generation };
                self.ways.insert((netns, event::address_bytes(*address)), *way);
            }
            Context::LeapState { boot_ns, armed, tai_s } => self.clock.leap.says(*boot_ns, *armed, *tai_s),
            Context::Built { name, utc_ns } => self.clock.built = Some((name.clone(), *utc_ns)),
            Context::Process(process) => self.processes.insert(process.pid, process.clone()),
            Context::Snapshot(seen) => self.loaded.insert(seen.process, seen.loaded.clone()),
            // For the correlation alone.
            Context::Exposed(_) | Context::Reach(_) | Context::Holders(_) => {}
            Context::Network(network) => self.network(network),
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
        }
    }

    /// Takes in an event and reports what it means, in order.
    pub fn apply(&mut self, event: &Event, mut to: impl FnMut(Fact)) {
        clock::begin(self);
        while let Some((boot_ns, (probe, owner, what))) = neigh::overdue(self, event.boot_ns) {
            if let Some(fact) = self.fact(boot_ns, probe, owner, what) {
                to(fact);
            }
        }
        let mut facts: Vec<Emitted> = Vec::new();
        match &event.what {
            Raw::Connect(step, connect) => {
                self.operations.connect(event.boot_ns, *step, connect);
                self.family_of(event.boot_ns, *step, connect);
                connect::apply(self, event.boot_ns, *step, connect, &mut facts);
            }
            Raw::Dropped(dropped) => self.drops.add(dropped),
            Raw::Hello(bytes) => self.tls.bytes(bytes),
            Raw::Tls(step, handshake) => tls::apply(self, event.boot_ns, *step, handshake, &mut facts),
            Raw::Dns(message) => dns::apply(self, event.boot_ns, message, &mut facts),
            Raw::DnsWire(record) => self.dns.goes(record),
            Raw::Neigh(record) => neigh::changed(self, event.boot_ns, record, &mut facts),
            Raw::Mac(record) => neigh::mismatch(self, event.boot_ns, record, &mut facts),
            Raw::Claim(record) => neigh::claimed(self, event.boot_ns, record, &mut facts),
            Raw::Unheard(record) => neigh::unheard(self, event.boot_ns, record, &mut facts),
            Raw::Waiter(record) => {
                self.waits(record);
                neigh::waited(self, record, &mut facts);
            }
            Raw::ClockSet(record) => clock::set(self, event.boot_ns, record, &mut facts),
            Raw::ClockMoved(record) => clock::moved(self, event.boot_ns, record, &mut facts),
            Raw::ClockSuspended(record) => clock::suspended(self, record, &mut facts),
            Raw::HttpDate(record) => clock::references::date(self, record),
            Raw::Tick => dns::tick(self, event.boot_ns, &mut facts),
            Raw::Lost { probe, stat, count } => self.lost(*probe, *stat, *count),
        }
        for (boot_ns, what) in clock::references::compared(self) {
            if let Some(fact) = self.fact(boot_ns, "clock", Owner::default(), what) {
                to(fact);
            }
        }
        for (probe, owner, what) in facts {
            if let Some(fact) = self.fact(event.boot_ns, probe, owner, what) {
                to(fact);
            }
        }
    }

    /// How full what is remembered is.
    pub fn tables(&self) -> Vec<bounded::Table> {
        let mut tables = vec![
            self.processes.table("processes"),
            self.loaded.table("programs"),
            self.listeners.table("listeners"),
            self.devices.table("devices"),
            self.silent.table("silent_neighbours"),
            self.gateways.table("gateways"),
            self.namespaces.table(),
            self.held_up.table("connects_held_up"),
            self.forwarded.table("forwarded_waiting"),
            self.ipv4.table("ipv4_successes"),
            self.operations.connects.table("connects"),
            self.drops.table(),
            self.tls.table(),
            self.neighbours.table(),
            self.ways.table("http_clocks"),
        ];
        tables.extend(self.names.tables());
        tables.extend(self.dns.tables());
        tables
    }

    /// What was lost so far, by probe and reason.
    pub fn losses(&self) -> &[LostBy] {
        &self.losses
    }

    /// Whether something of one of these probes was lost.
    pub fn has_lost(&self, probes: &[&str]) -> bool {
        self.losses.iter().any(|loss| loss.count > 0 && probes.contains(&loss.probe.as_str()))
    }

    fn lost(&mut self, probe: ebpf_probes::abi::ProbeId, stat: ebpf_probes::abi::Stat, count: u64) {
        let probe = probe_name(probe);
        let reason = stat.name();
        match self.losses.iter_mut().find(|loss| loss.probe == probe && loss.reason == reason) {
            Some(loss) => loss.count = loss.count.saturating_add(count),
            None => self.losses.push(LostBy { probe: probe.into(), reason: reason.into(), count }),
        }
    }

    fn fact(&self, boot_ns: u64, probe: &'static str, owner: Owner, what: What) -> Option<Fact> {
        let process = (owner.process != 0).then(|| self.process(&owner));
        if !self.select.wants(&what) {
            return None;
        }
        if self.select.by_owner && !self.wanted(&owner) && !concerns_everyone(&what) {
            return None;
        }
        Some(Fact { at: self.wall(boot_ns), boot_ns, probe, process, what })
    }

    fn wanted(&self, owner: &Owner) -> bool {
        self.processes.get(&owner.process).is_some_and(|process| process.wanted)
    }

    fn process(&self, owner: &Owner) -> Process {
        let mut process = Process {
            pid: owner.process,
            tid: owner.thread,
            comm: event::comm(&owner.comm),
            netns: self.netns_name(owner.netns),
            ..Process::default()
        };
        if let Some(known) = self.processes.get(&owner.process) {
            known.identifies(&mut process);
        }
        process
    }

    /// The name of a network namespace other than the host's own.
    fn netns_name(&self, netns: Netns) -> Option<String> {
        self.namespaces.name(netns)
    }

    /// Who listens at an address, or at any address, of a namespace.
    fn listener(&self, netns: Netns, address: IpAddr, port: u16) -> Option<&(u32, String)> {
        [address, std::net::Ipv6Addr::UNSPECIFIED.into(), std::net::Ipv4Addr::UNSPECIFIED.into()]
            .into_iter()
            .find_map(|address| self.listeners.get(&(netns, address, port)))
    }

    /// Gives what was not taken yet to the process that listens for it, when that is known.
    fn adopt(&self, owner: &mut Owner, tuple: &Tuple) {
        let local = event::address(tuple.local);
        if let Some((process, comm)) = self.listener(owner.netns, local, tuple.local_port) {
            owner.process = *process;
            owner.thread = *process;
            owner.comm = event::comm_bytes(comm);
        }
    }

    fn device(&mut self, netns: Netns, index: u32, name: String) {
        if self.devices.get(&(netns, index)) != Some(&name) {
            self.devices.insert((netns, index), name);
        }
    }

    fn device_name(&self, netns: Netns, index: u32) -> Option<String> {
        self.devices.get(&(netns, index)).cloned()
    }

    /// The other end of a connection, with the name that its owner may believe.
    fn remote(&self, tuple: &Tuple, owner: &Owner) -> Endpoint {
        self.endpoint(tuple.remote, tuple.remote_port, owner)
    }

    fn local(&self, tuple: &Tuple) -> Endpoint {
        Endpoint { ip: event::address(tuple.local), port: tuple.local_port, name: None, wire: None }
    }

    /// An address as an owner sees it: in its namespace, and by the names that it may believe.
    fn endpoint(&self, address: [u8; 16], port: u16, owner: &Owner) -> Endpoint {
        let ip = event::address(address);
        let name = self.names.name(owner.netns, ip, self.reader(owner)).map(str::to_owned);
        Endpoint { ip, port, name, wire: None }
    }

    /// An owner as one who wants to know names.
    fn reader(&self, owner: &Owner) -> names::Reader<'_> {
        let known = self.processes.get(&owner.process);
        let resolvers = known.map_or(&[][..], |known| &known.resolvers);
        names::Reader { process: self.asker(owner.process), resolvers }
    }

    /// Which process of that number it is.
    fn asker(&self, process: u32) -> names::Asker {
        (process, self.processes.get(&process).map_or(0, |known| known.started_ns))
    }

    /// The wall clock at a moment, by the offset that held then.
    fn wall(&self, boot_ns: u64) -> String {
        self.reading(boot_ns, self.clock.offset_at(boot_ns))
    }
}

/// The clock, and neighbours that fail or do not hear us, concern every process: filters by process let them pass.
pub fn concerns_everyone(what: &What) -> bool {
    match what {
        What::NeighbourChanged(change) => {
            change.failed || change.transition == NeighbourTransition::PacketDropped
        }
        What::NeighbourTableFull(_)
        | What::NeighbourMacMismatch(_)
        | What::NeighbourClaimed(_)
        | What::NeighbourRetransmit(_)
        | What::NeighbourRecovered(_)
        | What::NeighbourConnectionReset(_)
        | What::ClockSet { .. }
        | What::ClockMoved { .. }
        | What::LeapSecond { .. }
        | What::Suspended { .. } => true,
        What::ConnectStarted { .. }
        | What::SynRetransmitted { .. }
        | What::ConnectDropped { .. }
        | What::ConnectPending { .. }
        | What::ConnectEnded { .. }
        | What::ClientHello { .. }
        | What::ServerHello { .. }
        | What::ServerFlightRead { .. }
        | What::ClientFinished { .. }
        | What::HandshakeDone { .. }
        | What::Alert { .. }
        | What::HandshakeClosed { .. }
        | What::NotTls { .. }
        | What::HandshakePending { .. }
        | What::DnsQuery { .. }
        | What::DnsAnswer { .. }
        | What::DnsPending { .. }
        | What::DnsFailed { .. }
        | What::NeighbourPacketQueued(_)
        | What::ClockSlewed { .. }
        | What::ClockCompared { .. } => false,
    }
}

fn probe_name(id: ebpf_probes::abi::ProbeId) -> &'static str {
    ebpf_probes::probes::PROBES.iter().find(|probe| probe.id == id).map_or("unknown", |probe| probe.name)
}

/// Nanoseconds as milliseconds, to the microsecond.
fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ebpf_probes::abi::Kind;
    use proptest::prelude::*;

    use super::*;

    /// A record of any kind, with any content: what a hostile recording may hold.
    fn record() -> impl Strategy<Value = Bytes> {
        let body = proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 16..400);
        (0..Kind::ALL.len(), prop_oneof![any::<u64>(), 0u64..10_000_000_000], body).prop_map(
            |(kind, boot_ns, mut bytes)| {
                let len = bytes.len() as u32;
                bytes[..8].copy_from_slice(&boot_ns.to_ne_bytes());
                bytes[8..12].copy_from_slice(&(Kind::ALL[kind] as u32).to_ne_bytes());
                bytes[12..16].copy_from_slice(&len.to_ne_bytes());
                Bytes::from(bytes)
            },
        )
    }

    /// A DNS message of any content from a socket that asks and answers.
    fn dns() -> impl Strategy<Value = Bytes> {
        use ebpf_probes::probes::dns::DNS_BYTES_HEAD;
        let content = proptest::collection::vec(any::<u8>(), 0..64);
        (content, any::<bool>(), any::<bool>(), any::<u32>(), any::<u64>()).prop_map(
            |(content, ingress, tcp, seq, boot_ns)| {
                let mut bytes = vec![0; DNS_BYTES_HEAD];
                let len = (DNS_BYTES_HEAD + content.len()) as u32;
                bytes[..8].copy_from_slice(&boot_ns.to_ne_bytes());
                bytes[8..12].copy_from_slice(&(Kind::DnsMessage as u32).to_ne_bytes());
                bytes[12..16].copy_from_slice(&len.to_ne_bytes());
                bytes[102..104].copy_from_slice(&(if tcp { 6u16 } else { 17 }).to_ne_bytes());
                bytes[104..108].copy_from_slice(&seq.to_ne_bytes());
                bytes[108..112].copy_from_slice(&(content.len() as u32).to_ne_bytes());
                bytes[112..116].copy_from_slice(&u32::from(ingress).to_ne_bytes());
                bytes.extend(content);
                Bytes::from(bytes)
            },
        )
    }

    proptest! {
        #[test]
        fn any_sequence_of_records_is_applied_without_harm(
            records in proptest::collection::vec(prop_oneof![record(), dns()], 0..40),
        ) {
            let mut world = World::default();
            for record in &records {
                if let Ok(event) = crate::event::decode(record) {
                    world.apply(&event, |fact| {
                        let mut out = Vec::new();
                        serde_json::to_writer(&mut out, &fact).expect("every fact is JSON");
                    });
                }
            }
        }
    }
}
