//! What do several measurements of one thing say together? The median, and how far they lie apart.

use serde::Serialize;

/// The median of some measurements, with the smallest and the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many there were.
    pub(crate) samples: usize,
}

impl Spread {
    /// Of measurements in any order; nothing when there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            let (below, above) = (*sorted.get(middle - 1)?, *sorted.get(middle)?);
            // Of two equal ones that one, infinite or not.
            if below.total_cmp(&above).is_eq() { below } else { f64::midpoint(below, above) }
        };
        Some(Self { median, min, max, samples: sorted.len() })
    }
}

/// How many times the slow-down of culprit the slow-down of something else is, from the rates of
/// one round: extra time per operation over extra time per operation. Infinite when culprit was not
/// slower at all.
pub(crate) fn multiple_of_slowdown(bare: f64, culprit: f64, other: f64) -> f64 {
    let extra = |rate: f64| 1.0 / rate - 1.0 / bare;
    if extra(culprit) <= 0.0 { f64::INFINITY } else { extra(other) / extra(culprit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0, samples: 4 });
        assert_eq!(Spread::of(&[3.0, 9.0, 1.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn infinite_measurements_have_a_median() {
        let spread = Spread::of(&[f64::INFINITY, f64::INFINITY, 2.0, f64::INFINITY]).unwrap();
        assert_eq!((spread.median, spread.min), (f64::INFINITY, 2.0));
    }

    #[test]
    fn slow_downs_compare_by_extra_time_per_operation() {
        // 100 µs bare, 110 µs under culprit, 600 µs under the other: 500 to 10.
        let multiple = multiple_of_slowdown(10_000.0, 1e6 / 110.0, 1e6 / 600.0);
        assert!((multiple - 50.0).abs() < 1e-6, "{multiple}");
        assert_eq!(multiple_of_slowdown(10_000.0, 10_100.0, 400.0), f64::INFINITY);
    }
}
