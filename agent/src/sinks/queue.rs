//! A bounded queue before a sink, and the thread that empties it. Offering never waits. An incident that
//! waits already is replaced by its newer state, so the bound is one of incidents, not of updates; what does
//! not fit is discarded and counted.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Spec, Told};
use crate::correlate::incident::State;

/// How often a sink with nothing to do is called.
const IDLE: Duration = Duration::from_secs(1);

/// What became of what a sink was given.
#[derive(Debug)]
pub struct Counts {
    /// The sink.
    pub spec: Spec,
    /// Incidents given to it.
    pub received: AtomicU64,
    /// Incidents it has dealt with.
    pub emitted: AtomicU64,
    /// Waiting now.
    pub waiting: AtomicUsize,
    /// Given up because the queue was full.
    pub full: AtomicU64,
    /// Replaced by a newer state of the same incident before it was their turn.
    pub replaced: AtomicU64,
    /// Given up because the sink failed.
    pub failed: AtomicU64,
    /// Given up because the other side does not want it, or did not for too long.
    pub refused: AtomicU64,
}

impl Counts {
    /// Zeros.
    #[must_use]
    pub fn new(spec: Spec) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self {
            spec,
            received: zero(),
            emitted: zero(),
            waiting: AtomicUsize::default(),
            full: zero(),
            replaced: zero(),
            failed: zero(),
            refused: zero(),
        })
    }

    /// What was discarded, by reason.
    pub fn discarded(&self) -> [(&'static str, u64); 4] {
        [
            ("queue_full", self.full.load(Relaxed)),
            ("replaced", self.replaced.load(Relaxed)),
            ("failed", self.failed.load(Relaxed)),
            ("refused", self.refused.load(Relaxed)),
        ]
    }
}

/// What deals with incidents, on a thread of its own.
pub trait Sink: Send {
    /// Deals with these, in order, and counts what became of them.
    fn take(&mut self, told: &[Arc<Told>], counts: &Counts);
    /// Called about once a second.
    fn tick(&mut self) {}
    /// Nothing comes any more.
    fn close(&mut self) {}
}

/// The producers' end.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    counts: Arc<Counts>,
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    told: VecDeque<Arc<Told>>,
    closed: bool,
    done: bool,
}

impl Queue {
    /// Starts the sink's thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(counts: Arc<Counts>, mut sink: Box<dyn Sink>) -> io::Result<Self> {
        let shared = Arc::new(Shared { counts, state: Mutex::default(), changed: Condvar::new() });
        let queue = Self(shared.clone());
        thread::Builder::new().name(format!("culprit-{}", shared.counts.spec.name)).spawn(move || {
            // Whatever becomes of the sink, whoever waits for it is told.
            let _done = Done(&shared);
            shared.empty(sink.as_mut());
        })?;
        Ok(queue)
    }

    /// Puts an incident in the queue; never waits for the sink.
    pub fn offer(&self, told: Arc<Told>) {
        let Shared { counts, changed, .. } = &*self.0;
        let mut state = self.0.lock();
        counts.received.fetch_add(1, Relaxed);
        let same = |known: &&mut Arc<Told>| {
            known.incident.id == told.incident.id && known.incident.state == State::Updated
        };
        if let Some(known) = state.told.iter_mut().find(same) {
            *known = told;
            counts.replaced.fetch_add(1, Relaxed);
        } else if state.closed || state.told.len() >= counts.spec.capacity {
            counts.full.fetch_add(1, Relaxed);
        } else {
            state.told.push_back(told);
        }
        counts.waiting.store(state.told.len(), Relaxed);
        changed.notify_all();
    }

    /// Nothing more comes; waits until all has been dealt with, but not for ever. `false`: it was not.
    pub fn close(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        state.closed = true;
        self.0.changed.notify_all();
        while !state.done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A sink's panic leaves the queue as it is: whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self, sink: &mut dyn Sink) {
        let mut ticked = Instant::now();
        loop {
            let mut state = self.lock();
            if state.told.is_empty() && !state.closed {
                state = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner).0;
            }
            let told: Vec<Arc<Told>> = state.told.drain(..).collect();
            let closed = state.closed;
            self.counts.waiting.store(0, Relaxed);
            drop(state);
            if !told.is_empty() {
                sink.take(&told, &self.counts);
            } else if closed {
                return sink.close();
            }
            if ticked.elapsed() >= IDLE {
                ticked = Instant::now();
                sink.tick();
            }
        }
    }
}

struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.closed, state.done) = (true, true);
        self.0.changed.notify_all();
    }
}
