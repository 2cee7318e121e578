//! `culprit list neighbours`: how many neighbours (ARP, NDP) each device has, by state, in every network
//! namespace, and how full the tables are that all of them share. Asks the kernel over rtnetlink; no probe.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    config::Format,
    domains::neighbour::state_name,
    neighdump::{self, Dump, Table},
    network::family,
    outputs::json,
    terminal::{self, Column},
    text::shown,
};

/// Entries of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Device {
    /// Its network namespace by name, or by inode number.
    netns: String,
    /// The device.
    device: String,
    /// `ipv4` or `ipv6`.
    family: &'static str,
    /// Entries by state, as `ip neigh` writes it.
    states: BTreeMap<String, u32>,
    /// All of them.
    entries: u32,
}

/// Lists them.
pub fn list(format: Format) -> anyhow::Result<ExitCode> {
    let dump = neighdump::everywhere().context("reading the neighbour tables")?;
    let tables = neighdump::tables().context("reading the bounds of the neighbour tables")?;
    let devices = devices(&dump);
    let mut out = io::stdout().lock();
    let written = if format == Format::Json {
        json(&devices, &tables, &mut out)
    } else {
        text(&devices, &tables, &mut out)
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        other => other.context("writing the list")?,
    }
    if let Some((netns, error)) = dump.refused.first() {
        let more = dump.refused.len();
        eprintln!(
            "culprit: {more} network namespaces could not be read, net:[{netns}] for one: {error}; root may (sudo culprit …)"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn devices(dump: &Dump) -> Vec<Device> {
    let mut counts: BTreeMap<(String, &str, &'static str), BTreeMap<String, u32>> = BTreeMap::new();
    for namespace in &dump.namespaces {
        let name = namespace.name.clone().unwrap_or_else(|| format!("net:[{}]", namespace.netns.inode));
        for neighbour in &namespace.neighbours {
            let states =
                counts.entry((name.clone(), &neighbour.device, family(neighbour.family))).or_default();
            *states.entry(state_name(neighbour.state)).or_default() += 1;
        }
    }
    let device =
        |((netns, device, family), states): ((String, &str, &'static str), BTreeMap<String, u32>)| Device {
            netns,
            device: device.to_owned(),
            family,
            entries: states.values().sum(),
            states,
        };
    counts.into_iter().map(device).collect()
}

fn json(devices: &[Device], tables: &[Table], out: &mut impl Write) -> io::Result<()> {
    let tables: Vec<_> = tables
        .iter()
        .map(|table| {
            let [one, two, three] = table.thresholds;
            serde_json::json!({
                "family": table.family, "entries": table.entries,
                "gc_thresh1": one, "gc_thresh2": two, "gc_thresh3": three,
            })
        })
        .collect();
    json::pretty(&serde_json::json!({ "devices": devices, "tables": tables }), &mut *out)?;
    writeln!(out)
}

fn text(devices: &[Device], tables: &[Table], out: &mut impl Write) -> io::Result<()> {
    let mut states: Vec<&String> = devices.iter().flat_map(|device| device.states.keys()).collect();
    states.sort_unstable();
    states.dedup();
    if devices.is_empty() {
        writeln!(out, "no neighbours")?;
    } else {
        let left = |heading, least| Column { heading, least, breaks: true, ..Column::default() };
        let mut columns = vec![left("NAMESPACE", 24), left("DEVICE", 15), left("FAMILY", 6)];
        columns.extend(states.iter().map(|state| Column {
            heading: state,
            least: 10,
            right: true,
            ..Column::default()
        }));
        let rows: Vec<Vec<String>> = devices
            .iter()
            .map(|device| {
                let entries = states.iter().map(|state| {
                    device.states.get(*state).map_or_else(|| "-".to_owned(), ToString::to_string)
                });
                let (namespace, name) = (shown(&device.netns), shown(&device.device));
                let what = [namespace.into_owned(), name.into_owned(), device.family.to_string()];
                what.into_iter().chain(entries).collect()
            })
            .collect();
        out.write_all(terminal::table(&columns, &rows, 1, terminal::width()).as_bytes())?;
    }
    for table in tables {
        let [one, two, three] = table.thresholds;
        writeln!(
            out,
            "{}: {} entries in all, gc_thresh1 {one}, gc_thresh2 {two}, gc_thresh3 {three}",
            table.family, table.entries
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ebpf_probes::{
        abi::{AF_INET, AF_INET6, Netns},
        probes::neigh::state::{FAILED, REACHABLE},
    };

    use super::*;
    use crate::neighdump::{Namespace, Neighbour};

    fn neighbour(family: u16, state: u32) -> Neighbour {
        Neighbour {
            netns: Netns::numbered(7),
            ifindex: 2,
            device: "eth0".into(),
            family,
            address: [0; 16],
            mac: [0; 8],
            state,
            probes: 0,
            updated: None,
            confirmed: None,
            asked: None,
        }
    }

    #[test]
    fn entries_are_counted_by_device_family_and_state() {
        let neighbours = vec![
            neighbour(AF_INET, REACHABLE),
            neighbour(AF_INET, REACHABLE),
            neighbour(AF_INET, FAILED),
            neighbour(AF_INET6, REACHABLE),
        ];
        let namespace = Namespace {
            netns: Netns::numbered(7),
            name: None,
            devices: BTreeMap::new(),
            neighbours,
            gateways: vec![],
        };
        let dump = Dump { namespaces: vec![namespace], refused: vec![] };
        let json = serde_json::to_value(devices(&dump)).expect("JSON");
        let states = serde_json::json!({"FAILED": 1, "REACHABLE": 2});
        let first = serde_json::json!({
            "netns": "net:[7]", "device": "eth0", "family": "ipv4", "states": states, "entries": 3,
        });
        assert_eq!(json[0], first);
        let mut out = Vec::new();
        let table = Table { family: "ipv4".into(), entries: 3, thresholds: [128, 512, 1024] };
        text(&devices(&dump), &[table], &mut out).expect("a buffer");
        assert_eq!(
            String::from_utf8(out).expect("text").lines().collect::<Vec<_>>(),
            [
                "NAMESPACE                DEVICE          FAMILY     FAILED  REACHABLE",
                "net:[7]                  eth0            ipv4            1          2",
                "net:[7]                  eth0            ipv6            -          1",
                "ipv4: 3 entries in all, gc_thresh1 128, gc_thresh2 512, gc_thresh3 1024",
            ]
        );
    }
}
