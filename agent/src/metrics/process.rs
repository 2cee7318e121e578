//! What culprit itself uses, as every exporter says it: read from `/proc/self` when it is asked for.

use std::{fmt, fs};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use rustix::process::{Resource, getrlimit};

use super::{
    families::{BUILD, PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_MEMORY, PROCESS_START},
    writer::Writer,
};

/// This process and this build.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer::new(encoder);
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        if let Some(used) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(used) {
            to.number(&PROCESS_CPU, used.ticks as f64 / hertz)?;
            to.number(&PROCESS_MEMORY, used.pages.saturating_mul(rustix::param::page_size() as u64))?;
            if let Some(booted) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(booted) {
                to.number(&PROCESS_START, booted as f64 + used.started as f64 / hertz)?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // Less the one that lists them.
            to.number(&PROCESS_FDS, (open.count() as u64).saturating_sub(1))?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            to.number(&PROCESS_MAX_FDS, limit)?;
        }
        to.info(&BUILD, [env!("CARGO_PKG_VERSION")])
    }
}

/// Fields of `/proc/self/stat`: proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Used {
    ticks: u64,
    started: u64,
    pages: u64,
}

fn used(stat: &str) -> Option<Used> {
    // The name may hold anything, parentheses included; the third field comes after the last of them.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Used { ticks: field(14)? + field(15)?, started: field(22)?, pages: field(24)? })
}

/// When the machine booted, seconds of Unix time.
fn booted(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_used_is_read_whatever_its_name_is() {
        let stat =
            "7 (a) R (b)) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 3 0 4242 1000 99 18446744073709551615";
        assert_eq!(used(stat), Some(Used { ticks: 42, started: 4242, pages: 99 }));
        assert_eq!(used("7 (cut) S 1"), None);
    }

    #[test]
    fn the_moment_of_boot_is_read() {
        assert_eq!(booted("cpu 1 2\nbtime 1795245577\n"), Some(1_795_245_577));
    }
}
