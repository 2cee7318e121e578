//! What is encoded is what the table says: families, types, labels and their values, in both formats.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ebpf_probes::{
    abi::{ProbeId, Stat},
    metrics::BUCKETS_USED,
    probes::PROBES,
};

use super::{
    Format, Metrics,
    families::{FAMILIES, Family, Type, page},
    incidents::tests::incident,
    service::Service,
    snapshot::{Clock, Offset, Snapshot, Step},
};
use crate::{
    claims::Counted,
    config::MetricsBy,
    fact::{Process, ReferenceKind},
    kernel::{
        load::Loss,
        usage::{MapUsage, ProgramUsage},
    },
    known::bounded::Table,
    outputs::{
        SINKS,
        http::Traffic,
        queue::Counts,
        store::{Holds, Store},
    },
    pipeline::incident::{Incident, Severity, State},
};

/// With something of everything.
fn full() -> Metrics {
    let mut metrics = Metrics::default();
    metrics.count_by(MetricsBy::Unit, 2);
    let traffic: Arc<Traffic> = Arc::default();
    traffic.answered("/metrics", 200);
    metrics.register(Service {
        sinks: SINKS.iter().map(|sink| Counts::new(*sink)).collect(),
        store: Store::in_memory().expect("memory"),
        traffic,
        looked: Mutex::new(Some((
            Instant::now(),
            Holds { incidents: 1, bytes: 2, oldest_ms: Some(1_795_245_577_500) },
        ))),
    });
    let offset = Offset { ahead_ns: -1_500_000_000, error_ns: 500_000_000 };
    let kinds = [
        ReferenceKind::Ptp,
        ReferenceKind::Ntp,
        ReferenceKind::Kernel,
        ReferenceKind::Rtc,
        ReferenceKind::Http,
    ];
    metrics.publish(Snapshot {
        asked: PROBES.iter().map(|probe| probe.name).collect(),
        attached: vec!["tls".into()],
        hooks: vec![("packet_in", true), ("set_state", false)],
        received: BTreeMap::from([(ProbeId::TLS, 7)]),
        losses: vec![Loss { probe: ProbeId::DNS, stat: Stat::RingFull, count: 3 }],
        looks_unfinished: 1,
        claims: Some(Counted { watched: 3, refused: 1, packets: 7, dropped: 2, left_out: 4 }),
        questions: Some([1, 2, 0, 3]),
        tables: vec![Table { name: "names", entries: 1, capacity: 2, evictions: 3 }],
        clock: Clock {
            forward: 1,
            back: 2,
            last: Some(Step { delta_ns: -2_500_000_000, at_ns: 1_795_245_577_500_000_000 }),
            offsets: kinds.map(|kind| (kind, offset)).into(),
        },
        neighbours: Some(BTreeMap::from([((true, 2), 5)])),
        programs: vec![ProgramUsage { program: "packet_in", runs: 4, run_ns: 1_500 }],
        accounted: Some(Duration::from_millis(1500)),
        maps: vec![
            MapUsage { map: "pending".into(), entries: Some(1), capacity: 2, memory_bytes: 3 },
            MapUsage { map: "stats".into(), entries: None, capacity: 8, memory_bytes: 3 },
        ],
        ..Snapshot::default()
    });
    metrics.incident(&incident("a", State::Open, Severity::Critical));
    metrics
}

#[test]
fn workloads_beyond_the_bound_count_as_other_and_those_without_as_none() {
    let mut metrics = Metrics::default();
    metrics.count_by(MetricsBy::Unit, 2);
    for (id, unit) in [Some("a"), None, Some("b"), Some("c"), Some("a"), Some("d")].into_iter().enumerate() {
        let mut emitted = incident(&id.to_string(), State::Open, Severity::Critical);
        let unit = unit.map(|unit| format!("{unit}.service"));
        emitted.process = Some(Process { unit, ..Process::default() });
        metrics.incident(&emitted);
    }
    let text = metrics.encode(Format::Text).expect("a string");
    let by = |name: &str| {
        let of = format!("workload=\"{name}\"");
        let line = text.lines().find(|line| line.starts_with("culprit_incidents_by") && line.contains(&of));
        line.map(|line| sample(line).2)
    };
    let counts = ["a.service", "b.service", "c.service", "other", "none"].map(by);
    assert_eq!(counts, [Some(2.0), Some(1.0), None, Some(2.0), Some(1.0)]);
}

#[test]
fn a_workload_is_named_by_what_the_option_says() {
    let unit = |unit: &str| Process { unit: Some(unit.into()), ..Process::default() };
    let pod = Process {
        pod: Some("cart-7d9f4c8b6d-x2k9p".into()),
        namespace: Some("shop".into()),
        ..unit("kubelet.service")
    };
    for (by, names) in [
        (MetricsBy::Unit, ["kubelet.service", "nginx.service", "none"]),
        (MetricsBy::Namespace, ["shop", "none", "none"]),
        (MetricsBy::Workload, ["cart", "nginx.service", "none"]),
        (MetricsBy::Pod, ["cart-7d9f4c8b6d-x2k9p", "none", "none"]),
        (MetricsBy::Node, ["node-7", "node-7", "node-7"]),
    ] {
        for (process, name) in [Some(pod.clone()), Some(unit("nginx.service")), None].into_iter().zip(names) {
            let mut metrics = Metrics::default();
            metrics.count_by(by, 2);
            metrics.incident(&Incident {
                node: "node-7".into(),
                process,
                ..incident("a", State::Open, Severity::Critical)
            });
            let text = metrics.encode(Format::Text).expect("a string");
            let of = format!(
                "culprit_incidents_by_workload_total{{kind=\"connect_failing\",workload=\"{name}\"}} 1"
            );
            assert!(text.lines().any(|line| line == of), "{of}: {text}");
        }
    }
}

/// Name, labels and value of a sample.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').expect("closed").split(',').filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (name, value) = label.split_once('=').expect("name=value");
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().expect("a number"))
}

fn family_of(sample: &str) -> &'static Family {
    let is = |family: &&Family| {
        let rest = sample.strip_prefix(family.name);
        match family.kind {
            Type::Histogram => matches!(rest, Some("_sum" | "_count" | "_bucket")),
            _ => rest == Some(""),
        }
    };
    FAMILIES.iter().find(is).unwrap_or_else(|| panic!("{sample} is in no family of the table"))
}

#[test]
fn what_is_encoded_has_exactly_the_families_labels_and_values_of_the_table() {
    let metrics = full();
    for format in [Format::OpenMetrics, Format::Text] {
        let text = metrics.encode(format).expect("a string");
        let mut seen: BTreeMap<&str, BTreeSet<Vec<String>>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, mut labels, _) = sample(line);
            let family = family_of(&name);
            labels.retain(|(name, _)| !(family.kind == Type::Histogram && name == "le"));
            let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
            let wanted: Vec<&str> = family.labels.iter().map(|label| label.name).collect();
            assert_eq!(names, wanted, "{line}");
            for ((_, value), label) in labels.iter().zip(family.labels) {
                if let Some(all) = label.values.all() {
                    assert!(all.contains(&value.as_str()), "{line}: {value} is not in the table");
                }
            }
            seen.entry(family.name).or_default().insert(labels.into_iter().map(|(_, value)| value).collect());
        }
        for family in FAMILIES {
            let series = seen.get(family.name).unwrap_or_else(|| panic!("{} is not encoded", family.name));
            // Those without a fixed set are as many as there were.
            let open = family.labels.iter().any(|label| {
                matches!(label.name, "program" | "map" | "cache" | "path" | "workload" | "summary")
            });
            let all = |family: &Family| {
                let values = family.labels.iter().map(|label| label.values.all().map_or(1, |all| all.len()));
                values.product::<usize>()
            };
            assert!(open || series.len() == all(family), "{}: {} series", family.name, series.len());
        }
    }
}

#[test]
fn each_format_describes_every_family_in_its_own_words() {
    let metrics = full();
    let open = metrics.encode(Format::OpenMetrics).expect("a string");
    let text = metrics.encode(Format::Text).expect("a string");
    assert!(open.ends_with("# EOF\n") && !text.contains("# EOF") && !text.contains("# UNIT"));
    for family in FAMILIES {
        let name = family.name;
        let older = if family.kind == Type::Info { "gauge" } else { family.kind.name() };
        let once = |wanted: String| text.lines().filter(|line| *line == wanted).count() == 1;
        assert!(once(format!("# TYPE {name} {older}")), "{name}");
        assert!(once(format!("# HELP {name} {}", family.help)), "{name}");
        let newer = name.trim_end_matches("_total").trim_end_matches("_info");
        assert!(open.contains(&format!("# TYPE {newer} {}\n", family.kind.name())), "{name}");
        if let Some(unit) = family.unit {
            assert!(open.contains(&format!("# UNIT {newer} {}\n", unit.name())), "{name}");
        }
    }
}

#[test]
fn numbers_are_written_as_they_were_published() {
    let text = full().encode(Format::Text).expect("a string");
    for line in [
        "culprit_incidents_total{kind=\"connect_failing\",severity=\"critical\"} 1",
        "culprit_incidents_open{kind=\"connect_failing\",severity=\"critical\"} 1",
        "culprit_incidents_open{kind=\"clock_stepped\",severity=\"info\"} 0",
        "culprit_connects_total{outcome=\"timed_out\"} 0",
        "culprit_clock_steps_total{direction=\"backward\"} 2",
        "culprit_clock_last_step_seconds -2.5",
        "culprit_clock_offset_seconds{reference=\"rtc\"} -1.5",
        "culprit_clock_offset_error_seconds{reference=\"rtc\"} 0.5",
        "culprit_neighbour_entries{family=\"ipv6\",state=\"reachable\"} 5",
        "culprit_probe_attached{probe=\"tls\"} 1",
        "culprit_probe_attached{probe=\"dns\"} 0",
        "culprit_hook_attached{program=\"set_state\"} 0",
        "culprit_probe_records_total{probe=\"tls\"} 7",
        "culprit_probe_lost_records_total{probe=\"dns\",reason=\"ring_full\"} 3",
        "culprit_bpf_program_stats_seconds_total 1.5",
        "culprit_bpf_map_entries{map=\"pending\"} 1",
        "culprit_cache_evictions_total{cache=\"names\"} 3",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("culprit_bpf_map_entries{map=\"stats\"}"));
}

#[test]
fn buckets_are_cumulative_and_end_where_everything_fits() {
    let text = full().encode(Format::OpenMetrics).expect("a string");
    let buckets: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("culprit_dns_duration_seconds_bucket"))
        .map(|line| sample(line).1.remove(0).1)
        .collect();
    assert_eq!(buckets.len(), BUCKETS_USED);
    assert_eq!(buckets.last().map(String::as_str), Some("+Inf"));
    let bounds: Vec<f64> =
        buckets.iter().map(|bound| bound.trim_start_matches('+').parse().expect("a bound")).collect();
    assert_eq!((bounds[0], bounds[BUCKETS_USED - 2]), (0.000064, 134.217728));
    assert!(bounds.is_sorted());
}

#[test]
fn names_say_what_they_count_in_and_help_needs_no_escapes() {
    for family in FAMILIES {
        let name = family.name;
        assert_eq!(name.ends_with("_total"), family.kind == Type::Counter, "{name}");
        if let Some(unit) = family.unit {
            assert!(name.trim_end_matches("_total").ends_with(unit.name()), "{name}");
        }
        assert!(!family.help.contains(['"', '\\', '\n', '|']) && !family.help.ends_with('.'), "{name}");
        assert_eq!(page().matches(&format!("| `{name}` |")).count(), 1, "{name}");
    }
}

/// `cargo xtask test` names it by `CULPRIT_PROMTOOL`; without it, and none on this machine, nothing is judged.
#[test]
fn promtool_finds_nothing_to_say_about_what_is_encoded() {
    let promtool = std::env::var_os("CULPRIT_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let judged = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut judged = match judged {
        Ok(judged) => judged,
        Err(error) => {
            eprintln!("skipped: {}: {error}", promtool.display());
            return;
        }
    };
    let text = full().encode(Format::Text).expect("a string");
    judged.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let judged = judged.wait_with_output().expect("it ends");
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
