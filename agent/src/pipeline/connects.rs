//! What only incidents about connects have.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domains::connect::Outcome,
    fact::{Endpoint, HostIcmp, Thread, is_false},
};

/// Of `connect_stalled`; of the connect that waits longest.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ConnectStalledDetails {
    /// Where to.
    pub destination: Endpoint,
    /// How long it has been pending.
    pub pending_ms: u64,
    /// Connects of this incident that wait now.
    pub waiting: u64,
    /// SYNs retransmitted.
    pub syn_retransmits: u32,
    /// Packets this host itself dropped.
    pub dropped_by_host: u32,
    /// Why it dropped the last of them.
    pub drop_reason: Option<String>,
    /// It was pending before culprit started: what this host had dropped of it until then is not known.
    #[serde(skip_serializing_if = "is_false")]
    pub since_before_start: bool,
    /// Destinations of this incident.
    pub destinations: u64,
    /// When there are several: those with most connects waiting, ten at most.
    pub worst: Vec<StalledDestination>,
    /// Peers whose certificates are being validated with what is fetched: they wait as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validates: Vec<Endpoint>,
}

/// One of several destinations whose connects are unanswered.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StalledDestination {
    /// Where to.
    pub destination: Endpoint,
    /// Connects that wait now.
    pub waiting: u64,
    /// Connects so far.
    pub count: u64,
    /// How long the oldest has been pending, or was.
    pub pending_ms: u64,
}

/// Of `connect_failing`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ConnectFailingDetails {
    /// Where to.
    pub destination: Endpoint,
    /// Failures by outcome since the incident began.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// The last error by name.
    pub errno: Option<String>,
    /// The ICMP error with which this host itself answered the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by_host: Option<HostIcmp>,
    /// How long the last attempt took.
    pub last_attempt_ms: u64,
    /// Destinations of this incident.
    pub destinations: u64,
    /// When there are several: those with most failures, ten at most.
    pub worst: Vec<FailingDestination>,
}

/// One of several destinations to which connects fail.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FailingDestination {
    /// Where to.
    pub destination: Endpoint,
    /// Failures.
    pub count: u64,
}

/// Of `response_overdue`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ResponseOverdueDetails {
    /// The peer that has acknowledged and does not answer.
    pub destination: Endpoint,
    /// This host's port of the connection.
    pub local_port: u16,
    /// How long nothing has come since data was last sent.
    pub waited_ms: u64,
    /// Bytes the peer has acknowledged over the whole connection.
    pub sent_bytes: u64,
    /// Bytes it has sent over the whole connection.
    pub received_bytes: u64,
    /// The thread that waits; `None`: an event loop of the process may.
    pub thread: Option<Thread>,
    /// Answers of this peer that were seen before.
    pub answers_seen: u64,
    /// How long the longest of them took.
    pub longest_answer_ms: Option<u64>,
}

/// Of `connection_stalled`; of the connection that waits longest.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ConnectionStalledDetails {
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// This host is the one that listens there.
    pub is_service: bool,
    /// How long it has not been acknowledged.
    pub stalled_ms: u64,
    /// Bytes sent and not acknowledged.
    pub unacked_bytes: u32,
    /// Bytes that the program has written and that wait behind them.
    pub waiting_bytes: u32,
    /// Timeouts in a row after which they were sent again.
    pub retransmits: u32,
    /// Bytes of data in the segment that is sent again; absent when none was seen.
    pub segment_bytes: Option<u32>,
    /// The largest segment the connection sends, bytes of data.
    pub mss: u32,
    /// The largest packet that this host believes to pass, bytes.
    pub path_mtu: u32,
    /// Smaller segments of it pass, or small ones are all that has passed; absent when size decides nothing.
    pub small_segments_pass: Option<bool>,
    /// How long nothing had come from the peer before; absent when that was no time.
    pub idle_ms: Option<u64>,
    /// Something has come from the peer since.
    pub peer_is_heard: bool,
    /// Other connections with the peer have been established since.
    pub new_connections_work: bool,
    /// Packets of it that this host dropped.
    pub dropped_by_host: u32,
    /// Why the last of them was.
    pub drop_reason: Option<String>,
    /// It was so before culprit started.
    #[serde(skip_serializing_if = "is_false")]
    pub since_before_start: bool,
    /// Connections of this incident that wait now.
    pub waiting: u64,
    /// Some of their peers, eight at most.
    pub peers: Vec<IpAddr>,
}

/// Of `listen_queue_full`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ListenQueueFullDetails {
    /// Where the SYNs are sent that are ignored.
    pub local: Endpoint,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// The queue's limit, the smaller of the backlog given to listen() and net.core.somaxconn; it lets in one more.
    pub limit: u32,
    /// SYNs ignored, those sent again counted.
    pub ignored_syns: u64,
    /// Some of those who sent them, eight at most.
    pub refused: Vec<IpAddr>,
    /// The listener's threads when it was looked at.
    pub threads: Vec<Thread>,
    /// Threads left out of `threads`.
    pub threads_left_out: u32,
}
