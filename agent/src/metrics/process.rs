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
        if let Ok(stat) = procfs::process::Process::myself().and_then(|own| own.stat()) {
            to.number(&PROCESS_CPU, (stat.utime + stat.stime) as f64 / hertz)?;
            to.number(&PROCESS_MEMORY, stat.rss.saturating_mul(rustix::param::page_size() as u64))?;
            if let Ok(booted) = procfs::boot_time_secs() {
                to.number(&PROCESS_START, booted as f64 + stat.starttime as f64 / hertz)?;
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
