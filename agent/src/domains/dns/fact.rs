//! What happens to DNS lookups, as facts.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    fact::{Endpoint, HostIcmp, Protocol},
    text::host::Invalid,
};

/// What happened; `kind` names it. Durations are in milliseconds; what is absent is not known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "DnsFact")]
pub enum What {
    /// A DNS query was sent.
    DnsQuery {
        /// UDP or TCP.
        protocol: Protocol,
        /// Who was asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for, e.g. `AAAA`.
        query_type: String,
    },
    /// A DNS answer arrived.
    DnsAnswer {
        /// UDP or TCP.
        protocol: Protocol,
        /// Who answered.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for.
        query_type: String,
        /// `NOERROR`, `NXDOMAIN`, …
        rcode: String,
        /// Addresses and names in the answer.
        answers: Vec<String>,
        /// The answer was cut; a resolver asks again over TCP.
        truncated: bool,
        /// Time since the query; absent when the query was not seen.
        latency_ms: Option<f64>,
    },
    /// A DNS query is unanswered.
    DnsPending {
        /// UDP or TCP.
        protocol: Protocol,
        /// Who was asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for.
        query_type: String,
        /// How often the same question was sent.
        queries: u32,
        /// Time since the first.
        elapsed_ms: f64,
    },
    /// A DNS query failed: the server's port is closed, or the server cannot be reached.
    DnsFailed {
        /// Who was asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for.
        query_type: String,
        /// The error by name.
        errno: String,
        /// The ICMP error with which this host itself answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_host: Option<HostIcmp>,
        /// Time since the first query.
        elapsed_ms: f64,
    },
}
