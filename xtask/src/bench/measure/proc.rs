//! What the kernel says of a process in `/proc`: processor time, memory, and the BPF programs and
//! maps it holds, with their run-time statistics.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};

/// Ticks of `/proc/PID/stat` and `/proc/stat` in a second: USER_HZ, the same on every architecture
/// culprit runs on.
const TICKS: f64 = 100.0;

/// Processor time of a process since its start, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    cpu_of(&text).with_context(|| format!("{path} is not as proc_pid_stat(5) says"))
}

/// utime and stime. The name before them is in parentheses and may hold anything.
fn cpu_of(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some((user + system) as f64 / TICKS)
}

/// Processor time of the whole machine since its start, in seconds, what the hypervisor took included.
pub(crate) fn machine_cpu_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    machine_cpu_of(&text).context("/proc/stat is not as proc_stat(5) says")
}

/// user, nice, system, irq, softirq and steal.
fn machine_cpu_of(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    Some((user + nice + system + irq + softirq + steal) as f64 / TICKS)
}

/// A number of `/proc/PID/status`.
pub(crate) fn status(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    field(&text, key).with_context(|| format!("{path} has no {key}"))
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> Result<u64> {
    let dir = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&dir).with_context(|| format!("reading {dir}"))?.count() as u64)
}

/// The number after `key:`.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse().ok()
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
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {dir}"))? {
        let path = entry.with_context(|| format!("reading {dir}"))?.path();
        // A descriptor may close while we look.
        held.add(&fs::read_to_string(&path).unwrap_or_default());
    }
    Ok(held)
}

/// The program behind a descriptor, and what it did.
pub(crate) fn program(fdinfo: &str) -> Option<(u32, Runs)> {
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
    fn processor_time_is_found_after_any_name() {
        let stat = "1017 (a) b (c)) S 1 1017 1017 0 -1 4194560 120 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_of(stat), Some(3.0));
        assert_eq!(cpu_of("1017"), None);
    }

    #[test]
    fn the_machines_processor_time_leaves_idling_out() {
        assert_eq!(machine_cpu_of("cpu  100 0 200 9999 9 10 20 70 0 0\ncpu0 1 1\n"), Some(4.0));
        assert_eq!(machine_cpu_of("cpu  100 0"), None);
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

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        assert_eq!(field("VmRSSx:\t1 kB\nVmRSS:\t  2048 kB\n", "VmRSS"), Some(2048));
    }
}
