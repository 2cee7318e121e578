//! Why connects end as they do, and what to do about it: by outcome, by error, and by how far the connect came. A
//! connect that never sent a SYN was refused by this host; which rule did it is known once it was looked at.

use ebpf_probes::probes::connect::Connect;
use nix::errno::Errno;

use super::groups::Group;
use crate::{
    domains::connect::Outcome,
    fact::{Endpoint, HostIcmp, IcmpError},
    known::context::{PortUse, Reach},
    pipeline::{View, incident::CauseKind, remedy::Remedy, world::World},
    rules::{drops, families, neighbours, text},
    text::{shell::Command, shown},
};

/// What to say.
pub(super) struct Advice {
    pub(super) why: Vec<String>,
    pub(super) remedies: Vec<Remedy>,
}

fn advice(why: String, remedies: impl IntoIterator<Item = Remedy>) -> Advice {
    Advice { why: vec![why], remedies: remedies.into_iter().collect() }
}

/// Whether the way to the destination is to be looked at: the error alone does not show the cause.
pub(super) fn needs_a_look(outcome: Outcome, connect: &Connect) -> bool {
    connect.syns == 0
        && match outcome {
            Outcome::Denied | Outcome::HostUnreachable | Outcome::NetUnreachable => true,
            Outcome::Failed => matches!(Errno::from_raw(connect.errno), Errno::EADDRNOTAVAIL | Errno::EINVAL),
            _ => false,
        }
}

/// What connects fail for, as far as it is of this host: its own drops and policies, or local ports that are used up.
pub(super) fn cause(outcome: Outcome, group: &Group, world: &World) -> CauseKind {
    let ports = group.reach.as_ref().and_then(|reach| reach.ports.as_ref());
    match outcome {
        Outcome::TimedOut | Outcome::Aborted => drops::cause(&group.last, world),
        Outcome::Denied => CauseKind::Filter,
        Outcome::Failed if ports.is_some_and(PortUse::is_used_up) => CauseKind::ResourceLimit,
        _ => CauseKind::OutboundConnect,
    }
}

/// Why an outcome happens, and what to do about it.
pub(super) fn of(outcome: Outcome, to: &Endpoint, group: &Group, view: &View<'_>) -> Advice {
    let (connect, world) = (&group.last, view.world);
    let (ip, port) = (to.ip, to.port);
    if matches!(outcome, Outcome::TimedOut | Outcome::Aborted)
        && let Some(verdict) = drops::verdict(connect, world)
    {
        return Advice { why: vec![verdict.why], remedies: verdict.remedies };
    }
    let in_place = |command: Command| neighbours::beside(connect, world, command);
    if connect.syns == 0
        && let Some(said) = refused_here(outcome, to, connect, group.reach.as_ref(), in_place)
    {
        return said;
    }
    if let Some(said) = answered_here(to, connect, view) {
        return said;
    }
    match outcome {
        Outcome::Refused => advice(
            format!(
                "{ip} answers with a reset: it is up, and nothing listens on port {port} (or a firewall rejects)."
            ),
            [Remedy::from(format!(
                "start the service on {}, or correct the address; there: ",
                text::address(&Endpoint { ip, port, name: None, wire: None })
            ))
            .and(Command::new("ss").arg("-ltn").arg(format!("sport = :{port}")))],
        ),
        Outcome::Reset => advice(
            format!("{ip} or something between tears the connection down while it is made."),
            [format!("look for a proxy, a load balancer without backends or a full backlog at {ip}:{port}")
                .into()],
        ),
        Outcome::TimedOut | Outcome::Aborted => {
            let mut said = advice(
                "No answer comes: a firewall that drops, a missing route back or a dead host.".into(),
                [Remedy::from(format!("allow tcp/{port} to {ip} on the way: "))
                    .and(in_place(text::route_get(ip)))],
            );
            families::silent(connect, to, world, &mut said.why, &mut said.remedies);
            said
        }
        Outcome::HostUnreachable => match world.neighbour_under(connect, view.now_ns) {
            Some((next_hop, silent)) => advice(
                format!("{next_hop} does not answer ARP or NDP on {}.", shown(&silent.device)),
                [neighbours::silent(next_hop, &silent, world)],
            ),
            None => advice(
                format!("No neighbour answers for {ip}, or a router says it cannot reach it."),
                [Remedy::from("see which neighbour is asked for: ").and(in_place(text::route_get(ip)))],
            ),
        },
        Outcome::NetUnreachable => advice(
            format!("This host has no route to {ip}."),
            [Remedy::from("add the route or a default gateway in that network namespace: ")
                .and(in_place(text::route_get(ip)))],
        ),
        Outcome::Denied => advice(
            "A policy of this host refuses the call: a cgroup program, seccomp or a security module.".into(),
            [Remedy::from(format!("find the policy that denies tcp/{port} to {ip} (audit log): "))
                .and(Command::new("bpftool").words("cgroup tree"))],
        ),
        Outcome::Failed if connect.errno == Errno::EADDRNOTAVAIL as i32 => {
            ports(to, group.reach.as_ref().and_then(|reach| reach.ports.as_ref()), in_place)
        }
        Outcome::Failed | Outcome::Established | Outcome::Unseen => advice(
            "The kernel refuses for another reason.".into(),
            [Remedy::from("see which error the process gets: ")
                .and(Command::new("strace").words("-e trace=connect -p").arg(connect.owner.process))],
        ),
    }
}

/// This host itself answered with an ICMP error, in the process's network namespace or in another one. A neighbour that
/// does not answer says more than the host that says so.
fn answered_here(to: &Endpoint, connect: &Connect, view: &View<'_>) -> Option<Advice> {
    let world = view.world;
    let HostIcmp { error: says, netns } = world.known.host_icmp(connect)?;
    if world.neighbour_under(connect, view.now_ns).is_some() {
        return None;
    }
    // Rules and routes see the address on the wire.
    let (ip, port) = to.wire.map_or((to.ip, to.port), |wire| (wire.ip, wire.port));
    let own = connect.icmp_netns == connect.owner.netns;
    let process = Some(connect.owner.process).filter(|process| *process != 0 && own);
    let there = |command: Command| neighbours::within(netns.as_deref(), process, command);
    let host = match &netns {
        Some(netns) => format!("This host, in network namespace {},", shown(netns)),
        None => "This host".to_owned(),
    };
    let icmp = if ip.is_ipv6() { "ICMPv6" } else { "ICMP" };
    let rule = || {
        Remedy::from(format!("find the firewall rule that rejects tcp/{port} to {ip}: "))
            .and(there(Command::new("nft").words("list ruleset")))
    };
    let route = |what: &str| Remedy::from(what.to_owned()).and(there(text::route_get(ip)));
    Some(match says {
        IcmpError::PortUnreachable => advice(
            format!(
                "{host} rejects the SYN itself ({icmp} port unreachable), as a firewall rule with REJECT does: {ip} was never asked."
            ),
            [rule()],
        ),
        IcmpError::NetUnreachable => advice(
            format!(
                "{host} has no route to {ip} and says so itself ({icmp}); a firewall rule may say so, too."
            ),
            [route("add the route or a default gateway: "), rule()],
        ),
        IcmpError::Prohibited => advice(
            format!(
                "{host} prohibits it itself ({icmp}), by a route of type prohibit or a firewall rule: {ip} was never asked."
            ),
            [route("see whether a route prohibits it: "), rule()],
        ),
        IcmpError::HostUnreachable => advice(
            format!(
                "{host} says itself that {ip} is unreachable ({icmp}): no neighbour answers there, a route of type unreachable covers it, or a firewall rule rejects so."
            ),
            [route("see which neighbour is asked for: "), rule()],
        ),
        IcmpError::Other => advice(
            format!("{host} answers the SYN itself with an {icmp} error."),
            [route("see which way it would go: "), rule()],
        ),
    })
}

/// A connect that never sent a SYN: a route says so, unless a look has found that it does not.
fn refused_here(
    outcome: Outcome,
    to: &Endpoint,
    connect: &Connect,
    reach: Option<&Reach>,
    in_place: impl Fn(Command) -> Remedy,
) -> Option<Advice> {
    let ip = to.ip;
    // It was not looked at yet: what the error means when a route gives it.
    if reach.is_some_and(|reach| reach.read && reach.route_errno != connect.errno) {
        return None;
    }
    let (kind, verb) = match (outcome, Errno::from_raw(connect.errno)) {
        (Outcome::Denied, Errno::EACCES) => ("prohibit", "forbids"),
        (Outcome::Failed, Errno::EINVAL) => ("blackhole", "swallows"),
        (Outcome::HostUnreachable, Errno::EHOSTUNREACH) => ("unreachable", "refuses"),
        _ => return None,
    };
    let why = if reach.is_some_and(|reach| reach.read) {
        format!("A route of type {kind} on this host {verb} every packet to {ip}: no SYN is ever sent.")
    } else {
        format!("No SYN is ever sent: this host refuses the call itself, as a route of type {kind} does.")
    };
    let ip_of = |words: &'static str| {
        let ip_command = Command::new("ip");
        if ip.is_ipv6() { ip_command.arg("-6").words(words) } else { ip_command.words(words) }
    };
    Some(advice(
        why,
        [
            Remedy::from(format!("remove the route that covers {ip}: "))
                .and(in_place(ip_of("route show table all type").arg(kind))),
            Remedy::from("or the rule that leads to it: ").and(in_place(ip_of("rule"))),
        ],
    ))
}

/// EADDRNOTAVAIL: no local port is left, or there is no local address.
fn ports(to: &Endpoint, found: Option<&PortUse>, in_place: impl Fn(Command) -> Remedy) -> Advice {
    let place = text::address(to);
    let sockets = || in_place(Command::new("ss").words("-tanp dst").arg(&place));
    let Some(found) = found else {
        return advice(
            format!(
                "No local port or address is left for connects to {place}: usually all ports of net.ipv4.ip_local_port_range are in use towards it."
            ),
            [
                in_place(
                    Command::new("sysctl")
                        .words("net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports"),
                ),
                sockets(),
            ],
        );
    };
    let all = found.all();
    if !found.is_used_up() {
        return advice(
            format!(
                "No local address or port could be chosen for {place}, although only {} of {all} local ports are in use towards it: a bound source address or port is taken, or there is no address of that family.",
                found.used
            ),
            [in_place(Command::new("ip").arg("address")), sockets()],
        );
    }
    let states: Vec<String> =
        found.states.iter().map(|(state, number)| format!("{number} {state}")).collect();
    let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
    let mut why = vec![format!(
        "The local port range {}–{} (net.ipv4.ip_local_port_range) has {all} ports, and {} of them are in use towards {place}{states}.",
        found.first, found.last, found.used
    )];
    let holders: Vec<String> = found
        .holders
        .iter()
        .map(|holder| format!("{}[{}] {}", shown(&holder.comm), holder.pid, holder.ports))
        .collect();
    if !holders.is_empty() {
        why.push(format!("Ports are held by: {}.", holders.join(", ")));
    }
    let waiting =
        found.states.iter().find(|(state, _)| state == "TIME-WAIT").map_or(0, |(_, number)| *number);
    let mut remedies = vec![Remedy::from(format!(
        "keep connections to {place} open and use them again (a pool, keep-alive), instead of one per request"
    ))];
    if waiting * 2 > found.used {
        let reuse = Command::new("sysctl").words("-w net.ipv4.tcp_tw_reuse=1");
        remedies.push(Remedy::from("use ports in TIME-WAIT again: ").and(in_place(reuse)));
    }
    let widen = Command::new("sysctl").arg("-w").arg("net.ipv4.ip_local_port_range=1024 65535");
    remedies.push(
        Remedy::from(
            "widen the range (and name the ports of services in net.ipv4.ip_local_reserved_ports): ",
        )
        .and(in_place(widen)),
    );
    remedies.push("or add addresses: each pair of addresses has a port range of its own".into());
    Advice { why, remedies }
}
