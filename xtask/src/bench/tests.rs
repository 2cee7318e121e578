use super::{
    MARKS,
    report::{
        Condition, Cpu, Culprit, Direction, Machine, Packets, Program, Report, SCHEMA, Settings, Slice,
        Sustained, Traffic, Workload,
    },
};

pub(super) fn slice(condition: Condition, round: u32, done: u64, lost: Option<u64>) -> Slice {
    let program = Program { name: "packet_in".into(), runs: 300, mean_ns: 100.0 };
    Slice {
        workload: Workload::Connects,
        condition,
        round,
        done,
        seconds: 1.0,
        stalls: u64::from(condition == Condition::Strace && round == 0),
        cpu: Cpu::default(),
        culprit: lost.map(|lost| Culprit {
            start_ms: 100.0,
            events: 2 * done,
            lost,
            emitted: Some(2 * done + lost),
            rss_kib: 10_240,
            peak_kib: 20_480,
            maps_kib: 30_720,
            programs: vec![program],
            counted: 100,
            attached: done,
        }),
        strangers: 0,
    }
}

pub(super) fn machine() -> Machine {
    Machine {
        cpu: "A CPU".into(),
        cores: 2,
        memory_mib: 1024,
        kernel: "6.1".into(),
        date: "2026-01-02T03:04:05Z".into(),
        commit: "abc".into(),
    }
}

/// Two rounds of connects, one of packets, two steps of sustained events.
pub(super) fn report() -> Report {
    let program = |name: &str, mean_ns| Program { name: name.into(), runs: 1000, mean_ns };
    let direction = |name, mean_ns| Direction {
        program: program(name, mean_ns),
        empty_before: program("empty", 52.0),
        empty_after: program("empty", 48.0),
    };
    Report {
        schema: SCHEMA.into(),
        machine: machine(),
        settings: Settings { rounds: 2, seconds: 1.0, ..Settings::default() },
        notes: vec![],
        slices: vec![
            slice(Condition::Bare, 0, 40_000, None),
            slice(Condition::Trace, 0, 30_000, Some(0)),
            slice(Condition::Strace, 0, 200, None),
            slice(Condition::Bare, 1, 20_000, None),
            slice(Condition::Trace, 1, 10_000, Some(7)),
            slice(Condition::Strace, 1, 120, None),
        ],
        packets: vec![Packets {
            condition: Condition::Trace,
            traffic: Traffic::Tcp,
            round: 0,
            directions: vec![direction("packet_in", 70.0), direction("packet_out", 80.0)],
        }],
        starts: vec![],
        sustained: vec![
            Sustained { asked: 100e3, reached: 100e3, events: 100_000, lost: 0, cpu: 0.5 },
            Sustained { asked: 150e3, reached: 150e3, events: 149_993, lost: 7, cpu: 0.9 },
        ],
        replays: vec![],
        crowds: vec![],
    }
}

#[test]
fn a_report_goes_through_json_and_back() {
    let mut value = serde_json::to_value(report()).unwrap();
    value["budgets"] = serde_json::json!([{ "spread": null }]);
    let back: Report = serde_json::from_value(value).unwrap();
    assert_eq!(back.slices.len(), 6);
    assert_eq!(back.slices[1].culprit.as_ref().unwrap().programs.len(), 1);
}

#[test]
fn the_readme_keeps_what_is_around_the_table() {
    let readme = format!("before\n{}\nafter\n", MARKS.around("old\n"));
    let new = MARKS.embedded(&readme, "new\n").unwrap();
    assert_eq!(new, readme.replace("old", "new"));
    assert_eq!(MARKS.between(&new).as_deref(), Some("new\n"));
    assert!(MARKS.embedded("nothing", "new").is_err_and(|why| why.to_string().contains("put `<!-- bench")));
}
