//! One address family works and the other is silent: what that looks like from a connect over IPv6. It knows of an
//! IPv4 success only where the same process was seen to succeed.

use ebpf_probes::probes::connect::Connect;

use super::{neighbours, text};
use crate::{
    fact::Endpoint,
    pipeline::world::World,
    pipeline::{remedy::Remedy, report::Report},
    records,
    text::shell::Command,
};

/// Whether a connect goes to an IPv6 address (not to an IPv4-mapped one).
pub(super) fn is_v6(connect: &Connect) -> bool {
    records::address(connect.tuple.remote).is_ipv6()
}

/// Adds what is known of IPv4 to what is said of a silent IPv6 connect.
pub(super) fn silent(
    connect: &Connect,
    destination: &Endpoint,
    world: &World,
    why: &mut Vec<String>,
    remedies: &mut Vec<Remedy>,
) {
    if !is_v6(connect) {
        return;
    }
    if let Some(ip) = world.ipv4_success(connect) {
        why.insert(0, works(&Endpoint { ip, port: destination.port, name: None, wire: None }));
        remedies.insert(0, repair(destination));
        return;
    }
    let Some(name) = &destination.name else { return };
    if let Some(other) = world.known.ipv4_of(&connect.owner, name) {
        why.push(format!(
            "The name has IPv4 addresses too ({other}); whether they answer was not seen: if they do, it is IPv6 alone that is broken on the way."
        ));
        remedies.push(Remedy::from("compare: ").and(neighbours::beside(
            connect,
            world,
            text::route_get(other),
        )));
    }
}

/// The process that was met with silence over IPv6 has just succeeded over IPv4.
pub(super) fn answered(report: &mut Report, connect: &Connect, ended_ns: u64, world: &World) {
    let to = world.known.destination(connect);
    report.why.insert(0, works(&to));
    if let Some(destination) = report.cause.as_ref().and_then(|cause| cause.destination.as_ref()) {
        report.remedies.insert(0, repair(destination));
    }
    let took = text::duration(ended_ns.saturating_sub(connect.started_ns));
    report
        .evidence
        .push((ended_ns, format!("the same process's connect to {} succeeds in {took}", text::address(&to))));
}

fn works(to: &Endpoint) -> String {
    format!("IPv6 is silent while IPv4 works: {} answered the same process.", text::address(to))
}

fn repair(destination: &Endpoint) -> Remedy {
    Remedy::from(
        "withdraw IPv6 (the name's AAAA record, or this host's IPv6 default route), or repair the way: ",
    )
    .and(Command::new("ip").words("-6 route get").arg(destination.ip))
}
