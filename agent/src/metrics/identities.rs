//! Incidents by whose process suffers: the first so many have a series of their own, the rest are `other`. Who
//! comes first is arbitrary and stays: a series that changes its meaning would be worse.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{families as f, writer::Writer};
use crate::{
    config::Identity,
    correlate::incident::{Incident, Kind, State},
    text::printable,
};

/// Those beyond the bound.
const OTHER: &str = "other";
/// Of a process that has none, or of no process.
const NONE: &str = "none";
/// A longer one is cut.
const LONGEST: usize = 128;

/// The count.
#[derive(Debug)]
pub(super) struct Identities {
    by: Identity,
    most: usize,
    counts: Mutex<BTreeMap<(Kind, String), u64>>,
}

impl Identities {
    /// Counts by this, so many of them.
    pub(super) fn new(by: Identity, most: usize) -> Self {
        Self { by, most, counts: Mutex::default() }
    }

    /// An incident is told.
    pub(super) fn take(&self, incident: &Incident) {
        if incident.state != State::Open {
            return;
        }
        let process = incident.process.as_ref();
        let name = process.and_then(|process| match self.by {
            Identity::Unit => process.unit.clone(),
            Identity::Namespace => process.namespace.clone(),
            Identity::Pod => process.pod.clone(),
        });
        let name = name.map_or(NONE.into(), |name| label(&name));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<&str> = counts.keys().map(|(_, name)| name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        known.retain(|known| ![OTHER, NONE].contains(known));
        let fits = name == NONE || known.contains(&name.as_str()) || known.len() < self.most;
        let name = if fits { name } else { OTHER.to_owned() };
        *counts.entry((incident.kind, name)).or_default() += 1;
    }
}

/// A name as the value of a label: bounded, with nothing hidden in it. Quotes are the encoder's business.
fn label(name: &str) -> String {
    printable(name).chars().take(LONGEST).collect()
}

impl Collector for Identities {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.iter().map(|((kind, name), count)| ([kind.name(), name.as_str()], *count));
        Writer::new(encoder).numbers(&f::IDENTITIES, counts)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use proptest::prelude::*;

    use super::*;
    use crate::text::hidden;

    proptest! {
        #[test]
        fn a_label_is_one_value_on_one_line(name in "(?s).{0,200}") {
            let identities = Identities::new(Identity::Unit, 1);
            identities.counts.lock().expect("mine").insert((Kind::ConnectStalled, label(&name)), 1);
            let mut registry = Registry::default();
            registry.register_collector(Box::new(identities));
            let mut text = String::new();
            encode(&mut text, &registry).expect("memory");
            let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            prop_assert!(samples.len() == 1 && samples[0].ends_with("\"} 1"), "{text:?}");
            prop_assert!(!samples[0].chars().any(hidden) && samples[0].len() < 2048);
        }
    }
}
