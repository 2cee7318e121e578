//! Whether EDNS is why there is no answer: queries with an OPT record (RFC 6891) get none, while the same server answers
//! those without. Old firewalls drop them, or every answer beyond 512 bytes, and no C library asks again without. A
//! question that the server itself cannot answer looks alike as long as only others' questions are answered: blame is
//! earned by the same question, or by several names of which none was answered with EDNS.

use std::collections::BTreeSet;

use super::groups::{Ended, Group};
use crate::{
    domains::dns::{Edns, Heard, LookupOp},
    pipeline::{
        incident::{Confidence, DnsEdns, DnsOutcome, DnsReason},
        world::World,
    },
};

/// An answer to a query with EDNS this long before shows that these pass.
const PASSED_NS: u64 = 60_000_000_000;
/// Fewer queries than this may be lost packets.
const QUERIES: u64 = 2;
/// As many names without an answer are no matter of the servers of one.
const NAMES: usize = 2;

/// What was found.
pub(super) struct Found {
    pub(super) reason: DnsReason,
    pub(super) confidence: Confidence,
    pub(super) details: DnsEdns,
}

/// Of the lookups of a situation.
pub(super) fn found(group: &Group, world: &World) -> Option<Found> {
    let lead = &group.lead;
    if group.lead_over_tcp || lead.edns_queries == 0 {
        return None;
    }
    let gave_none = |ended: &&Ended| ended.outcome != DnsOutcome::Servfail;
    let ended = group.ended.iter().filter(gave_none).map(|ended| &ended.op);
    let asked: Vec<&LookupOp> = group
        .waiting
        .values()
        .filter(|followed| !followed.over_tcp)
        .map(|followed| &followed.op)
        .chain(ended)
        .filter(|op| op.edns_queries > 0 && op.server == lead.server)
        .collect();
    // The last query of one that was answered may have been without.
    let queries =
        asked.iter().map(|op| u64::from(if op.verdict.is_some() { 1 } else { op.edns_queries })).sum();
    if queries < QUERIES {
        return None;
    }
    let since_ns = asked.iter().map(|op| op.started_ns).min()?;
    let of_server = |heard: &&Heard| {
        heard.server == lead.server && heard.owner.netns == lead.owner.netns && heard.over_udp
    };
    let answers: Vec<&Heard> = world.answers().iter().filter(of_server).collect();
    let passes = answers
        .iter()
        .any(|heard| heard.edns == Edns::With && heard.at_ns.saturating_add(PASSED_NS) >= since_ns);
    let plain: Vec<&&Heard> = answers
        .iter()
        .filter(|heard| heard.edns != Edns::With && heard.at_ns >= since_ns && heard.verdict.is_answer())
        .collect();
    let is_same = |heard: &&&&Heard| {
        asked.iter().any(|op| {
            op.started_ns <= heard.at_ns
                && heard.query_type == op.query_type
                && heard.name.eq_ignore_ascii_case(&op.name.text)
        })
    };
    let same: Vec<_> = plain.iter().filter(is_same).collect();
    let seen = same.iter().any(|heard| heard.edns == Edns::Without);
    let cut = same.iter().any(|heard| heard.truncated);
    let names: BTreeSet<_> = asked.iter().map(|op| op.name.text.to_ascii_lowercase()).collect();
    let (reason, confidence) = match (cut, passes) {
        (true, _) => (DnsReason::LongAnswerLost, Confidence::Likely),
        (false, true) => return None,
        _ if seen => (DnsReason::EdnsUnanswered, Confidence::Likely),
        _ if !same.is_empty() => (DnsReason::EdnsUnanswered, Confidence::Possible),
        _ if !plain.is_empty() && names.len() >= NAMES => (DnsReason::EdnsUnanswered, Confidence::Possible),
        _ => return None,
    };
    Some(Found {
        reason,
        confidence,
        details: DnsEdns {
            queries,
            udp_size: lead.udp_size,
            plain_answers: plain.len() as u64,
            same_question: !same.is_empty(),
        },
    })
}

impl Found {
    /// What is known of the silence, after the number of queries.
    pub(super) fn words(&self, asked: &str) -> String {
        let same = self.details.same_question;
        match self.reason {
            DnsReason::LongAnswerLost => format!(
                "{asked} with EDNS, no answer, while the same question without it was answered, cut: the whole answer does \
                 not arrive"
            ),
            _ if same => {
                format!(
                    "{asked} with EDNS, no answer, while the server answered the same question without it"
                )
            }
            _ => {
                let others = match self.details.plain_answers {
                    1 => "another question".to_owned(),
                    number => format!("{number} other questions"),
                };
                format!(
                    "{asked} with EDNS, no answer, while the server answered {others} without it, and none with it"
                )
            }
        }
    }

    /// Why that is.
    pub(super) fn why(&self) -> &'static str {
        match self.reason {
            DnsReason::LongAnswerLost => {
                "With EDNS an answer may be longer than 512 bytes, and in fragments beyond the path's MTU (RFC 6891): \
                 something on the way drops those. A C library waits for its timeout (glibc: 5 s a try) and asks the \
                 same way again."
            }
            _ => {
                "Something on the way, or the server, drops queries with an OPT record (EDNS, RFC 6891): old firewalls \
                 and load balancers that inspect DNS do. A C library waits for its timeout (glibc: 5 s a try) and asks \
                 the same way again."
            }
        }
    }
}
