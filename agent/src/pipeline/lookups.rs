//! What only incidents about DNS lookups have.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    fact::{Endpoint, Process},
    text::host::Invalid,
};

/// Of `dns_unanswered`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DnsUnansweredDetails {
    /// The server that is asked.
    pub server: Endpoint,
    /// What is wrong with the lookups.
    pub reason: DnsReason,
    /// Lookups of this incident that wait now.
    pub waiting: u64,
    /// How long the oldest of them has waited, or the last one did.
    pub waited_ms: u64,
    /// How lookups ended since the incident began; those that wait are not among them.
    pub outcomes: BTreeMap<DnsOutcome, u64>,
    /// Different names of this incident.
    pub names: u64,
    /// The questions: those that wait first, ten at most.
    pub questions: Vec<DnsQuestion>,
    /// Answers of the same server since the oldest lookup began, to other questions of the same process.
    pub answers_to_process: u64,
    /// The same, to other processes of the same network namespace.
    pub answers_to_others: u64,
    /// The record type whose question, asked together with the one that waits, was answered at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_type: Option<String>,
    /// Names the process was answered NXDOMAIN for before, on the way through its search list to the one that waits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searched: Vec<String>,
    /// The address whose name is looked up, of a reverse lookup (PTR).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_of: Option<std::net::IpAddr>,
    /// Who on this host is asked and waits for another server, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<DnsUpstream>,
    /// What is known of EDNS, where that is what makes the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edns: Option<DnsEdns>,
    /// How many programs wait for a server that answers none, or waited.
    #[serde(skip_serializing_if = "is_zero")]
    pub programs: u64,
    /// Processes of those programs, one each: those that wait first, 32 at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
}

/// What is wrong with lookups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DnsReason {
    /// No answer comes.
    Unanswered,
    /// Of two questions asked together (A and AAAA) one was answered at once.
    HalfUnanswered,
    /// The server is a process of this host that itself waits for another server.
    UpstreamUnanswered,
    /// The answer was truncated, and TCP port 53, where it is asked for whole, does not answer.
    TcpUnanswered,
    /// Queries with an OPT record (EDNS) get no answer, while those without get theirs.
    EdnsUnanswered,
    /// The answer is longer than 512 bytes and does not arrive whole; without EDNS it comes cut.
    LongAnswerLost,
    /// Answers come late, or are failures, again and again.
    Failing,
    /// The server answers none of three programs or more that ask it: the incident is the server's, not a program's.
    ServerSilent,
}

/// What became of queries with EDNS, and of those without.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DnsEdns {
    /// Queries with an OPT record that got no answer.
    pub queries: u64,
    /// How long an answer over UDP they accept, in bytes.
    pub udp_size: u16,
    /// Answers of the same server meanwhile to questions without one.
    pub plain_answers: u64,
    /// The same question was among these.
    pub same_question: bool,
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DnsOutcome {
    /// It was answered after a second or more.
    Slow,
    /// The server could not find out (SERVFAIL).
    Servfail,
    /// The socket got an error.
    Failed,
    /// Another server answered, or this one at a later attempt.
    AnsweredElsewhere,
    /// The process no longer waits.
    GivenUp,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DnsQuestion {
    /// The name asked for.
    pub name: String,
    /// That it is none that a host may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_invalid: Option<Invalid>,
    /// The record type asked for.
    pub query_type: String,
    /// How often it was sent.
    pub queries: u64,
    /// Whether it waits now.
    pub waiting: bool,
}

/// A process of this host that answers lookups by asking another server.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DnsUpstream {
    /// The process that is asked.
    pub process: Process,
    /// The server that it waits for.
    pub server: Endpoint,
}

impl DnsOutcome {
    /// In a sentence, with how often that was.
    pub fn words(self, count: u64) -> String {
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        match self {
            Self::Slow => format!("answered late {times}"),
            Self::Servfail => format!("SERVFAIL {times}"),
            Self::Failed => format!("failed {times}"),
            Self::AnsweredElsewhere => format!("answered by another server or at a later attempt {times}"),
            Self::GivenUp => format!("unanswered {times}"),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
