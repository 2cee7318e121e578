//! Families onto the encoder of prometheus-client: a sample gives its labels' values in the family's order.

use std::fmt;

use ebpf_probes::metrics::{BUCKETS_USED, bound_ns};
use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit as EncodedUnit,
};

use super::families::{Family, Type, Unit};
use crate::kernel::counters::Durations;

/// A number as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Without a fraction.
    Whole(u64),
    /// With one.
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Number {
    fn from(yes: bool) -> Self {
        Self::Whole(u64::from(yes))
    }
}

/// Writes families, one after the other.
#[derive(Debug)]
pub struct Writer<'a>(DescriptorEncoder<'a>);

impl<'a> Writer<'a> {
    /// Onto what a collector was given.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A counter, a gauge or an info; nothing without samples.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn numbers<'v, const N: usize, V: Into<Number>>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([&'v str; N], V)>,
    ) -> fmt::Result {
        self.samples(family, samples, |encoder, number| match (family.kind, number.into()) {
            (Type::Counter, Number::Whole(number)) => {
                encoder.encode_counter::<NoLabelSet, u64, f64>(&number, None)
            }
            (Type::Counter, Number::Real(number)) => {
                encoder.encode_counter::<NoLabelSet, f64, f64>(&number, None)
            }
            (_, Number::Whole(number)) => encoder.encode_gauge(&number),
            (_, Number::Real(number)) => encoder.encode_gauge(&number),
        })
    }

    /// A number without labels.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn number(&mut self, family: &Family, number: impl Into<Number>) -> fmt::Result {
        self.numbers(family, [([], number)])
    }

    /// An info: its labels are what it says.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn info<const N: usize>(&mut self, family: &Family, values: [&str; N]) -> fmt::Result {
        let (name, unit) = bare(family);
        self.0
            .encode_descriptor(name, family.help, unit.as_ref(), MetricType::Info)?
            .encode_info(&labels(family, &values))
    }

    /// A histogram.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn durations<'v, const N: usize>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([&'v str; N], Durations)>,
    ) -> fmt::Result {
        self.samples(family, samples, |encoder, durations| {
            let buckets: [(f64, u64); BUCKETS_USED] = std::array::from_fn(|at| {
                let bound = bound_ns(at).map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
                (bound, durations.buckets[at])
            });
            let sum = durations.sum_ns as f64 / 1e9;
            encoder.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)
        })
    }

    fn samples<'v, const N: usize, V>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([&'v str; N], V)>,
        each: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let (name, unit) = bare(family);
        let kind = match family.kind {
            Type::Counter => MetricType::Counter,
            Type::Gauge => MetricType::Gauge,
            Type::Histogram => MetricType::Histogram,
            Type::Info => MetricType::Info,
        };
        let mut encoder = self.0.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
        for (values, value) in samples {
            if N == 0 {
                each(&mut encoder, value)?;
            } else {
                each(&mut encoder.encode_family(&labels(family, &values))?, value)?;
            }
        }
        Ok(())
    }
}

fn labels<'v>(family: &Family, values: &[&'v str]) -> Vec<(&'static str, &'v str)> {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    family.labels.iter().map(|label| label.name).zip(values.iter().copied()).collect()
}

/// The name without what the encoder appends, and the unit it appends.
fn bare(family: &Family) -> (&'static str, Option<EncodedUnit>) {
    let suffix = match family.kind {
        Type::Counter => "_total",
        Type::Info => "_info",
        Type::Gauge | Type::Histogram => "",
    };
    let name = family.name.strip_suffix(suffix).unwrap_or(family.name);
    let Some(unit) = family.unit else { return (name, None) };
    let shorter = name.strip_suffix(unit.name()).and_then(|name| name.strip_suffix('_'));
    let encoded = match unit {
        Unit::Seconds => EncodedUnit::Seconds,
        Unit::Bytes => EncodedUnit::Bytes,
    };
    shorter.map_or((name, None), |name| (name, Some(encoded)))
}
