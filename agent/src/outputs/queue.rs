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

use super::{Rendered, Spec};
use crate::pipeline::incident::State;

/// How often a sink with nothing to do is called.
const IDLE: Duration = Duration::from_secs(1);

/// Why something is discarded, as metrics name it.
pub const DISCARDS: &[&str] = &["queue_full", "replaced", "failed", "refused"];

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
    pub fn discarded(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = [&self.full, &self.replaced, &self.failed, &self.refused];
        DISCARDS.iter().copied().zip(counts.map(|count| count.load(Relaxed)))
    }
}

/// What deals with incidents, on a thread of its own.
pub trait Sink: Send {
    /// Deals with these, in order, and counts what became of them.
    fn take(&mut self, rendered: &[Arc<Rendered>], counts: &Counts);
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
    rendered: VecDeque<Arc<Rendered>>,
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
            // Whatever becomes of the sink, whatever waits for it hears of it.
            let _done = Done(&shared);
            shared.empty(sink.as_mut());
        })?;
        Ok(queue)
    }

    /// Puts an incident in the queue; never waits for the sink.
    pub fn offer(&self, rendered: Arc<Rendered>) {
        let Shared { counts, changed, .. } = &*self.0;
        let mut state = self.0.lock();
        counts.received.fetch_add(1, Relaxed);
        let same = |known: &&mut Arc<Rendered>| {
            known.incident.id == rendered.incident.id && known.incident.state == State::Updated
        };
        if let Some(known) = state.rendered.iter_mut().find(same) {
            *known = rendered;
            counts.replaced.fetch_add(1, Relaxed);
        } else if state.closed || state.rendered.len() >= counts.spec.capacity {
            counts.full.fetch_add(1, Relaxed);
        } else {
            state.rendered.push_back(rendered);
        }
        counts.waiting.store(state.rendered.len(), Relaxed);
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
            if state.rendered.is_empty() && !state.closed {
                state = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner).0;
            }
            let rendered: Vec<Arc<Rendered>> = state.rendered.drain(..).collect();
            let closed = state.closed;
            self.counts.waiting.store(0, Relaxed);
            drop(state);
            if !rendered.is_empty() {
                sink.take(&rendered, &self.counts);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::outputs::{STORE, store::tests::incident};

    /// Passes on what it gets, once it is let.
    struct Slow {
        go: Receiver<()>,
        to: Sender<Batch>,
    }

    type Batch = Vec<(String, State)>;

    impl Sink for Slow {
        fn take(&mut self, rendered: &[Arc<Rendered>], counts: &Counts) {
            let _ = self.go.recv();
            counts.emitted.fetch_add(rendered.len() as u64, Relaxed);
            let rendered =
                rendered.iter().map(|rendered| (rendered.incident.summary.clone(), rendered.incident.state));
            let _ = self.to.send(rendered.collect());
        }
    }

    fn slow(capacity: usize) -> (Queue, Arc<Counts>, Sender<()>, Receiver<Batch>) {
        let (let_go, go) = channel();
        let (to, got) = channel();
        let counts = Counts::new(Spec { capacity, ..STORE });
        let queue = Queue::start(counts.clone(), Box::new(Slow { go, to })).expect("a thread");
        // The first is taken at once, and holds the sink up.
        queue.offer(Rendered::new(incident(99, State::Open)));
        while counts.waiting.load(Relaxed) != 0 {
            thread::yield_now();
        }
        (queue, counts, let_go, got)
    }

    #[test]
    fn offering_never_waits_and_what_does_not_fit_is_counted() {
        let (queue, counts, let_go, got) = slow(3);
        for number in 0..5 {
            queue.offer(Rendered::new(incident(number, State::Open)));
        }
        assert_eq!(counts.waiting.load(Relaxed), 3);
        assert_eq!(counts.discarded().collect::<Vec<_>>()[0], ("queue_full", 2));
        let_go.send(()).and_then(|()| let_go.send(())).expect("it waits");
        assert!(queue.close(Duration::from_secs(10)));
        assert_eq!(got.iter().map(|rendered| rendered.len()).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((counts.received.load(Relaxed), counts.emitted.load(Relaxed)), (6, 4));
    }

    #[test]
    fn a_newer_state_takes_the_place_of_an_update_that_waits_but_not_of_an_opening() {
        let (queue, counts, let_go, got) = slow(8);
        for state in [State::Open, State::Updated, State::Updated, State::Resolved] {
            queue.offer(Rendered::new(incident(1, state)));
        }
        let_go.send(()).and_then(|()| let_go.send(())).expect("it waits");
        assert!(queue.close(Duration::from_secs(10)));
        let rendered: Vec<State> = got.iter().skip(1).flatten().map(|(_, state)| state).collect();
        assert_eq!(rendered, [State::Open, State::Resolved]);
        assert_eq!(counts.replaced.load(Relaxed), 2);
    }

    #[test]
    fn a_sink_that_does_not_come_back_is_not_waited_for_for_ever() {
        let (queue, _, let_go, _got) = slow(8);
        assert!(!queue.close(Duration::from_millis(50)));
        drop(let_go);
        assert!(queue.close(Duration::from_secs(10)));
    }
}
