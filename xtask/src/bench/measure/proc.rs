//! What the kernel says of a process in `/proc`: processor time, and the BPF programs and maps it holds, with
//! their run-time statistics.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use procfs::{CurrentSI, KernelStats, process::Process, ticks_per_second};

/// A process, for what is read of it once.
pub(crate) fn of(pid: u32) -> Result<Process> {
    Process::new(pid.cast_signed()).with_context(|| format!("looking at process {pid}"))
}

/// Processor time of a process since its start, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = of(pid)?.stat().with_context(|| format!("reading the times of process {pid}"))?;
    Ok(seconds(stat.utime + stat.stime))
}

/// Processor time of the whole machine since its start, in seconds, what the hypervisor took included.
pub(crate) fn machine_cpu_seconds() -> Result<f64> {
    let cpu = KernelStats::current().context("reading the machine's times")?.total;
    let stolen = [cpu.irq, cpu.softirq, cpu.steal].into_iter().flatten().sum::<u64>();
    Ok(seconds(cpu.user + cpu.nice + cpu.system + stolen))
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / ticks_per_second() as f64
}

/// The number after `key:`.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

/// What a process holds of BPF.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BpfUse {
    /// Programs by id.
    pub(crate) programs: BTreeMap<u32, Runs>,
    /// Maps by id, with the bytes they take.
    pub(crate) maps: BTreeMap<u32, u64>,
}

/// How often a program ran and for how long, while statistics were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

impl Runs {
    /// Since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            nanoseconds: self.nanoseconds.saturating_sub(earlier.nanoseconds),
        }
    }

    /// Of one run; 0 when there was none.
    pub(crate) fn mean_ns(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.nanoseconds as f64 / self.count as f64 }
    }
}

/// Reads the descriptors of a process.
pub(crate) fn held(pid: u32) -> Result<BpfUse> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut held = BpfUse::default();
    for entry in fs::read_dir(&dir)? {
        let path = entry.with_context(|| format!("reading {dir}"))?.path();
        // A descriptor may close while we look.
        held.add(&fs::read_to_string(&path).unwrap_or_default());
    }
    Ok(held)
}

/// The program behind a descriptor, and what it did.
fn program(fdinfo: &str) -> Option<(u32, Runs)> {
    let id = u32::try_from(field(fdinfo, "prog_id")?).ok()?;
    Some((id, Runs { count: field(fdinfo, "run_cnt")?, nanoseconds: field(fdinfo, "run_time_ns")? }))
}

impl BpfUse {
    /// What one descriptor is. A link names its program too, but does not say how often it ran.
    fn add(&mut self, fdinfo: &str) {
        if let Some((id, runs)) = program(fdinfo) {
            self.programs.insert(id, runs);
        }
        if let (Some(id), Some(bytes)) = (field(fdinfo, "map_id"), field(fdinfo, "memlock"))
            && let Ok(id) = u32::try_from(id)
        {
            self.maps.insert(id, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_this_machine_take_processor_time() {
        let (own, all) = (cpu_seconds(std::process::id()).unwrap(), machine_cpu_seconds().unwrap());
        assert!(own >= 0.0 && all > own, "{own} {all}");
    }

    #[test]
    fn programs_and_maps_are_distinguished_from_links() {
        let mut held = BpfUse::default();
        held.add("pos:\t0\nprog_type:\t8\nmemlock:\t4096\nprog_id:\t42\nrun_time_ns:\t900\nrun_cnt:\t9\n");
        held.add("pos:\t0\nlink_type:\tcgroup\nlink_id:\t3\nprog_id:\t43\n");
        held.add("pos:\t0\nmap_type:\t27\nmemlock:\t4206592\nmap_id:\t7\n");
        assert_eq!(held.programs, BTreeMap::from([(42, Runs { count: 9, nanoseconds: 900 })]));
        assert_eq!(held.maps, BTreeMap::from([(7, 4_206_592)]));
    }
}
