//! A line on standard error for each thing measured, as it is measured.

use std::fmt::Write as _;

use super::report::{Packets, Slice, Workload};
use crate::bench::{budget::whole, table::GIB};

/// A slice, in a line.
pub(super) fn slice(slice: &Slice, rounds: u32) -> String {
    let cpu = &slice.cpu;
    let mut line = format!(
        "bench: {}/{rounds}  {:<10}  {:<10}  {:>12}  cpu %: server {:.0}, client {:.0}, others {:.0}",
        slice.round + 1,
        slice.workload,
        slice.condition,
        rate(slice.workload, slice.rate()),
        cpu.server * 100.0,
        cpu.client * 100.0,
        cpu.others * 100.0,
    );
    if cpu.watcher > 0.0 {
        let _ = write!(line, ", {} {:.0}", slice.condition, cpu.watcher * 100.0);
    }
    if let Some(culprit) = &slice.culprit {
        let _ = write!(
            line,
            "; {} events, {} lost, {:.1} MiB, started in {:.0} ms",
            culprit.events,
            culprit.lost,
            culprit.rss_kib as f64 / 1024.0,
            culprit.start_ms
        );
    }
    if slice.stalls > 0 {
        let _ = write!(line, "; the load stood still {} times", slice.stalls);
    }
    if slice.strangers > 0 {
        line.push_str("; another culprit was attached");
    }
    line
}

/// Packets of one kind, in a line.
pub(super) fn packets(packets: &Packets, rounds: u32) -> String {
    let mut line = format!("bench: {}/{rounds}  foreign {}  {}: ", packets.round + 1, packets.traffic, {
        packets.condition
    });
    for direction in &packets.directions {
        let _ = write!(
            line,
            " {} {:.1} ns ({} runs), empty {:.1} before it and {:.1} after;",
            direction.program.name,
            direction.program.mean_ns,
            direction.program.runs,
            direction.empty_before.mean_ns,
            direction.empty_after.mean_ns
        );
    }
    line
}

fn rate(workload: Workload, rate: f64) -> String {
    match workload {
        Workload::Bulk => format!("{:.2} GiB/s", rate / GIB),
        _ => format!("{}/s", whole(rate)),
    }
}
