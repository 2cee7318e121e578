//! Words the rules share: addresses, durations and processes as an incident says them.

use std::net::IpAddr;

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::connect::Connect,
};

pub(super) use crate::text::duration::short as duration;

use crate::{
    fact::{Endpoint, Process},
    pipeline::incident::{Cause, CauseKind},
    pipeline::world::World,
    records,
    text::{shell::Command, shown},
};

/// `192.0.2.1:80`, `[2001:db8::1]:80`.
pub(super) fn address(endpoint: &Endpoint) -> String {
    std::net::SocketAddr::new(endpoint.ip, endpoint.port).to_string()
}

/// `192.0.2.1:80`, `10.96.0.1:443, by NAT 203.0.113.10:8443`.
pub(super) fn on_the_wire(endpoint: &Endpoint) -> String {
    match &endpoint.wire {
        Some(wire) => format!("{}, {wire}", address(endpoint)),
        None => address(endpoint),
    }
}

/// `name (192.0.2.1:80)`, or the address alone.
pub(super) fn place(endpoint: &Endpoint) -> String {
    let at = on_the_wire(endpoint);
    match &endpoint.name {
        Some(known) => format!("{} ({at})", shown(known)),
        None => at,
    }
}

/// `raven[1017]`, `shop/cart-7d9f/cart nc[25216]`.
pub(super) fn process(process: &Process) -> String {
    let place = process.belongs().map(|place| format!("{place} ")).unwrap_or_default();
    format!("{place}{}[{}]", shown(&process.comm), process.pid)
}

/// `one`, `two times`: a count with its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// `once`, `3 times`.
pub(super) fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// A program, wherever it connects to: network namespace, executable, cgroup.
pub(super) type Program = (Netns, String, u64);

/// The program that connects.
pub(super) fn program(connect: &Connect, world: &World) -> Program {
    program_of(&connect.owner, world)
}

/// The program that a thread runs, whichever of its processes it is.
pub(super) fn program_of(owner: &Owner, world: &World) -> Program {
    let known = world.known.of_process(owner.process).and_then(|known| known.exe.clone());
    (owner.netns, known.unwrap_or_else(|| records::comm(&owner.comm)), owner.cgroup)
}

/// The same program in the same network namespace, and the same destination.
pub(super) fn subject(connect: &Connect, world: &World) -> String {
    let (netns, program, _) = program(connect, world);
    let to = records::address(connect.tuple.remote);
    format!("{netns}|{program}|{to}|{}", connect.tuple.remote_port)
}

/// The way to an address, as the kernel takes it.
pub(super) fn route_get(ip: IpAddr) -> Command {
    Command::new("ip").words("route get").arg(ip)
}

/// Why this host dropped the last packet of a connect, if it dropped one.
pub(super) fn drop_reason(connect: &Connect, world: &World) -> Option<String> {
    (connect.drops > 0).then(|| world.drop_reason(connect.drop_reason)).flatten()
}

/// A connect as a cause: all but how sure that is, and whose connect it is.
pub(super) fn cause(connect: &Connect, world: &World, outcome: &str, elapsed_ns: u64) -> Cause {
    Cause {
        kind: CauseKind::OutboundConnect,
        destination: Some(world.known.destination(connect)),
        outcome: Some(outcome.to_owned()),
        syn_retransmits: Some(connect.retries),
        dropped_by_host: Some(connect.drops),
        drop_reason: drop_reason(connect, world),
        drop: world.drop_site(connect),
        elapsed_ms: Some(elapsed_ns / 1_000_000),
        ..Cause::default()
    }
}
