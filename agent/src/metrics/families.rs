//! Every family of metrics culprit exposes: name, type, unit, labels with their values, and what it says. The
//! one table that what is encoded, its reference page and its tests derive from.
//!
//! Nothing here names a process, an address, a command or a device, but for the summary of the worst incident of
//! each kind, which alerts hand on: the number of series has a bound.

use std::fmt::Write as _;

use ebpf_probes::{
    abi::Stat,
    metrics::{BUCKETS_USED, Ended, NeighEvent, bound_ns},
    probes::PROBES,
    spec::{FOLLOW_EXIT, FOLLOW_FORK},
};

use crate::{
    fact::ReferenceKind,
    outputs::{SINKS, queue::DISCARDS},
    pipeline::incident::{Kind, Severity},
};

/// Metrics of one name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// As it is exposed, counters with `_total`, info with `_info`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Type,
    /// What it counts in, which its name says too.
    pub unit: Option<Unit>,
    /// Its labels, in the order they are written.
    pub labels: &'static [Label],
    /// One sentence.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket.
    Histogram,
    /// A 1 whose labels are what matters.
    Info,
}

/// What a metric counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A label and what it may be.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// What a label may be.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// One of these.
    These(&'static [&'static str]),
    /// A kind of incident.
    Kinds,
    /// How severe an incident is.
    Severities,
    /// A probe.
    Probes,
    /// A program of the kernel object.
    Programs,
    /// A kind of reference clock that the wall clock is compared with.
    References,
    /// A sink of the daemon.
    Sinks,
    /// One of a bounded number, of which this says what they are.
    Some(&'static str),
}

impl Type {
    /// As exposition formats write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

impl Unit {
    /// As names end.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

impl Values {
    /// All of them, when they are known.
    pub fn all(self) -> Option<Vec<&'static str>> {
        match self {
            Self::These(these) => Some(these.to_vec()),
            Self::Kinds => Some(Kind::ALL.iter().map(|kind| kind.name()).collect()),
            Self::Severities => Some(Severity::ALL.iter().map(|severity| severity.name()).collect()),
            Self::Probes => Some(PROBES.iter().map(|probe| probe.name).collect()),
            Self::Programs => Some(programs()),
            // No clock can be right that shows an earlier time than the kernel's build, and that is all it says.
            Self::References => {
                let compared = ReferenceKind::ALL.iter().filter(|kind| kind.weight() > 0);
                Some(compared.map(|kind| kind.name()).collect())
            }
            Self::Sinks => Some(SINKS.iter().map(|sink| sink.name).collect()),
            Self::Some(_) => None,
        }
    }
}

/// Every program of the kernel object, once.
fn programs() -> Vec<&'static str> {
    let hooks = PROBES.iter().flat_map(|probe| probe.hooks).chain([&FOLLOW_FORK, &FOLLOW_EXIT]);
    let mut programs: Vec<&str> = Vec::new();
    for hook in hooks {
        if !programs.contains(&hook.program) {
            programs.push(hook.program);
        }
    }
    programs
}

/// IP families.
pub const IP: &[&str] = &["ipv4", "ipv6"];
/// Sides of a handshake.
pub const ROLES: &[&str] = &["client", "server"];
/// Ends of a handshake, from [`ebpf_probes::probes::tls::stage::DONE`] on.
pub const TLS_ENDS: &[&str] = &["done", "alert", "closed", "not_tls"];
/// What a handshake waits for.
pub const TLS_PHASES: &[&str] = &["read", "server_flight", "client_finish", "server_finish"];
/// Response codes of DNS that are distinguished.
pub const RCODES: &[&str] = &["noerror", "nxdomain", "servfail", "refused", "formerr", "other"];
/// States of a neighbour.
pub const NEIGHBOUR_STATES: &[&str] =
    &["incomplete", "reachable", "stale", "delay", "probe", "failed", "permanent"];
/// Whether a network namespace is watched for claims of its addresses.
pub const WATCH_STATES: &[&str] = &["watched", "refused"];
/// What became of packets that speak for an own address.
pub const PACKET_RESULTS: &[&str] = &["taken", "dropped"];
/// What became of questions for neighbours.
pub const QUESTION_RESULTS: &[&str] = &["answered", "unanswered", "failed", "left_out"];
/// Directions of a step of the clock.
pub const DIRECTIONS: &[&str] = &["forward", "backward"];
/// Why a record is lost: [`Stat::LOSSES`] by name.
pub const LOSSES: &[&str] =
    &[Stat::RingFull.name(), Stat::MapFull.name(), Stat::Unreadable.name(), Stat::Missed.name()];

const fn label(name: &'static str, these: &'static [&'static str]) -> Label {
    Label { name, values: Values::These(these) }
}

const ROLE: Label = label("role", ROLES);
const FAMILY: Label = label("family", IP);
const PROBE: Label = Label { name: "probe", values: Values::Probes };
const PROGRAM: Label = Label { name: "program", values: Values::Programs };
const REFERENCE: Label = Label { name: "reference", values: Values::References };
const KIND: Label = Label { name: "kind", values: Values::Kinds };
const SEVERITY: Label = Label { name: "severity", values: Values::Severities };
const ID: Label = Label { name: "id", values: Values::Some("the incident's id, as `culprit show` takes it") };
const SUMMARY: Label = Label {
    name: "summary",
    values: Values::Some("its summary when it got this severity, cut after 200 characters"),
};
const MAP: Label = Label { name: "map", values: Values::Some("a map of the kernel object") };
const CACHE: Label = Label { name: "cache", values: Values::Some("a cache of the agent") };
const SINK: Label = Label { name: "sink", values: Values::Sinks };
const ROUTE: Label = Label { name: "path", values: Values::Some("a route of the API, or other") };
const CODE: Label = Label { name: "code", values: Values::Some("an HTTP status code") };
const WORKLOAD: Label = Label {
    name: "workload",
    values: Values::Some(
        "what --metrics-by names it by: one of the first --metrics-top of them, other, or none",
    ),
};
const VERSION: Label = Label { name: "version", values: Values::Some("the version of culprit") };

const fn family(
    name: &'static str,
    kind: Type,
    unit: Option<Unit>,
    labels: &'static [Label],
    help: &'static str,
) -> Family {
    Family { name, kind, unit, labels, help }
}

macro_rules! families {
    ($($id:ident = $name:literal, $kind:ident, $unit:expr, [$($label:expr),*], $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub const $id: Family = family($name, Type::$kind, $unit, &[$($label),*], $help);
        )+

        /// Every family, in the order the reference page lists them.
        pub const FAMILIES: &[Family] = &[$($id),+];
    };
}

const S: Option<Unit> = Some(Unit::Seconds);
const B: Option<Unit> = Some(Unit::Bytes);

#[rustfmt::skip] // a table reads by its columns
families! {
    INCIDENTS = "culprit_incidents_total", Counter, None, [KIND, SEVERITY], "Incidents opened, by the severity they opened with; one that begins again after it was resolved counts again";
    INCIDENTS_OPEN = "culprit_incidents_open", Gauge, None, [KIND, SEVERITY], "Incidents that are open, by the severity they have now";
    INCIDENTS_EXPLAINED = "culprit_incidents_explained", Gauge, None, [KIND, SEVERITY], "Open incidents that another open incident explains, which is at least as severe: alerts leave them to that one";
    INCIDENTS_WORST = "culprit_incidents_worst", Gauge, None, [KIND, SEVERITY, ID, SUMMARY], "1 for the worst open incident of each kind, the oldest of the gravest: what alerts name; at most one series a kind";

    CONNECTS = "culprit_connects_total", Counter, None, [label("outcome", Ended::NAMES)], "TCP connects that ended; aborted means closed while pending, denied a policy of this host";
    CONNECTS_PENDING = "culprit_connects_pending", Gauge, None, [], "TCP connects in SYN_SENT at the last look";
    CONNECT_DURATION = "culprit_connect_duration_seconds", Histogram, S, [label("outcome", &["established", "failed"])], "How long TCP connects took, from the call until they were established or failed";
    SYN_RETRANSMITS = "culprit_connect_syn_retransmits_total", Counter, None, [], "SYNs retransmitted";
    SYNACK_RETRANSMITS = "culprit_synack_retransmits_total", Counter, None, [], "SYN-ACKs retransmitted by servers on this host; counted by the neighbour probe";

    TLS = "culprit_tls_handshakes_total", Counter, None, [ROLE, label("outcome", TLS_ENDS)], "TLS handshakes that ended; closed means before they were done, not_tls answered with something else";
    TLS_PENDING = "culprit_tls_handshakes_pending", Gauge, None, [ROLE], "TLS handshakes under way at the last look";
    TLS_DURATION = "culprit_tls_handshake_duration_seconds", Histogram, S, [ROLE], "How long TLS handshakes took that were done, from the first byte of the ClientHello";
    TLS_PHASE = "culprit_tls_phase_duration_seconds", Histogram, S, [ROLE, label("phase", TLS_PHASES)], "What TLS handshakes waited for: a thread to read the peer's hello, the ServerHello, the client's finish, the server's last answer; each from the last segment before it";

    DNS_QUERIES = "culprit_dns_queries_total", Counter, None, [], "DNS queries sent to port 53, retransmitted ones included; over TCP, those that begin a segment";
    DNS_RESPONSES = "culprit_dns_responses_total", Counter, None, [label("rcode", RCODES)], "DNS responses received, by response code; over TCP, the first to each query";
    DNS_DURATION = "culprit_dns_duration_seconds", Histogram, S, [], "How long DNS lookups took, from the first query to the first response";

    NEIGHBOUR_EVENTS = "culprit_neighbour_events_total", Counter, None, [FAMILY, label("event", NeighEvent::NAMES)], "What happened to neighbours (ARP, NDP): created, resolved, not resolved (no answer), MAC replaced, a packet from another MAC than the cached one, no room in the table";
    NEIGHBOUR_ENTRIES = "culprit_neighbour_entries", Gauge, None, [FAMILY, label("state", NEIGHBOUR_STATES)], "Neighbours known in all network namespaces, by state; looked at every 10 s";

    OWN_ADDRESS_NAMESPACES = "culprit_own_address_namespaces", Gauge, None, [label("state", WATCH_STATES)], "Network namespaces that are watched for other hosts that claim their addresses, and those that are not: there are more than 128, or they cannot be entered";
    OWN_ADDRESS_PACKETS = "culprit_own_address_packets_total", Counter, None, [label("result", PACKET_RESULTS)], "ARP packets and neighbour discovery messages that speak for an address of this host: taken, or dropped by the kernel because they were not taken in time";
    OWN_ADDRESS_LEFT_OUT = "culprit_own_address_left_out_total", Counter, None, [], "Addresses of this host, and claims of them, that were left out for want of room";

    NEIGHBOUR_QUESTIONS = "culprit_neighbour_questions_total", Counter, None, [label("result", QUESTION_RESULTS)], "Questions for neighbours that incidents are about, sent to everybody on the link where --probe-neighbours allows it: answered or not, not to be sent, or left out because there were too many";

    CLOCK_STEPS = "culprit_clock_steps_total", Counter, None, [label("direction", DIRECTIONS)], "Steps of the wall clock";
    CLOCK_LAST_STEP = "culprit_clock_last_step_seconds", Gauge, S, [], "By how much the last step moved the wall clock; forward is positive";
    CLOCK_LAST_STEP_AT = "culprit_clock_last_step_timestamp_seconds", Gauge, S, [], "When the last step was, by the wall clock after it";
    CLOCK_OFFSET = "culprit_clock_offset_seconds", Gauge, S, [REFERENCE], "How far the wall clock is ahead of a reference clock, of several of one kind the most exact; read within the last hour";
    CLOCK_OFFSET_ERROR = "culprit_clock_offset_error_seconds", Gauge, S, [REFERENCE], "How far that offset may be wrong";

    PROBE_ATTACHED = "culprit_probe_attached", Gauge, None, [PROBE], "1: the probe is attached, 0: it is not; those not asked for are left out";
    HOOK_ATTACHED = "culprit_hook_attached", Gauge, None, [PROGRAM], "1: the program is attached, 0: this kernel lacks or refuses it; those not asked for are left out";
    PROBE_RECORDS = "culprit_probe_records_total", Counter, None, [PROBE], "Records received from the kernel";
    PROBE_LOST = "culprit_probe_lost_records_total", Counter, None, [PROBE, label("reason", LOSSES)], "Records that did not arrive: no room in the ring, an operation not followed for want of room in a map, memory that could not be read, runs of a program the kernel left out";
    PROGRAM_RUNS = "culprit_bpf_program_runs_total", Counter, None, [PROGRAM], "Runs of a BPF program while the kernel accounted for them";
    PROGRAM_SECONDS = "culprit_bpf_program_run_seconds_total", Counter, S, [PROGRAM], "Time a BPF program ran while the kernel accounted for it";
    PROGRAM_STATS = "culprit_bpf_program_stats_seconds_total", Counter, S, [], "For how long culprit had the kernel account for BPF programs";

    MAP_ENTRIES = "culprit_bpf_map_entries", Gauge, None, [MAP], "Entries of a BPF map; read every 30 s, arrays left out";
    MAP_CAPACITY = "culprit_bpf_map_capacity", Gauge, None, [MAP], "Entries a BPF map has room for; of the ring (events), its bytes";
    MAP_MEMORY = "culprit_bpf_map_memory_bytes", Gauge, B, [MAP], "Memory of a BPF map, by the kernel's account";

    CACHE_ENTRIES = "culprit_cache_entries", Gauge, None, [CACHE], "Entries of a cache of the agent: what it remembers of processes, names, connections";
    CACHE_CAPACITY = "culprit_cache_capacity", Gauge, None, [CACHE], "Entries such a cache has room for";
    CACHE_EVICTIONS = "culprit_cache_evictions_total", Counter, None, [CACHE], "Live entries evicted from such a cache to make room";

    LOOKS_UNFINISHED = "culprit_process_looks_unfinished_total", Counter, None, [], "Looks at what a process does that did not end within a second, or were not begun because too many had not: they may hang as it does";

    SINK_RECEIVED = "culprit_sink_received_total", Counter, None, [SINK], "States of incidents given to a sink";
    SINK_EMITTED = "culprit_sink_emitted_total", Counter, None, [SINK], "Those it has dealt with";
    SINK_DISCARDED = "culprit_sink_discarded_total", Counter, None, [SINK, label("reason", DISCARDS)], "Those it has not: no room in its queue, the sink failed, the other side refused them or did not keep up; replaced ones gave way to a newer state of the same incident, and nothing is lost";
    SINK_QUEUE = "culprit_sink_queue_length", Gauge, None, [SINK], "States that wait for a sink; of the stream, its readers; of webhooks, deliveries on disk";
    SINK_CAPACITY = "culprit_sink_queue_capacity", Gauge, None, [SINK], "How many may wait";

    STORE_INCIDENTS = "culprit_store_incidents", Gauge, None, [], "Incidents that are kept; looked at every 10 s";
    STORE_BYTES = "culprit_store_bytes", Gauge, B, [], "What the store takes on disk, free pages left out";
    STORE_OLDEST = "culprit_store_oldest_timestamp_seconds", Gauge, S, [], "When the oldest incident kept was opened, by the wall clock then";

    HTTP_REQUESTS = "culprit_http_requests_total", Counter, None, [ROUTE, CODE], "HTTP requests answered";
    HTTP_CONNECTIONS = "culprit_http_connections", Gauge, None, [], "HTTP connections open";
    HTTP_REFUSED = "culprit_http_connections_refused_total", Counter, None, [], "HTTP connections turned away because there were too many";

    WORKLOADS = "culprit_incidents_by_workload_total", Counter, None, [KIND, WORKLOAD], "Incidents opened, by the workload of the process that suffers; only with --metrics-by";

    PROCESS_CPU = "process_cpu_seconds_total", Counter, S, [], "Processor time culprit used, in user and in kernel mode";
    PROCESS_MEMORY = "process_resident_memory_bytes", Gauge, B, [], "Memory of culprit that is resident";
    PROCESS_FDS = "process_open_fds", Gauge, None, [], "File descriptors culprit has open";
    PROCESS_MAX_FDS = "process_max_fds", Gauge, None, [], "File descriptors culprit may have open";
    PROCESS_START = "process_start_time_seconds", Gauge, S, [], "When culprit started, by the wall clock as it stands now";

    BUILD = "culprit_build_info", Info, None, [VERSION], "Which culprit this is";
}

/// The reference page, docs/metrics.md.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n| metric | type | labels | what it says |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(in_words).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind.name(),
            labels.join("<br>"),
            family.help
        );
    }
    page.push_str(BUCKETS);
    for bucket in 0..BUCKETS_USED {
        match bound_ns(bucket) {
            Some(ns) => {
                let _ = writeln!(page, "| {bucket} | {} |", ns as f64 / 1e9);
            }
            None => {
                let _ = writeln!(page, "| {bucket} | +Inf |");
            }
        }
    }
    page
}

fn in_words(label: &Label) -> String {
    let name = label.name;
    match (label.values, label.values.all()) {
        (Values::Programs, _) => format!("`{name}`: a program of the kernel object"),
        (Values::Some(what), _) => format!("`{name}`: {what}"),
        (_, Some(all)) => {
            let all: Vec<String> = all.iter().map(|value| format!("`{value}`")).collect();
            format!("`{name}`: {}", all.join(" "))
        }
        (_, None) => format!("`{name}`"),
    }
}

const HEAD: &str = "# Metrics

What `GET /metrics` of `culprit run` says, as OpenMetrics 1.0 to scrapers that ask for it and as Prometheus text 0.0.4 to
all others. This page is generated from the table in `agent/src/metrics/families.rs`; see `tests/docs.rs`.

Counters and histograms of connects, TLS, DNS and neighbours are counted in the kernel, each operation once, whether or
not an event is emitted for it: no full ring loses any of them, and they cover what the session's filters watch. What began
before culprit started is not counted. Offsets and caches are refreshed every second, neighbours and
programs every 10 s, maps every 30 s. No label names a process, an address, a command or a device,
but for the summary of `culprit_incidents_worst`.
";

const BUCKETS: &str = "
## Buckets

All histograms have the same buckets, whose bounds are powers of two of microseconds. A bound is inclusive; the sum is
exact to the nanosecond.

| bucket | up to, seconds |
|---|---|
";
