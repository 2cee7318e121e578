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
        let name: String = name.map_or(NONE.into(), |name| name.chars().take(LONGEST).collect());
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

impl Collector for Identities {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.iter().map(|((kind, name), count)| ([kind.name(), name.as_str()], *count));
        Writer::new(encoder).numbers(&f::IDENTITIES, counts)
    }
}
