//! Answers that came lately: which server answered whom, and with what? It says whether a silent server answers others,
//! whether a question was answered elsewhere or at a later attempt, and whether only half of a pair of questions was.
//! Bounded: the oldest answer gives way.

use ebpf_probes::abi::Owner;
use simple_dns::RCODE;

use crate::known::bounded::{Bounded, Table};

/// Answers remembered at most.
const ANSWERS: usize = 2048;

/// What an answer says of its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Records, or that there are none of this type (NOERROR).
    Answered,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server could not find out (SERVFAIL).
    ServerFailure,
    /// Another refusal.
    Refused,
}

impl Verdict {
    pub(super) fn of(rcode: RCODE) -> Self {
        match rcode {
            RCODE::NoError => Self::Answered,
            RCODE::NameError => Self::NoSuchName,
            RCODE::ServerFailure => Self::ServerFailure,
            _ => Self::Refused,
        }
    }

    /// The question has its answer, whether or not there is such a name.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Answered | Self::NoSuchName)
    }
}

/// Whether a question that was answered carried an OPT record (EDNS, RFC 6891).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edns {
    /// It did: it was seen, or its answer has one, or more bytes than an answer without may have.
    With,
    /// It did not.
    Without,
    /// It was not seen, and its answer has none: most often it had none either.
    #[default]
    Unseen,
}

/// An answer that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub at_ns: u64,
    /// Who had asked.
    pub owner: Owner,
    /// The server that was asked, or where the answer came from when the question was not seen.
    pub server: [u8; 16],
    /// The name asked for, in lower case.
    pub name: String,
    /// The record type asked for.
    pub query_type: String,
    /// What it says.
    pub verdict: Verdict,
    /// It was cut: the resolver asks again over TCP.
    pub truncated: bool,
    /// Whether its question had EDNS.
    pub edns: Edns,
    /// It came over UDP.
    pub over_udp: bool,
}

/// The last answer to each question of each process.
pub struct Answers(Bounded<(u32, String, String), Heard>);

impl Default for Answers {
    fn default() -> Self {
        Self(Bounded::new(ANSWERS))
    }
}

impl Answers {
    pub(super) fn add(&mut self, heard: Heard) {
        let key = (heard.owner.process, heard.name.clone(), heard.query_type.clone());
        // Answers that were held are reported late.
        if self.0.get(&key).is_none_or(|known| known.at_ns <= heard.at_ns) {
            self.0.insert(key, heard);
        }
    }

    /// The last answer that a process got to a question.
    pub fn to(&self, process: u32, name: &str, query_type: &str) -> Option<&Heard> {
        self.0.get(&(process, name.to_ascii_lowercase(), query_type.to_owned()))
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Heard> {
        self.0.values()
    }

    pub(super) fn table(&self) -> Table {
        self.0.table("dns_answers")
    }
}
