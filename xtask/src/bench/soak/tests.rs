use std::collections::BTreeMap;

use super::report::{Load, Made, Requests, SCHEMA, Sample, Soak, Stream};
use crate::bench::tests::machine;

/// Ten samples of a daemon that does not change, two incidents, two readers.
pub(super) fn soak() -> Soak {
    let sample = |n: u64| Sample {
        at_s: 10.0 * n as f64,
        rss_kib: 20_480,
        anon_kib: 10_240,
        descriptors: 40,
        threads: 5,
        cpu_s: 0.2 * n as f64,
        received: BTreeMap::from([("connect".into(), 500 * n)]),
        lost: BTreeMap::from([("connect".into(), 0)]),
        store_bytes: 65_536,
        metrics_bytes: 2048,
    };
    let made = |at_s: f64, port| Made { at_s, port, lasted_ms: 5000, kept: 1, resolved: 1 };
    Soak {
        schema: SCHEMA.into(),
        machine: machine(),
        minutes: 2,
        loads: vec![Load { name: "connects".into(), done: 1000, seconds: 100.0, stalls: 0 }],
        samples: (1..=10).map(sample).collect(),
        incidents: vec![made(15.0, 20_000), made(75.0, 20_001)],
        others: vec![],
        requests: Requests { answered: 100, failed: 0, why: None },
        streams: vec![Stream { events: 6, ended: None }, Stream { events: 6, ended: None }],
    }
}

#[test]
fn a_soak_goes_through_json_and_back_with_its_verdicts() {
    let mut value = serde_json::to_value(soak()).unwrap();
    value["verdicts"] = serde_json::to_value(super::verdict::rows(&soak())).unwrap();
    let back: Soak = serde_json::from_value(value).unwrap();
    assert_eq!((back.samples.len(), back.incidents.len()), (10, 2));
}
