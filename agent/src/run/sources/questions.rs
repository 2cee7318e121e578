//! Questions for neighbours that incidents are about, where `--probe-neighbours` allows them: one to everybody on the link, seldom,
//! and a few at the same time. What answers is context, and replays like any other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use ebpf_probes::abi::{Netns, ProbeId};

use super::source::{Found, Kind, Sent, Source};
use crate::{
    claims,
    kernel::load::{Kernel, Loss},
    known::{bounded::Bounded, context::Context, request::Sought},
};

/// The same neighbour is asked for at most this often.
const EVERY: Duration = Duration::from_secs(60);
/// Two questions are at least so far apart, whomever they are for.
const APART: Duration = Duration::from_millis(200);
/// Questions that wait for their answers at the same time, at most.
const WAITING: u64 = 4;
/// Neighbours remembered that were asked for, at most.
const ASKED: usize = 1024;
/// Answers that wait to be taken, at most.
const ANSWERS: usize = 64;

/// Questions, among the sources.
pub(super) const KIND: Kind = Kind {
    open: |spec, _| {
        let allowed = spec.probe_neighbours && super::wants(spec, ProbeId::NEIGH);
        Ok(allowed.then(|| Box::new(Questions::new()) as Box<dyn Source>))
    },
};

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    unanswered: AtomicU64,
    failed: AtomicU64,
    waiting: AtomicU64,
}

struct Questions {
    asked: Bounded<(Netns, u32, [u8; 16]), Instant>,
    last: Option<Instant>,
    left_out: u64,
    counts: Arc<Counts>,
    report: SyncSender<Context>,
    answers: Receiver<Context>,
}

impl Questions {
    fn new() -> Self {
        let (report, answers) = sync_channel(ANSWERS);
        Self { asked: Bounded::new(ASKED), last: None, left_out: 0, counts: Arc::default(), report, answers }
    }

    /// Whether it may be asked for now.
    fn may(&mut self, sought: &Sought, now: Instant) -> bool {
        let key = (sought.netns, sought.ifindex, sought.address);
        let again = self.asked.get(&key).is_some_and(|at| now.duration_since(*at) < EVERY);
        let soon = self.last.is_some_and(|at| now.duration_since(at) < APART);
        if again || soon || self.counts.waiting.load(Relaxed) >= WAITING {
            self.left_out += 1;
            return false;
        }
        self.asked.insert(key, now);
        self.last = Some(now);
        true
    }
}

impl Source for Questions {
    fn ask(&mut self, sought: &Sought) {
        if !self.may(sought, Instant::now()) {
            return;
        }
        let (sought, counts, report) = (sought.clone(), self.counts.clone(), self.report.clone());
        counts.waiting.fetch_add(1, Relaxed);
        let ask = move || {
            let count = match claims::ask(&sought) {
                Ok(answered) => {
                    let count = if answered.macs.is_empty() { &counts.unanswered } else { &counts.answered };
                    let _ = report.try_send(Context::Answered(Box::new(answered)));
                    count
                }
                Err(error) => {
                    tracing::debug!("a neighbour could not be asked for: {error}");
                    &counts.failed
                }
            };
            count.fetch_add(1, Relaxed);
            counts.waiting.fetch_sub(1, Relaxed);
        };
        if thread::Builder::new().name("asks".into()).spawn(ask).is_err() {
            self.counts.waiting.fetch_sub(1, Relaxed);
            self.counts.failed.fetch_add(1, Relaxed);
        }
    }

    fn questions(&self) -> Option<Sent> {
        let of = |count: &AtomicU64| count.load(Relaxed);
        Some(Sent {
            answered: of(&self.counts.answered),
            unanswered: of(&self.counts.unanswered),
            failed: of(&self.counts.failed),
            left_out: self.left_out,
        })
    }

    fn look(&mut self, _kernel: &mut Kernel, _grown: &[Loss]) -> anyhow::Result<Found> {
        Ok(Found { contexts: self.answers.try_iter().collect(), ..Found::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_asked_for_once_a_minute_and_few_at_a_time() {
        let mut questions = Questions::new();
        let sought = |last: u8| Sought { address: [last; 16], ..Sought::default() };
        let now = Instant::now();
        assert!(questions.may(&sought(1), now));
        assert!(!questions.may(&sought(2), now + APART / 2), "too soon after another one");
        assert!(questions.may(&sought(2), now + APART));
        assert!(!questions.may(&sought(1), now + EVERY - APART));
        assert!(questions.may(&sought(1), now + EVERY));
        questions.counts.waiting.store(WAITING, Relaxed);
        assert!(!questions.may(&sought(3), now + EVERY * 2));
        assert_eq!(questions.left_out, 3);
    }
}
