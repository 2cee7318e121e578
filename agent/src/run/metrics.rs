//! What a session says of itself to a scraper: counted in passing, read from the kernel and published
//! once a second. Maps are walked by a thread of its own. Costs nothing until asked for.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ebpf_probes::probes::PROBES;

use super::Session;
use crate::{
    fact::ReferenceKind,
    kernel::{
        counters::Counters,
        load::Kernel,
        plan::Outcome,
        usage::{self, MapUsage, Maps},
    },
    metrics::{
        Metrics,
        snapshot::{Clock, Offset, Snapshot, Step},
    },
    pipeline::world::World,
    snapshot::looks_unfinished,
};

/// How often something is published.
const PUBLISH_NS: u64 = 1_000_000_000;
/// How often programs are asked about and neighbours are counted.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How many such looks go by until maps are counted again.
const MAPS_EVERY: u32 = 3;
/// Reference clocks that said nothing for longer are not compared with.
const OLD_NS: u64 = 3600 * 1_000_000_000;

/// What goes from a session to its metrics.
#[derive(Default)]
pub(super) struct Feed(Option<Live>);

struct Live {
    metrics: Arc<Metrics>,
    clock: Clock,
    published_ns: u64,
    programs: Vec<usage::ProgramUsage>,
    looked: Option<Instant>,
    accounting: Option<(OwnedFd, Instant)>,
    walked: Arc<Mutex<Walked>>,
    /// Ends the thread when it goes.
    _walker: Sender<()>,
}

/// What the thread that walks maps found last.
#[derive(Debug, Clone, Default)]
struct Walked {
    maps: Vec<MapUsage>,
    neighbours: Option<BTreeMap<(bool, u32), u64>>,
}

impl Feed {
    /// The pipeline has applied an event.
    pub(super) fn stepped(&mut self, world: &World) {
        let Some(live) = &mut self.0 else { return };
        let Some(step) = world.step() else { return };
        let delta_ns = step.delta_ns();
        if delta_ns > 0 {
            live.clock.forward += 1;
        } else {
            live.clock.back += 1;
        }
        let at_ns = i64::try_from(step.at_ns).unwrap_or(i64::MAX).saturating_add(step.after_ns);
        live.clock.last = Some(Step { delta_ns, at_ns });
    }
}

impl Session {
    /// Publishes to `metrics` from now on. `account`: has the kernel account for programs for as long as the
    /// session lasts, which costs every BPF program on the machine two clock readings a run.
    pub(super) fn feed(&mut self, metrics: Arc<Metrics>, account: bool) -> anyhow::Result<()> {
        let accounting = account
            .then(usage::enable_stats)
            .transpose()
            .context("having the kernel account for programs (BPF_ENABLE_STATS wants CAP_SYS_ADMIN)")?;
        let walked = Arc::new(Mutex::new(Walked::default()));
        let walker = walk(Maps::open(&self.sources.kernel), walked.clone()).context("starting a thread")?;
        self.feed = Feed(Some(Live {
            metrics,
            clock: Clock::default(),
            published_ns: 0,
            programs: Vec::new(),
            looked: None,
            accounting: accounting.map(|held| (held, Instant::now())),
            walked,
            _walker: walker,
        }));
        Ok(())
    }

    /// Once a second, what there is to say.
    pub(super) fn publish(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let Some(live) = &mut self.feed.0 else { return Ok(()) };
        if live.published_ns != 0 && now_ns.saturating_sub(live.published_ns) < PUBLISH_NS {
            return Ok(());
        }
        live.published_ns = now_ns;
        if live.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            live.looked = Some(Instant::now());
            live.programs = usage::programs(&self.sources.kernel);
        }
        let seen = self.sources.sweep.seen();
        let mut counters = Counters::read(&self.sources.kernel)?;
        counters.add_given_up(seen.given_up);
        live.clock.offsets = offsets(self.pipeline.world(), now_ns);
        let walked = live.walked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hooks = self.sources.kernel.hooks.iter();
        live.metrics.publish(Snapshot {
            counters,
            seen,
            asked: asked(&self.sources.kernel),
            attached: self.start.probes.attached.clone(),
            hooks: hooks.map(|hook| (hook.hook.program, hook.outcome == Outcome::Attached)).collect(),
            received: self.sources.received.clone(),
            losses: self.sources.losses.clone(),
            tables: self.pipeline.tables(),
            looks_unfinished: looks_unfinished(),
            claims: self.sources.claims(),
            questions: self
                .sources
                .questions()
                .map(|sent| [sent.answered, sent.unanswered, sent.failed, sent.left_out]),
            clock: live.clock.clone(),
            neighbours: walked.neighbours,
            programs: live.programs.clone(),
            accounted: live.accounting.as_ref().map(|(_, since)| since.elapsed()),
            maps: walked.maps,
        });
        Ok(())
    }
}

/// Probes with anything to attach.
fn asked(kernel: &Kernel) -> Vec<&'static str> {
    let planned = |id| kernel.hooks.iter().any(|planned| planned.probes.contains(&id));
    PROBES.iter().filter(|probe| planned(probe.id)).map(|probe| probe.name).collect()
}

/// How far the wall clock is ahead, by kind of reference clock: what the most exact one said last.
fn offsets(world: &World, now_ns: u64) -> BTreeMap<ReferenceKind, Offset> {
    let wall_ns = world.offset_ns();
    let mut best: BTreeMap<ReferenceKind, (u64, u64, i64)> = BTreeMap::new();
    for ((kind, _), readings) in world.references().all() {
        let Some(last) = readings.back() else { continue };
        let age_ns = now_ns.saturating_sub(last.boot_ns);
        let reading = (last.error_ns, age_ns, last.utc_ns);
        if age_ns <= OLD_NS && best.get(kind).is_none_or(|known| reading < *known) {
            best.insert(*kind, reading);
        }
    }
    let offset = |(error_ns, _, utc_ns)| Offset { ahead_ns: wall_ns.saturating_sub(utc_ns), error_ns };
    best.into_iter().map(|(kind, reading)| (kind, offset(reading))).collect()
}

/// Walks maps now and then, until what it returns goes.
fn walk(maps: Maps, to: Arc<Mutex<Walked>>) -> io::Result<Sender<()>> {
    let (end, ended) = channel();
    let mut looks: u32 = 0;
    let look = move || {
        loop {
            let mut neighbours = BTreeMap::new();
            for (kind, count) in maps.neighbours() {
                *neighbours.entry((kind.v6, kind.state)).or_default() += count;
            }
            let counted = looks.is_multiple_of(MAPS_EVERY).then(|| maps.measure());
            looks = looks.wrapping_add(1);
            {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.neighbours = Some(neighbours);
                if let Some(counted) = counted {
                    to.maps = counted;
                }
            }
            if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    thread::Builder::new().name("maps".into()).spawn(look).map(|_| end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND_NS;
    use crate::{fact::Reading, known::context::Context};

    fn reading(kind: ReferenceKind, name: &str, at_s: u64, utc_ns: i64, error_ns: u64) -> Context {
        Context::Reference(Reading { boot_ns: at_s * SECOND_NS, kind, name: name.into(), utc_ns, error_ns })
    }

    #[test]
    fn of_several_clocks_of_a_kind_the_most_exact_is_compared_with_and_an_old_reading_is_not() {
        let mut world = World::default();
        world.apply_context(&Context::Clock { boot_ns: 0, offset_ns: 5_000 });
        for context in [
            reading(ReferenceKind::Http, "a", 4000, 1_000, 90),
            reading(ReferenceKind::Http, "b", 4000, 7_000, 50),
            reading(ReferenceKind::Rtc, "rtc0", 10, 5_000, 20),
        ] {
            world.apply_context(&context);
        }
        let http = Offset { ahead_ns: -2_000, error_ns: 50 };
        assert_eq!(offsets(&world, 4001 * SECOND_NS), BTreeMap::from([(ReferenceKind::Http, http)]));
        assert_eq!(
            offsets(&world, 20 * SECOND_NS)[&ReferenceKind::Rtc],
            Offset { ahead_ns: 0, error_ns: 20 }
        );
    }
}
