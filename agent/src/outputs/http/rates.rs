//! The main rates of the last half hour, for the page's sparklines: a handful of numbers each ten seconds.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;

/// How far points are apart.
pub const STEP: Duration = Duration::from_secs(10);
/// Points kept.
const POINTS: usize = 180;

/// What is shown: name and label. Each is a counter's growth a second.
pub const SERIES: &[(&str, &str)] = &[
    ("connects", "Connects"),
    ("connect_failures", "Connects that fail"),
    ("handshakes", "TLS handshakes"),
    ("dns", "DNS answers"),
    ("records", "Events emitted"),
    ("lost", "Events lost"),
];

/// The last points of each.
#[derive(Default)]
pub struct Rates(Mutex<Points>);

#[derive(Default)]
struct Points {
    before: Option<[u64; SERIES.len()]>,
    points: VecDeque<[Option<f64>; SERIES.len()]>,
}

/// The rates as JSON.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Shown {
    /// Seconds between two points.
    pub(super) step_s: u64,
    /// The server's time, RFC 3339.
    pub(super) now: String,
    /// One row each.
    pub(super) series: Vec<Series>,
}

/// The points of one rate.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Series {
    /// Name.
    pub(super) name: &'static str,
    /// For people.
    pub(super) label: &'static str,
    /// Unit.
    pub(super) unit: &'static str,
    /// Oldest first; null where nothing is known.
    pub(super) points: Vec<Option<f64>>,
}

impl Rates {
    /// Takes in the counters, one [`STEP`] after the last time.
    pub fn push(&self, totals: [u64; SERIES.len()]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = state.before.replace(totals) {
            let mut point = [None; SERIES.len()];
            for (at, rate) in point.iter_mut().enumerate() {
                // A counter that went back was read again.
                *rate = totals[at].checked_sub(before[at]).map(|grown| grown as f64 / STEP.as_secs_f64());
            }
            if state.points.len() >= POINTS {
                state.points.pop_front();
            }
            state.points.push_back(point);
        }
    }

    pub(super) fn shown(&self) -> Shown {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = SERIES.iter().enumerate().map(|(at, (name, label))| Series {
            name,
            label,
            unit: "/s",
            points: state.points.iter().map(|point| point[at]).collect(),
        });
        Shown { step_s: STEP.as_secs(), now: jiff::Timestamp::now().to_string(), series: series.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_growth_a_second_and_only_so_many_are_kept() {
        let rates = Rates::default();
        let totals = |first: u64| {
            let mut totals = [0; SERIES.len()];
            totals[0] = first;
            totals
        };
        for first in [100, 150, 20] {
            rates.push(totals(first));
        }
        assert_eq!(rates.shown().series[0].points, [Some(5.0), None]);
        for first in 0..500 {
            rates.push(totals(first));
        }
        let shown = rates.shown();
        assert_eq!((shown.series[0].points.len(), shown.step_s), (POINTS, 10));
        assert_eq!(shown.series[0].points[0], Some(0.1));
    }
}
