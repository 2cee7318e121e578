//! What the daemon counts beside the pipeline: sinks, store, HTTP.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{families as f, writer::Writer};
use crate::outputs::{
    http::Traffic,
    queue::Counts,
    store::{Holds, Store},
};

/// The store is looked through for its size at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where the counts are.
pub struct Service {
    /// Of every sink, in their order.
    pub sinks: Vec<Arc<Counts>>,
    /// The store.
    pub store: Store,
    /// HTTP.
    pub traffic: Arc<Traffic>,
    /// What the store held when it was looked at last.
    pub looked: Mutex<Option<(Instant, Holds)>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Collector for Service {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer::new(encoder);
        let by_sink = |count: fn(&Counts) -> u64| {
            self.sinks.iter().map(move |counts| ([counts.spec.name], count(counts)))
        };
        to.numbers(&f::SINK_RECEIVED, by_sink(|counts| counts.received.load(Relaxed)))?;
        to.numbers(&f::SINK_EMITTED, by_sink(|counts| counts.emitted.load(Relaxed)))?;
        let discarded = self
            .sinks
            .iter()
            .flat_map(|counts| counts.discarded().map(|(reason, count)| ([counts.spec.name, reason], count)));
        to.numbers(&f::SINK_DISCARDED, discarded)?;
        to.numbers(&f::SINK_QUEUE, by_sink(|counts| counts.waiting.load(Relaxed) as u64))?;
        to.numbers(&f::SINK_CAPACITY, by_sink(|counts| counts.spec.capacity as u64))?;
        if let Some(holds) = self.holds() {
            to.number(&f::STORE_INCIDENTS, holds.incidents)?;
            to.number(&f::STORE_BYTES, holds.bytes)?;
            if let Some(oldest_ms) = holds.oldest_ms {
                to.number(&f::STORE_OLDEST, oldest_ms as f64 / 1000.0)?;
            }
        }
        let requests = self.traffic.requests();
        let codes: Vec<(&str, String, u64)> =
            requests.into_iter().map(|((path, code), count)| (path, code.to_string(), count)).collect();
        let requests = codes.iter().map(|(path, code, count)| ([*path, code.as_str()], *count));
        to.numbers(&f::HTTP_REQUESTS, requests)?;
        to.number(&f::HTTP_CONNECTIONS, self.traffic.connections.load(Relaxed) as u64)?;
        to.number(&f::HTTP_REFUSED, self.traffic.refused.load(Relaxed))
    }
}

impl Service {
    /// What the store holds; nothing when it cannot be read, which its own metrics show.
    fn holds(&self) -> Option<Holds> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, holds)) = *looked
            && at.elapsed() < LOOK_EVERY
        {
            return Some(holds);
        }
        let holds = self.store.holds().ok()?;
        *looked = Some((Instant::now(), holds));
        Some(holds)
    }
}
