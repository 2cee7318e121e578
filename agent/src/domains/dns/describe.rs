//! What facts about lookups can be asked.

use std::net::IpAddr;

use super::{What, text};
use crate::{
    domains::{Describe, Failure, Operation, SLOW_MS, Step, Weight},
    fact::{Endpoint, Phrase, named, peer},
    known::select::Select,
    text::host::host,
};

impl What {
    /// The server that is asked.
    pub fn server(&self) -> &Endpoint {
        match self {
            Self::DnsQuery { server, .. }
            | Self::DnsAnswer { server, .. }
            | Self::DnsPending { server, .. }
            | Self::DnsFailed { server, .. } => server,
        }
    }
}

/// Codes that answer the question.
fn is_answer(rcode: &str) -> bool {
    matches!(rcode, "NOERROR" | "NXDOMAIN")
}

impl Describe for What {
    fn weight(&self) -> Weight {
        match self {
            Self::DnsQuery { .. } => Weight::of(false),
            Self::DnsAnswer { rcode, latency_ms, .. } => Weight {
                bad: rcode != "NOERROR" || latency_ms.is_some_and(|ms| ms >= SLOW_MS),
                ms: *latency_ms,
            },
            Self::DnsPending { elapsed_ms, .. } | Self::DnsFailed { elapsed_ms, .. } => {
                Weight::bad(*elapsed_ms)
            }
        }
    }

    fn passes(&self, select: &Select) -> bool {
        select.peer(self.server())
    }

    fn towards(&self) -> Option<(IpAddr, u16)> {
        Some((self.server().ip, self.server().port))
    }

    fn phrase(&self) -> Option<Phrase> {
        text::phrase(self)
    }

    fn label(&self) -> Option<String> {
        let Self::DnsAnswer { rcode, .. } = self else { return None };
        Some(format!("answer {rcode}"))
    }

    fn operation(&self) -> Option<Operation> {
        let step = match self {
            Self::DnsQuery { .. } => Step::Begun,
            Self::DnsPending { elapsed_ms, .. } => Step::Waits(*elapsed_ms),
            Self::DnsAnswer { rcode, latency_ms, .. } => {
                Step::Ended { failed: !is_answer(rcode), ms: *latency_ms }
            }
            Self::DnsFailed { elapsed_ms, .. } => Step::Ended { failed: true, ms: Some(*elapsed_ms) },
        };
        Some(Operation { destination: format!("{} DNS", named(self.server())), step })
    }

    fn failure(&self) -> Option<Failure> {
        let error = match self {
            Self::DnsAnswer { name, query_type, rcode, .. } if !is_answer(rcode) => {
                format!("{rcode} {query_type} {}", host(name))
            }
            Self::DnsFailed { name, query_type, errno, .. } => {
                format!("{errno} {query_type} {}", host(name))
            }
            _ => return None,
        };
        Some(Failure { destination: peer(self.server()), error })
    }
}
