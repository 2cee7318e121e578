//! What is found out about lookups without an answer: does the server answer others meanwhile, was the other half of a
//! pair of questions answered, who is behind the server, what was asked before on the way through a search list, and
//! whose address is it that a name is looked up for?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{edns, groups::Group, lookup::Conclusion};
use crate::{
    domains::{
        connect::ConnectOp,
        dns::{Heard, LookupOp, Verdict},
    },
    pipeline::{incident::DnsReason, world::World},
    rules::resolvers::{self, Upstream},
};

/// A search list is gone through within this long.
const SEARCH_NS: u64 = 30_000_000_000;
/// Names of a search list shown at most.
const SEARCHED: usize = 6;

/// What is known now.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) to_process: u64,
    pub(super) to_others: u64,
    pub(super) answered_type: Option<String>,
    pub(super) searched: Vec<String>,
    pub(super) reverse_of: Option<IpAddr>,
    pub(super) upstream: Option<Upstream>,
    pub(super) edns: Option<edns::Found>,
    /// The connect over TCP that the lookup waits for.
    pub(super) connect: Option<ConnectOp>,
}

impl Findings {
    /// Of a lookup that waits, or waited until then.
    pub(super) fn of(group: &Group, until_ns: u64, world: &World) -> Self {
        let op = &group.lead;
        let meanwhile = |heard: &&Heard| {
            heard.server == op.server
                && heard.owner.netns == op.owner.netns
                && (op.started_ns..=until_ns).contains(&heard.at_ns)
                && !(heard.name.eq_ignore_ascii_case(&op.name.text) && heard.query_type == op.query_type)
        };
        let (own, others): (Vec<&Heard>, Vec<&Heard>) = world
            .answers()
            .iter()
            .filter(meanwhile)
            .partition(|heard| heard.owner.process == op.owner.process);
        Self {
            to_process: own.len() as u64,
            to_others: others.len() as u64,
            answered_type: resolvers::half(op, world),
            searched: searched(op, world),
            reverse_of: reverse_of(op),
            upstream: resolvers::upstream(op, world),
            edns: edns::found(group, world),
            connect: group.lead_over_tcp.then(|| world.connect_op(op.cookie).copied()).flatten(),
        }
    }

    /// What was found before still holds when it can no longer be seen.
    pub(super) fn or(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self {
            answered_type: self.answered_type.or(before.answered_type),
            searched: if self.searched.is_empty() { before.searched } else { self.searched },
            upstream: self.upstream.or(before.upstream),
            edns: self.edns.or(before.edns),
            connect: self.connect.or(before.connect),
            ..self
        }
    }

    pub(super) fn reason(&self, group: &Group) -> DnsReason {
        if group.lead_over_tcp {
            DnsReason::TcpUnanswered
        } else if self.upstream.is_some() {
            DnsReason::UpstreamUnanswered
        } else if let Some(edns) = &self.edns {
            edns.reason
        } else if group.failing && group.waiting.is_empty() {
            DnsReason::Failing
        } else if self.answered_type.is_some() {
            DnsReason::HalfUnanswered
        } else {
            DnsReason::Unanswered
        }
    }

    pub(super) fn conclusion(&self, group: &Group) -> Conclusion {
        (
            self.reason(group),
            self.to_process > 0,
            self.to_others > 0,
            self.upstream.as_ref().map(|upstream| upstream.server.ip),
            group.explained_by.clone(),
        )
    }
}

/// Names that do not exist and were asked for just before, each the name of the lookup with more labels in it or after
/// it: what a resolver makes of a short name by its search list.
fn searched(op: &LookupOp, world: &World) -> Vec<String> {
    let name = op.name.text.trim_end_matches('.').to_ascii_lowercase();
    if name.is_empty() || op.name.invalid.is_some() {
        return vec![];
    }
    let before = |heard: &&Heard| {
        heard.verdict == Verdict::NoSuchName
            && heard.owner.process == op.owner.process
            && heard.at_ns <= op.started_ns
            && op.started_ns - heard.at_ns <= SEARCH_NS
    };
    let mut known: Vec<&Heard> = world.answers().iter().filter(before).collect();
    known.sort_by_key(|heard| (heard.at_ns, &heard.name));
    let mut names: Vec<String> = Vec::new();
    let after = format!("{name}.");
    for heard in known {
        let longer = heard.name.starts_with(&after) || is_between(&heard.name, &name);
        if longer && !names.contains(&heard.name) {
            names.push(heard.name.clone());
        }
    }
    // One name with another label in it may be another name.
    if names.len() < 2 && !names.iter().any(|known| known.starts_with(&after)) {
        return vec![];
    }
    names.truncate(SEARCHED);
    names
}

/// Whether a name is another one with labels put in: `db.default.svc.cluster.local` and `db.svc.cluster.local`.
fn is_between(longer: &str, name: &str) -> bool {
    longer.len() > name.len()
        && name
            .match_indices('.')
            .any(|(at, _)| longer.starts_with(&name[..=at]) && longer.ends_with(&name[at..]))
}

/// The address whose name is looked up (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse_of(op: &LookupOp) -> Option<IpAddr> {
    if op.query_type != "PTR" {
        return None;
    }
    let name = op.name.text.trim_end_matches('.').to_ascii_lowercase();
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let bytes: Vec<u8> = digits.split('.').rev().map(str::parse).collect::<Result<_, _>>().ok()?;
        return <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let nibble = |digit: &str| u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1);
    let nibbles: Vec<u128> = digits.split('.').rev().map(nibble).collect::<Option<_>>()?;
    let number = nibbles.iter().fold(0, |number: u128, nibble| (number << 4) | nibble);
    (nibbles.len() == 32).then(|| Ipv6Addr::from(number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reverse(name: &str) -> Option<String> {
        let op = LookupOp { query_type: "PTR".into(), name: name.into(), ..LookupOp::default() };
        reverse_of(&op).map(|ip| ip.to_string())
    }

    #[test]
    fn a_reverse_name_is_read_as_the_address_it_is_for() {
        assert_eq!(reverse("20.1.77.10.in-addr.arpa").as_deref(), Some("10.77.1.20"));
        let v6 = format!("5{}.8.b.d.0.1.0.0.2.ip6.arpa", ".0".repeat(23));
        assert_eq!(reverse(&v6).as_deref(), Some("2001:db8::5"));
        for other in ["1.77.10.in-addr.arpa", "300.1.77.10.in-addr.arpa", "example.net", "10.ip6.arpa"] {
            assert_eq!(reverse(other), None, "{other}");
        }
    }

    #[test]
    fn a_longer_name_of_a_search_list_has_labels_put_in() {
        assert!(is_between("db.default.svc.cluster.local", "db.svc.cluster.local"));
        assert!(!is_between("db.svc.cluster.local", "db.svc.cluster.local"));
        assert!(!is_between("www.example.org", "www.example.com"));
        assert!(!is_between("other.svc.cluster.local", "db.svc.cluster.local"));
    }
}
