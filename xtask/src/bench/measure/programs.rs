//! The kernel's view of BPF programs: whose they are, what they are called, how long they run, and
//! what culprit's own counters say.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::{
    maps::{Map, MapData, MapInfo, PerCpuArray},
    programs::loaded_programs,
};
use ebpf_probes::{
    abi::{STATS_COLUMNS, Stat},
    probes::PROBES,
};

use super::{
    proc::{self, BpfUse, Runs},
    report::Program,
};

/// culprit's programs for packets.
pub(crate) const PACKET_IN: &str = "packet_in";
/// The other direction.
pub(crate) const PACKET_OUT: &str = "packet_out";

/// Names of all loaded programs by id; the kernel keeps 15 bytes of each. One that is unloaded
/// while we look is left out.
pub(crate) fn names() -> BTreeMap<u32, String> {
    let infos = loaded_programs().filter_map(Result::ok);
    infos.map(|info| (info.id(), String::from_utf8_lossy(info.name()).into_owned())).collect()
}

/// How many programs look like those of a culprit that is not ours.
pub(crate) fn strangers() -> usize {
    names().values().filter(|name| *name == PACKET_IN).count()
}

/// What each program of a process did between two readings; those that did not run are left out.
pub(crate) fn between(before: &BpfUse, after: &BpfUse, names: &BTreeMap<u32, String>) -> Vec<Program> {
    let mut programs: Vec<_> = after
        .programs
        .iter()
        .filter_map(|(id, runs)| {
            let since = runs.since(before.programs.get(id).copied().unwrap_or_default());
            let name = names.get(id).cloned().unwrap_or_else(|| format!("program {id}"));
            (since.count > 0).then(|| program(name, since))
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

/// A program's runs, for the report.
pub(crate) fn program(name: String, runs: Runs) -> Program {
    Program { name, runs: runs.count, mean_ns: runs.mean_ns() }
}

/// Records that the culprit with this process id has put on its ring; nothing when it keeps no such
/// counters.
pub(crate) fn emitted(pid: u32) -> Result<Option<u64>> {
    for &id in proc::held(pid)?.maps.keys() {
        // One of the maps may close while we look.
        let Ok(info) = MapInfo::from_id(id) else { continue };
        if info.name_as_str() != Some("STATS") {
            continue;
        }
        let data = MapData::from_id(id).with_context(|| format!("opening BPF map {id}"))?;
        let stats = PerCpuArray::<_, [u64; STATS_COLUMNS]>::try_from(Map::PerCpuArray(data))
            .context("culprit's STATS map is not of the type this xtask was built for")?;
        let mut sum = 0;
        for probe in PROBES.iter().map(|probe| probe.id) {
            let per_cpu = stats.get(&(probe.0), 0).context("reading culprit's STATS map")?;
            sum += per_cpu.iter().map(|columns| columns[Stat::Emitted as usize]).sum::<u64>();
        }
        return Ok(Some(sum));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_between_two_readings_counts() {
        let held = |runs: &[(u32, u64, u64)]| BpfUse {
            programs: runs
                .iter()
                .map(|&(id, count, nanoseconds)| (id, Runs { count, nanoseconds }))
                .collect(),
            ..BpfUse::default()
        };
        let names = BTreeMap::from([(1, "packet_in".to_owned()), (2, "set_state".to_owned())]);
        let (before, after) = (held(&[(1, 10, 1000), (2, 5, 50)]), held(&[(1, 30, 3000), (2, 5, 50)]));
        let programs = between(&before, &after, &names);
        assert_eq!(programs, [Program { name: "packet_in".into(), runs: 20, mean_ns: 100.0 }]);
    }
}
