//! What culprit exposes to Prometheus: families onto a registry of prometheus-client, from a snapshot the pipeline
//! publishes, from the incidents it emits, and from whatever else is registered. A scrape never makes the
//! pipeline wait; who serves it over HTTP is not known here.

mod collect;
pub mod families;
pub mod format;
mod incidents;
mod process;
pub mod service;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod workloads;
pub mod writer;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

pub use format::{Format, pick};
use prometheus_client::{collector::Collector, encoding::text, registry::Registry};

use crate::{config::MetricsBy, pipeline::incident::Incident};
use snapshot::Snapshot;

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    published: Arc<Published>,
    incidents: Arc<incidents::Incidents>,
    workloads: Option<Arc<workloads::Workloads>>,
}

/// The last snapshot.
#[derive(Debug, Default)]
struct Published(Mutex<Arc<Snapshot>>);

impl Published {
    /// Locked for as long as it takes to count a reference.
    fn get(&self) -> Arc<Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, snapshot: Snapshot) {
        let new = Arc::new(snapshot);
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), new);
        drop(old);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            published: Arc::default(),
            incidents: Arc::default(),
            workloads: None,
        };
        metrics.register(metrics.incidents.clone());
        metrics.register(metrics.published.clone());
        metrics.register(process::Process);
        metrics
    }
}

impl Metrics {
    /// Adds a source of metrics, before this is shared. It writes families of [`families::FAMILIES`] with a
    /// [`writer::Writer`].
    pub fn register(&mut self, collector: impl Collector) {
        self.registry.register_collector(Box::new(collector));
    }

    /// The registry itself, for metrics that are no collector.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Counts incidents by the workload of the process that suffers as well; the first `most` of them.
    pub fn count_by(&mut self, by: MetricsBy, most: usize) {
        let workloads = Arc::new(workloads::Workloads::new(by, most));
        self.register(workloads.clone());
        self.workloads = Some(workloads);
    }

    /// What is exposed from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        self.published.set(snapshot);
    }

    /// What was published last.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.get()
    }

    /// Counts an incident, each time it is emitted.
    pub fn incident(&self, incident: &Incident) {
        self.incidents.take(incident);
        if let Some(workloads) = &self.workloads {
            workloads.take(incident);
        }
    }

    /// Everything, as a reader wants it.
    ///
    /// # Errors
    /// When a collector cannot write.
    pub fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(match format {
            Format::OpenMetrics => out,
            Format::Text => format::older(&out),
        })
    }
}
