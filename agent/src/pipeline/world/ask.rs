//! What the correlation asks: what is under way, and how the clock stood.

use std::net::IpAddr;

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::connect::Connect,
};

use super::World;
use crate::{
    domains::{
        clock::{
            self, Step, Tick,
            references::{References, Source},
        },
        connect::{ConnectOp, DropSite},
        dns::{Answers, LookupOp},
        neighbour::{Biography, Hop, SilentNeighbour},
    },
    fact::{Endpoint, Reading},
    known::context::Gateway,
    records,
    text::host::Name,
};

impl World {
    /// The wall clock at a moment, by the offset that held then, as RFC 3339 with microseconds.
    pub fn wall_text(&self, boot_ns: u64) -> String {
        clock::reading(boot_ns, self.offset_at(boot_ns))
    }

    /// The step that the event being reported made or found.
    pub fn step(&self) -> Option<&Step> {
        self.domains.clock.step()
    }

    /// Reference clocks.
    pub fn references(&self) -> &References {
        self.domains.clock.references()
    }

    /// The tick of the wall clock, where it makes that run fast or slow.
    pub fn wrong_tick(&self) -> Option<&Tick> {
        self.domains.clock.wrong_tick()
    }

    /// The readings a reference clock gave, the oldest first.
    pub fn readings(&self, source: &Source) -> impl Iterator<Item = &Reading> {
        self.references().all().filter(move |(known, _)| *known == source).flat_map(|(_, readings)| readings)
    }

    /// REALTIME − BOOTTIME now, nanoseconds.
    pub fn offset_ns(&self) -> i64 {
        self.domains.clock.offset_ns()
    }

    /// REALTIME − BOOTTIME as it was at a moment, nanoseconds.
    pub fn offset_at(&self, boot_ns: u64) -> i64 {
        self.domains.clock.offset_at(boot_ns)
    }

    /// The running kernel by its release and the day it was built, and that day in nanoseconds since 1970.
    pub fn built(&self) -> Option<(&str, i64)> {
        self.domains.clock.built()
    }

    /// Whether every call that sets the clock is seen: all its hooks are attached, and none of their records was lost.
    pub fn sees_setters(&self) -> bool {
        self.known.sees(ebpf_probes::abi::ProbeId::CLOCK)
            && !self.domains.clock.is_degraded()
            && !self.known.has_lost(&["clock"])
    }

    /// Milliseconds since 1970 by the clock as it stood when culprit began: later moments never come
    /// before earlier ones, whatever the clock does.
    pub fn steady_ms(&self, boot_ns: u64) -> u64 {
        self.domains.clock.steady_ms(boot_ns)
    }

    /// The server name a handshake's client asked for.
    pub fn server_name(&self, cookie: u64) -> Option<Name> {
        self.domains.tls.server_name(cookie)
    }

    /// The highest TLS version a handshake's client offered.
    pub fn offered_version(&self, cookie: u64) -> Option<&str> {
        self.domains.tls.offered_version(cookie)
    }

    /// The kernel's word for a drop reason.
    pub fn drop_reason(&self, reason: u32) -> Option<String> {
        self.domains.connect.drop_reason(reason)
    }

    /// Where the last packet of a connect was dropped, and which one it was; `None` when this was not recorded.
    pub fn drop_site(&self, connect: &Connect) -> Option<DropSite> {
        self.domains.connect.drop_site(&self.known, connect)
    }

    /// Who answered a connect in place of the address it asked, if any did.
    pub fn stray_answer(&self, connect: &Connect) -> Option<Endpoint> {
        self.domains.connect.stray_answer(connect)
    }

    /// The IPv4 address at which the same process succeeded on the same port since a connect began.
    pub fn ipv4_success(&self, connect: &Connect) -> Option<IpAddr> {
        self.domains.connect.ipv4_success(connect)
    }

    /// A connect that waits, or ended slowly or badly.
    pub fn connect_op(&self, cookie: u64) -> Option<&ConnectOp> {
        self.domains.connect.operation(cookie)
    }

    /// All of them, in no particular order.
    pub fn connect_ops(&self) -> impl Iterator<Item = &ConnectOp> {
        self.domains.connect.operations()
    }

    /// Lookups of these owners under way and those that took long, in no particular order.
    pub fn lookup_ops(&self, of: impl Fn(&Owner) -> bool) -> Vec<LookupOp> {
        self.domains.dns.operations(of)
    }

    /// Lookups, of whichever process, that have waited for at least so long.
    pub fn waiting_lookups(&self, now_ns: u64, least_ns: u64) -> Vec<LookupOp> {
        now_ns.checked_sub(least_ns).map_or_else(Vec::new, |since_ns| self.domains.dns.waiting(since_ns))
    }

    /// Lookups that the event being reported ended, slowly or badly.
    pub fn ended_lookups(&self) -> &[LookupOp] {
        self.domains.dns.ended_now()
    }

    /// The last answers to lookups.
    pub fn answers(&self) -> &Answers {
        self.domains.dns.answers()
    }

    /// The server that a lookup asks, and whither its question really went.
    pub fn resolver(&self, op: &LookupOp) -> Endpoint {
        self.domains.dns.resolver(&self.known, op)
    }

    /// The next hop of a default route of a namespace, if the address is one.
    pub fn gateway(&self, netns: Netns, device: &str, address: IpAddr) -> Option<&Gateway> {
        self.domains.neighbour.gateway(netns, device, address)
    }

    /// What became of the entry of the neighbour that a connect goes by: the next hop by which packets to its destination were
    /// seen to go, the destination itself, or the next hop of a default route of its namespace.
    pub fn biography(&self, connect: &Connect, now_ns: u64) -> Option<(IpAddr, &Biography)> {
        let (netns, memory) = (connect.owner.netns, &self.domains.neighbour);
        let remote = connect.way().remote;
        let hop = memory.hop(netns, remote, now_ns).unwrap_or(Hop { netns, ifindex: 0, address: remote });
        if let Some(found) = memory.biography(netns, hop.ifindex, hop.address) {
            return Some((records::address(hop.address), found));
        }
        if hop.ifindex != 0 {
            return None;
        }
        memory.gateways_of(netns).find_map(|gateway| {
            let found = memory.biography(netns, 0, records::address_bytes(gateway.address))?;
            (found.device == gateway.device
                && gateway.address.is_ipv4() == records::address(remote).is_ipv4())
            .then_some((gateway.address, found))
        })
    }

    /// A neighbour of the namespace that does not answer, or did not within the last second: its device.
    pub fn silent_neighbour(&self, netns: Netns, address: [u8; 16], now_ns: u64) -> Option<SilentNeighbour> {
        self.domains.neighbour.silent(netns, address, now_ns)
    }

    /// The last neighbour of the namespace that did not answer.
    pub fn last_silent_neighbour(&self, netns: Netns, now_ns: u64) -> Option<(IpAddr, SilentNeighbour)> {
        self.domains.neighbour.last_silent(netns, now_ns)
    }
}
