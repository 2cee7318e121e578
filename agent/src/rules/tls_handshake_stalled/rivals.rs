//! Several handshakes of one process stall at once: which operation belongs to which of them. What a
//! thread began after it had read a hello is that handshake's; what a pool or an event loop began is told
//! apart by order alone.

use std::collections::HashMap;

use ebpf_probes::probes::tls::Handshake;

use super::{
    Waiting,
    blame::{Stall, since_ns},
    suspects::Candidate,
    unread,
};

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
    ) -> Option<u64> {
        let mut coming = self.all.iter().peekable();
        let (mut free, mut served, mut operations) = (Vec::new(), Vec::new(), Vec::new());
        for operation in begun.filter(|candidate| !self.began(candidate)) {
            while let Some(rival) = coming.next_if(|rival| rival.since_ns <= operation.started_ns) {
                free.push(*rival);
            }
            if let Some(rival) = free.pop() {
                served.push(rival);
                operations.push(operation.cookie);
            }
        }
        served.sort_unstable();
        let at = served.iter().position(|rival| rival.cookie == cookie)?;
        operations.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::{
        correlate::incident::{Incident, Kind},
        enrich::context::Posture,
        rules::scene::{Scene, connect, hello, thread},
    };

    const STALLED: Kind = Kind::TlsHandshakeStalled;

    /// Two stalls of one process and what thread or event loop `threads` began for each: where blame goes.
    fn two_stalls(readers: [u32; 2], posture: Posture, begun: &[(u32, u8, u64)]) -> Vec<Option<String>> {
        let mut scene = Scene::new();
        for (at, &(thread, to, started)) in begun.iter().enumerate() {
            scene.waits(1300, connect(7 + at as u64, thread, to, started));
        }
        scene.stalls(1300, &[hello(1, readers[0], 0), hello(2, readers[1], 2)]);
        scene.sees(1301, readers.map(|tid| thread(tid, posture, &[])).to_vec());
        let named =
            |incident: &Incident| incident.cause.as_ref()?.destination.as_ref().map(|to| to.ip.to_string());
        scene.opened(STALLED).into_iter().map(named).collect()
    }

    #[test]
    fn what_a_pool_or_an_event_loop_begins_for_two_handshakes_is_told_apart_by_order() {
        let expected = ["192.0.2.64", "192.0.2.65"].map(|ip| Some(ip.to_owned()));
        // Begun in turn, and begun when both hellos had been read.
        for [first, second] in [[2, 4], [5, 6]] {
            let pool = two_stalls([43, 44], Posture::Threads, &[(50, 64, first), (51, 65, second)]);
            assert_eq!(pool, expected);
            let event_loop = two_stalls([17, 17], Posture::EventLoop, &[(17, 64, first), (17, 65, second)]);
            assert_eq!(event_loop, expected);
        }
    }

    #[test]
    fn what_another_handshake_s_thread_began_is_that_one_s() {
        let named = two_stalls([43, 44], Posture::Threads, &[(44, 64, 5)]);
        assert_eq!(named, [None, Some("192.0.2.64".to_owned())]);
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
            let began = Instant::now();
            scene.stalls(1100, &crowd);
            scene.sees(1101, vec![thread(43, posture, &[10_000])]);
            assert_eq!(scene.opened(STALLED).len(), 1, "{posture:?}");
            // A fraction of a second; the cube of its size would be minutes.
            assert!(began.elapsed() < Duration::from_secs(10), "{posture:?}: {:?}", began.elapsed());
        }
    }
}
