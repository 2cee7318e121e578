//! Several handshakes of one process stall at once: which operation belongs to which of them. What a
//! thread began after it had read a hello is that handshake's; what a pool or an event loop began is known
//! apart by order alone.

use std::collections::HashMap;

use ebpf_probes::probes::tls::Handshake;

use super::{
    candidates::Candidate,
    stall::{Stall, Waiting, since_ns, unread},
};

/// Hellos read within this long of each other are served in any order.
const NEAR_NS: u64 = 50_000_000;

/// A stalled handshake of the same process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rival {
    since_ns: u64,
    cookie: u64,
    thread: u32,
}

/// The stalled handshakes of a process, the one in question among them, in the order of their reading.
pub(super) struct Rivals {
    own_thread: u32,
    all: Vec<Rival>,
    /// Their threads, and since when each owes something.
    threads: HashMap<u32, u64>,
}

impl Rivals {
    pub(super) fn of(stall: &Stall<'_>) -> Self {
        let reader = stall.hs.reader;
        let rival =
            |hs: &Handshake| Rival { since_ns: since_ns(hs), cookie: hs.cookie, thread: hs.reader.thread };
        let others =
            stall.stalled.values().map(|waiting: &Waiting| &waiting.hs).filter(|hs| {
                hs.cookie != stall.hs.cookie && hs.reader.process == reader.process && !unread(hs)
            });
        let mut all: Vec<Rival> = others.map(rival).collect();
        all.push(rival(stall.hs));
        all.sort_unstable();
        // The first reading of each thread stays: it comes last.
        let threads = all.iter().rev().map(|rival| (rival.thread, rival.since_ns)).collect();
        Self { own_thread: reader.thread, all, threads }
    }

    /// Another handshake's thread began it, after it had read that one's hello.
    pub(super) fn began(&self, candidate: &Candidate<'_>) -> bool {
        candidate.owner().is_some_and(|owner| {
            owner.thread != self.own_thread
                && self.threads.get(&owner.thread).is_some_and(|since| *since <= candidate.started_ns)
        })
    }

    /// The operation that is this handshake's: each belongs to the hello read last before it that has none
    /// yet, and among those hellos, first come is first served. `begun` is in order of beginning.
    pub(super) fn pair<'c, 'a: 'c>(
        &self,
        cookie: u64,
        begun: impl Iterator<Item = &'c Candidate<'a>>,
    ) -> Option<Paired> {
        let mut coming = self.all.iter().peekable();
        let (mut free, mut served, mut operations) = (Vec::new(), Vec::new(), Vec::new());
        for operation in begun.filter(|candidate| !self.began(candidate)) {
            while let Some(rival) = coming.next_if(|rival| rival.since_ns <= operation.started_ns) {
                free.push(*rival);
            }
            if let Some(rival) = free.pop() {
                served.push(rival);
                operations.push(operation);
            }
        }
        served.sort_unstable();
        let at = served.iter().position(|rival| rival.cookie == cookie)?;
        let (own, operation) = (served.get(at)?, operations.get(at)?);
        let mixed = served.iter().zip(&operations).any(|(rival, other)| {
            rival.since_ns.abs_diff(own.since_ns) <= NEAR_NS
                && rival.since_ns <= operation.started_ns
                && own.since_ns <= other.started_ns
                && !other.is_like(operation)
        });
        Some(Paired { cookie: operation.cookie, mixed })
    }
}

/// Which operation is a handshake's.
pub(super) struct Paired {
    pub(super) cookie: u64,
    /// It could as well be another's, who has one to another end: both hellos had been read when both began.
    pub(super) mixed: bool,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use crate::{
        known::context::Posture,
        pipeline::incident::{Confidence, Details, Incident, Kind},
        rules::scene::{Scene, connect, hello, thread},
    };

    const STALLED: Kind = Kind::TlsHandshakeStalled;

    /// What this thread has worked so far: how busy the machine is otherwise is no matter.
    fn worked() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// Two stalls of one process and what thread or event loop began for each.
    fn two_stalls(readers: [u32; 2], posture: Posture, begun: &[(u32, u8, u64)]) -> Scene {
        let mut scene = Scene::new();
        for (at, &(thread, to, started)) in begun.iter().enumerate() {
            scene.waits(1300, connect(7 + at as u64, thread, to, started));
        }
        scene.stalls(1300, &[hello(1, readers[0], 0), hello(2, readers[1], 2)]);
        scene.sees(1301, readers.map(|tid| thread(tid, posture, &[])).to_vec());
        scene
    }

    /// Where blame goes, and how surely.
    fn named(scene: &Scene) -> Vec<(Option<String>, Confidence)> {
        let cause = |incident: &&Incident| {
            let cause = incident.cause.as_ref().expect("every incident has one here");
            (cause.destination.as_ref().map(|to| to.ip.to_string()), cause.confidence)
        };
        scene.opened(STALLED).iter().map(cause).collect()
    }

    #[test]
    fn what_a_pool_or_an_event_loop_begins_for_two_handshakes_is_distinguished_by_order() {
        for (readers, posture, workers) in
            [([43, 44], Posture::Threads, [50, 51]), ([17, 17], Posture::EventLoop, [17, 17])]
        {
            // Begun in turn; begun when both hellos had been read; to the same end.
            for (starts, to, confidence) in [
                ([2, 4], [64, 65], Confidence::Likely),
                ([5, 6], [64, 65], Confidence::Possible),
                ([5, 6], [64, 64], Confidence::Likely),
            ] {
                let begun = [0, 1].map(|at| (workers[at], to[at], starts[at]));
                let mut expected = to.map(|to| (Some(format!("192.0.2.{to}")), confidence)).to_vec();
                expected.dedup();
                assert_eq!(named(&two_stalls(readers, posture, &begun)), expected, "{starts:?} {to:?}");
            }
        }
    }

    #[test]
    fn what_ends_with_a_handshake_was_that_one_s_whatever_the_order_was() {
        let mut scene = two_stalls([43, 44], Posture::Threads, &[(50, 64, 5), (51, 65, 6)]);
        // The other way round than thought.
        scene.gives_up(2500, connect(7, 50, 64, 5));
        scene.moves(2501, hello(2, 44, 2));
        scene.gives_up(2540, connect(8, 51, 65, 6));
        scene.moves(2541, hello(1, 43, 0));
        scene.ends();
        let last = |port: u16| {
            let of = |emitted: &&Incident| matches!(&emitted.details, Details::TlsHandshakeStalled(at) if at.peer.port == port);
            let cause =
                scene.emitted.iter().rfind(of).and_then(|emitted| emitted.cause.clone()).expect("emitted");
            (cause.destination.map(|to| to.ip.to_string()), cause.confidence)
        };
        assert_eq!(last(50_001), (Some("192.0.2.65".into()), Confidence::Certain));
        assert_eq!(last(50_002), (Some("192.0.2.64".into()), Confidence::Certain));
    }

    #[test]
    fn what_another_handshake_s_thread_began_is_that_one_s() {
        let named = named(&two_stalls([43, 44], Posture::Threads, &[(44, 64, 5)]));
        assert_eq!(named.iter().map(|(to, _)| to.as_deref()).collect::<Vec<_>>(), [None, Some("192.0.2.64")]);
    }

    #[test]
    fn a_crowd_is_judged_in_no_more_than_the_square_of_its_size() {
        const CROWD: u32 = 1000;
        for (posture, worker) in [(Posture::Descriptors, 43), (Posture::Threads, 90_000)] {
            let mut scene = Scene::new();
            for number in 0..CROWD {
                scene.waits(1100, connect(10_000 + u64::from(number), worker + number, 64, 5));
            }
            let crowd: Vec<_> =
                (0..CROWD).map(|number| hello(1 + u64::from(number), 43 + number, 0)).collect();
            let began = worked();
            scene.stalls(1100, &crowd);
            scene.sees(1101, vec![thread(43, posture, &[10_000])]);
            assert_eq!(scene.opened(STALLED).len(), 1, "{posture:?}");
            // A fraction of a second; the cube of its size would be minutes.
            let took = worked().saturating_sub(began);
            assert!(took < Duration::from_secs(10), "{posture:?}: {took:?}");
        }
    }
}
