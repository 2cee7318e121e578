//! A [`Snapshot`] as families: every value of every label that has a bound, zeros included, so that rates work
//! from the first scrape on.

use std::fmt;

use ebpf_probes::{
    abi::Stat,
    metrics::{Ended, NeighEvent, Timed},
    probes::{
        PROBES,
        neigh::state,
        tls::{CLIENT, SERVER, stage},
    },
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    Published,
    families::{
        self as f, DIRECTIONS, IP, NEIGHBOUR_STATES, PACKET_RESULTS, QUESTION_RESULTS, RCODES, ROLES,
        TLS_ENDS, TLS_PHASES, WATCH_STATES,
    },
    snapshot::Snapshot,
    writer::Writer,
};

impl Collector for Published {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.get();
        let mut to = Writer::new(encoder);
        connects(&snapshot, &mut to)?;
        tls(&snapshot, &mut to)?;
        dns(&snapshot, &mut to)?;
        neighbours(&snapshot, &mut to)?;
        own_addresses(&snapshot, &mut to)?;
        questions(&snapshot, &mut to)?;
        clock(&snapshot, &mut to)?;
        probes(&snapshot, &mut to)?;
        memory(&snapshot, &mut to)
    }
}

fn connects(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let counters = &from.counters;
    to.numbers(&f::CONNECTS, Ended::ALL.iter().map(|ended| ([ended.name()], counters.connects(*ended))))?;
    to.number(&f::CONNECTS_PENDING, from.seen.connects)?;
    let timed = [("established", Timed::ConnectEstablished), ("failed", Timed::ConnectFailed)];
    let timed = timed.map(|(outcome, timed)| ([outcome], counters.durations(timed)));
    to.durations(&f::CONNECT_DURATION, timed)?;
    to.number(&f::SYN_RETRANSMITS, counters.syn_retransmits())?;
    to.number(&f::SYNACK_RETRANSMITS, counters.synack_retransmits())
}

const ROLE_NUMBERS: [u32; 2] = [CLIENT, SERVER];

fn roles() -> impl Iterator<Item = (&'static str, u32)> {
    ROLES.iter().copied().zip(ROLE_NUMBERS)
}

fn tls(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let counters = &from.counters;
    let ends = roles().flat_map(|(name, role)| {
        TLS_ENDS
            .iter()
            .zip(stage::DONE..)
            .map(move |(end, stage)| ([name, end], counters.handshakes(role, stage)))
    });
    to.numbers(&f::TLS, ends)?;
    let pending = [from.seen.tls_clients, from.seen.tls_servers];
    to.numbers(&f::TLS_PENDING, ROLES.iter().zip(pending).map(|(role, pending)| ([*role], pending)))?;
    let whole = [Timed::TlsClient, Timed::TlsServer];
    let whole = ROLES.iter().zip(whole).map(|(role, timed)| ([*role], counters.durations(timed)));
    to.durations(&f::TLS_DURATION, whole)?;
    let phases = ROLES.iter().enumerate().flat_map(|(side, role)| {
        TLS_PHASES.iter().enumerate().filter_map(move |(phase, name)| {
            let timed = *Timed::ALL.get(Timed::ReadClient as usize + 2 * phase + side)?;
            Some(([*role, *name], counters.durations(timed)))
        })
    });
    to.durations(&f::TLS_PHASE, phases)
}

/// Response codes of RFC 1035 §4.1.1 in the order of [`RCODES`]; what is none of them is another.
const RCODE_NUMBERS: [u32; 5] = [0, 3, 2, 5, 1];

fn dns(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    to.number(&f::DNS_QUERIES, from.counters.dns_queries())?;
    let mut counts = [0u64; RCODES.len()];
    for (rcode, count) in from.counters.dns_responses() {
        let at = RCODE_NUMBERS.iter().position(|number| *number == rcode).unwrap_or(RCODE_NUMBERS.len());
        counts[at] += count;
    }
    to.numbers(&f::DNS_RESPONSES, RCODES.iter().zip(counts).map(|(rcode, count)| ([*rcode], count)))?;
    to.durations(&f::DNS_DURATION, [([], from.counters.durations(Timed::Dns))])
}

/// States in the order of [`NEIGHBOUR_STATES`].
const STATE_NUMBERS: [u32; NEIGHBOUR_STATES.len()] = [
    state::INCOMPLETE,
    state::REACHABLE,
    state::STALE,
    state::DELAY,
    state::PROBE,
    state::FAILED,
    state::PERMANENT,
];

fn neighbours(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let families = || IP.iter().copied().zip([false, true]);
    let events = families().flat_map(|(family, v6)| {
        NeighEvent::ALL
            .iter()
            .map(move |event| ([family, event.name()], from.counters.neighbours(*event, v6)))
    });
    to.numbers(&f::NEIGHBOUR_EVENTS, events)?;
    let Some(known) = &from.neighbours else { return Ok(()) };
    let entries = families().flat_map(|(family, v6)| {
        NEIGHBOUR_STATES
            .iter()
            .zip(STATE_NUMBERS)
            .map(move |(name, state)| ([family, name], known.get(&(v6, state)).copied().unwrap_or(0)))
    });
    to.numbers(&f::NEIGHBOUR_ENTRIES, entries)
}

fn own_addresses(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let Some(claims) = &from.claims else { return Ok(()) };
    let namespaces = [claims.watched, claims.refused];
    to.numbers(
        &f::OWN_ADDRESS_NAMESPACES,
        WATCH_STATES.iter().zip(namespaces).map(|(state, n)| ([*state], n)),
    )?;
    let packets = [claims.packets, claims.dropped];
    to.numbers(
        &f::OWN_ADDRESS_PACKETS,
        PACKET_RESULTS.iter().zip(packets).map(|(result, n)| ([*result], n)),
    )?;
    to.number(&f::OWN_ADDRESS_LEFT_OUT, claims.left_out)
}

fn questions(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let Some(questions) = from.questions else { return Ok(()) };
    to.numbers(
        &f::NEIGHBOUR_QUESTIONS,
        QUESTION_RESULTS.iter().zip(questions).map(|(result, n)| ([*result], n)),
    )
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

fn clock(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let clock = &from.clock;
    let steps = [clock.forward, clock.back];
    to.numbers(&f::CLOCK_STEPS, DIRECTIONS.iter().zip(steps).map(|(way, steps)| ([*way], steps)))?;
    if let Some(last) = clock.last {
        to.number(&f::CLOCK_LAST_STEP, seconds(last.delta_ns))?;
        to.number(&f::CLOCK_LAST_STEP_AT, seconds(last.at_ns))?;
    }
    let offsets = || clock.offsets.iter().map(|(kind, offset)| (kind.name(), offset));
    to.numbers(
        &f::CLOCK_OFFSET,
        offsets().map(|(reference, offset)| ([reference], seconds(offset.ahead_ns))),
    )?;
    to.numbers(
        &f::CLOCK_OFFSET_ERROR,
        offsets().map(|(reference, offset)| ([reference], offset.error_ns as f64 / 1e9)),
    )
}

fn probes(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let attached = |name: &str| from.attached.iter().any(|attached| attached == name);
    to.numbers(&f::PROBE_ATTACHED, from.asked.iter().map(|name| ([*name], attached(name))))?;
    to.numbers(&f::HOOK_ATTACHED, from.hooks.iter().map(|(program, attached)| ([*program], *attached)))?;
    let received = |probe| from.received.get(&probe).copied().unwrap_or(0);
    to.numbers(&f::PROBE_RECORDS, PROBES.iter().map(|probe| ([probe.name], received(probe.id))))?;
    let lost = |probe, stat| {
        let of = from.losses.iter().filter(|loss| loss.probe == probe && loss.stat == stat);
        of.map(|loss| loss.count).sum::<u64>()
    };
    let losses = PROBES.iter().flat_map(|probe| {
        Stat::LOSSES.iter().map(move |&stat| ([probe.name, stat.name()], lost(probe.id, stat)))
    });
    to.numbers(&f::PROBE_LOST, losses)?;
    to.numbers(&f::PROGRAM_RUNS, from.programs.iter().map(|usage| ([usage.program], usage.runs)))?;
    let ran = from.programs.iter().map(|usage| ([usage.program], usage.run_ns as f64 / 1e9));
    to.numbers(&f::PROGRAM_SECONDS, ran)?;
    to.number(&f::PROGRAM_STATS, from.accounted.unwrap_or_default().as_secs_f64())
}

fn memory(from: &Snapshot, to: &mut Writer<'_>) -> fmt::Result {
    let maps = || from.maps.iter();
    let entries = maps().filter_map(|map| Some(([map.map.as_str()], map.entries?)));
    to.numbers(&f::MAP_ENTRIES, entries)?;
    to.numbers(&f::MAP_CAPACITY, maps().map(|map| ([map.map.as_str()], map.capacity)))?;
    to.numbers(&f::MAP_MEMORY, maps().map(|map| ([map.map.as_str()], map.memory_bytes)))?;
    let tables = || from.tables.iter();
    to.numbers(&f::CACHE_ENTRIES, tables().map(|table| ([table.name], table.entries)))?;
    to.numbers(&f::CACHE_CAPACITY, tables().map(|table| ([table.name], table.capacity)))?;
    to.numbers(&f::CACHE_EVICTIONS, tables().map(|table| ([table.name], table.evictions)))?;
    to.number(&f::LOOKS_UNFINISHED, from.looks_unfinished)
}
