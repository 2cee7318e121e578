//! What rules share about DNS servers: whether the one that is asked is a process of this host that itself waits for
//! another server, whether its answer was cut, and what to do about one that is silent.

use std::net::IpAddr;

use ebpf_probes::{
    abi::Owner,
    probes::{connect::Connect, dns::PORT},
};

use super::{neighbours, text};
use crate::{
    domains::dns::{Heard, LookupOp},
    fact::{Endpoint, Process},
    pipeline::{remedy::Remedy, world::World},
    records,
    text::{host::host, shell::Command},
};

/// A truncated answer is asked for again over TCP within this long.
const RETRIED_NS: u64 = 5_000_000_000;

/// Questions asked together are asked within this long of each other, and one is answered at once within it.
const TOGETHER_NS: u64 = 1_000_000_000;

/// Why there is no answer, when a process of this host waits for one itself.
pub(super) const BEHIND: &str =
    "The resolver on this host is alive and has no answer to give: the server behind it is silent.";
/// Why one of two questions is not answered.
pub(super) const HALF: &str = "The resolver answers: a C library asks for A and AAAA at once from one socket, one of the \
    two packets is lost, and is sent again only after a timeout (glibc: 5 s). Most often both make their conntrack entry \
    at the same moment, on a host that translates addresses, and one of them is dropped.";

/// A process of this host that is asked, and what it waits for.
pub(super) struct Upstream {
    /// Its own lookup of the same question.
    pub(super) op: LookupOp,
    pub(super) process: Process,
    /// The server it asks.
    pub(super) server: Endpoint,
    /// It lives in the network namespace of who asks, and no other process asks the same.
    pub(super) is_sure: bool,
}

impl Upstream {
    /// `dnsmasq[812] on this host is asked and itself waits for 203.0.113.10:53`.
    pub(super) fn words(&self, over: bool) -> String {
        let verb = if over { "was asked and itself waited for" } else { "is asked and itself waits for" };
        format!("{} on this host {verb} {}", text::process(&self.process), text::place(&self.server))
    }
}

/// Whether the server of a lookup is at an address of this host: a loopback address, or the one it is asked from.
pub(super) fn is_local(op: &LookupOp) -> bool {
    records::address(op.server).to_canonical().is_loopback() || op.server == op.local
}

/// Who answers at the server of a lookup, when that is a process of this host which asks another server the same
/// question and has no answer.
pub(super) fn upstream(op: &LookupOp, world: &World) -> Option<Upstream> {
    if !is_local(op) {
        return None;
    }
    let others = world.lookup_ops(|owner| owner.process != 0 && owner.process != op.owner.process);
    let mut asked: Vec<LookupOp> = others
        .into_iter()
        .filter(|other| {
            let overlaps = match op.ended_ns {
                // What it waited for is there by now, and it is silent all the same.
                None => other.ended_ns.is_none(),
                Some(_) => other.ended_ns.is_none_or(|ended| ended > op.started_ns),
            };
            overlaps
                && other.server != op.server
                && other.query_type == op.query_type
                && other.name.text.eq_ignore_ascii_case(&op.name.text)
        })
        .collect();
    let near = |other: &LookupOp| other.owner.netns == op.owner.netns;
    let processes = |asked: &[LookupOp]| {
        let mut all: Vec<u32> = asked.iter().map(|other| other.owner.process).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    let is_sure = asked.iter().all(near) && processes(&asked) == 1;
    // What was asked on behalf of this question was asked after it, unless another client had asked the same before.
    asked.sort_by_key(|other| {
        (!near(other), other.started_ns < op.started_ns, other.started_ns, other.cookie, other.id)
    });
    let found = asked.into_iter().next()?;
    Some(Upstream {
        process: world.known.named(&found.owner)?,
        server: world.resolver(&found),
        op: found,
        is_sure,
    })
}

/// The record type whose question was asked together with this one, of the same server, and answered at once.
pub(super) fn half(op: &LookupOp, world: &World) -> Option<String> {
    let other = match op.query_type.as_str() {
        "A" => "AAAA",
        "AAAA" => "A",
        _ => return None,
    };
    let heard = world.answers().to(op.owner.process, &op.name.text, other)?;
    // Asked again, both are.
    let together = |asked_ns: u64| heard.at_ns.abs_diff(asked_ns) <= TOGETHER_NS;
    let at_once = together(op.started_ns) || together(op.sent_ns);
    (at_once && heard.server == op.server && heard.verdict.is_answer()).then(|| other.to_owned())
}

/// What to do about one of a pair of questions that is lost.
pub(super) fn half_lost() -> Vec<Remedy> {
    vec![
        "have it ask for one after the other: options single-request-reopen in /etc/resolv.conf (glibc)"
            .into(),
        Remedy::from("see whether conntrack drops them (insert_failed), on each host that translates: ")
            .and(Command::new("conntrack").arg("-S"))
            .and("; a cache on the host itself avoids it"),
    ]
}

/// The truncated answer that has a process connect to the same server over TCP, if there was one.
pub(super) fn truncated<'a>(connect: &Connect, world: &'a World) -> Option<&'a Heard> {
    if connect.tuple.remote_port != PORT {
        return None;
    }
    let fits = |heard: &&Heard| {
        heard.truncated
            && heard.owner.process == connect.owner.process
            && heard.server == connect.tuple.remote
            && heard.at_ns <= connect.started_ns
            && connect.started_ns - heard.at_ns <= RETRIED_NS
    };
    world.answers().iter().filter(fits).max_by_key(|heard| (heard.at_ns, &heard.name, &heard.query_type))
}

/// Why a resolver connects over TCP, where a connect is one of a resolver.
pub(super) fn over_tcp(connect: &Connect, world: &World) -> Option<String> {
    if let Some(heard) = truncated(connect, world) {
        return Some(truncated_words(heard));
    }
    // The answer came before culprit started.
    (connect.tuple.remote_port == PORT && connect.is_adopted()).then(|| {
        "A resolver library asks over TCP port 53 when the answer over UDP came truncated, or where it is set to \
         (options use-vc)."
            .to_owned()
    })
}

/// Why a resolver connects over TCP.
fn truncated_words(heard: &Heard) -> String {
    format!(
        "The answer to {} {} came truncated over UDP: the resolver asks for the whole of it over TCP port 53.",
        heard.query_type,
        host(&heard.name)
    )
}

/// A question asked by hand, where a process asks it.
pub(super) fn dig(op: &LookupOp, more: &[&'static str], world: &World) -> Remedy {
    let ip = records::address(op.server);
    // By options: a name may look like one, or like a server.
    let command = Command::new("dig")
        .arg(format!("@{ip}"))
        .args(more.iter().copied())
        .arg("-t")
        .arg(&op.query_type)
        .arg("-q")
        .arg(&op.name.text);
    there(&op.owner, command, world)
}

/// A command as it is run where a task is.
pub(super) fn there(owner: &Owner, command: Command, world: &World) -> Remedy {
    let netns = world.known.namespace(owner.netns);
    neighbours::within(netns.as_deref(), Some(owner.process).filter(|&process| process != 0), command)
}

/// What to do about a server that is silent.
pub(super) fn silent(op: &LookupOp, world: &World) -> Vec<Remedy> {
    let ip = records::address(op.server);
    let allow = match is_local(op) {
        // No firewall is on the way to it: it asks others itself.
        true => format!(
            "see which servers the resolver at {ip} asks (a local cache, or Docker's), and whether they answer; or \
             name one that answers in /etc/resolv.conf"
        ),
        false => {
            format!("allow udp/53 and tcp/53 to {ip}, or name a resolver that answers in /etc/resolv.conf")
        }
    };
    vec![dig(op, &[], world), allow.into()]
}

/// What to do about a server that is asked and does not answer, where it is not known for what.
pub(super) fn answers(ip: IpAddr, asks: &Owner, world: &World) -> Vec<Remedy> {
    // The root's servers: a question that every resolver can answer.
    let command = Command::new("dig").arg(format!("@{ip}")).words("-t NS -q .");
    let ask = Remedy::from("see whether it answers: ").and(there(asks, command, world));
    vec![
        ask,
        format!("allow udp/53 and tcp/53 to {ip}, or name a resolver that answers in /etc/resolv.conf")
            .into(),
    ]
}

/// What to do about a process of this host that waits for another server: nothing on the way to itself.
pub(super) fn behind(upstream: &Upstream, world: &World) -> Vec<Remedy> {
    let ip = upstream.server.ip;
    let who = text::process(&upstream.process);
    vec![
        dig(&upstream.op, &[], world),
        format!("allow udp/53 and tcp/53 to {ip}, or have {who} ask a server that answers").into(),
    ]
}
