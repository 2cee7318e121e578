//! One session: what the sources give goes through the pipeline, what comes of it goes to the outputs. One task, one
//! direction.

use std::{
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    command::Command,
    end::{Received, Signals, exit_code, until},
    metrics::Feed,
    sources::{Sources, clocks::next_answer},
};
use crate::{
    config,
    domains::decode,
    fact::{Start, Summary},
    known::context::Context,
    outputs::{Hangup, Output, SoFar, printer::closing_line},
    pipeline::incident::Incident,
    pipeline::{Item, Pipeline},
    records,
    time::boot_ns,
};

/// How often the ring is looked at when the kernel does not wake us first.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// How often what is pending is looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// A session, built: everything is attached, nothing has been emitted yet.
pub(super) struct Session {
    pub(super) sources: Sources,
    pub(super) pipeline: Pipeline,
    pub(super) feed: Feed,
    pub(super) start: Start,
    /// The machine and what was asked for: the first context.
    pub(super) origin: Context,
    pub(super) began: Instant,
    pub(super) max_events: Option<u64>,
    outputs: Vec<Box<dyn Output>>,
    /// One of them answers a question: what happened by itself is of no interest.
    pub(super) answers: bool,
    counts: Counts,
    /// The first thing that went wrong with an output or a source.
    failure: Option<anyhow::Error>,
}

/// What has come by.
#[derive(Default)]
struct Counts {
    records: u64,
    facts: u64,
    undecodable: u64,
    undecodable_why: Option<records::Error>,
}

impl Session {
    pub(super) fn new(
        sources: Sources,
        pipeline: Pipeline,
        start: Start,
        origin: Context,
        max_events: Option<u64>,
    ) -> Self {
        Self {
            sources,
            pipeline,
            feed: Feed::default(),
            start,
            origin,
            began: Instant::now(),
            max_events,
            outputs: Vec::new(),
            answers: false,
            counts: Counts::default(),
            failure: None,
        }
    }

    /// What the first line says.
    pub(super) fn start(&self) -> &Start {
        &self.start
    }

    /// Adds an output.
    pub(super) fn emit_to(&mut self, output: Box<dyn Output>) {
        self.outputs.push(output);
    }

    /// Runs until something ends it; then, however it ended, drains. `doing`: what is said of it when it begins.
    pub(super) async fn run(
        mut self,
        config: &config::Session,
        doing: Option<&str>,
    ) -> anyhow::Result<ExitCode> {
        let watched = self.watch(config, doing).await;
        let drained = self.drain();
        let status = watched?;
        drained?;
        Ok(status.map_or(ExitCode::SUCCESS, exit_code))
    }

    /// Watches until something ends it; the status of the command, if one was run to its end.
    async fn watch(
        &mut self,
        config: &config::Session,
        doing: Option<&str>,
    ) -> anyhow::Result<Option<ExitStatus>> {
        let (mut signals, mut command) = self.begin(config, doing)?;
        let mut drain_tick = ticker(DRAIN_EVERY);
        let mut sweep_tick = ticker(SWEEP_EVERY);
        let mut second_tick = ticker(Duration::from_secs(1));
        let end = config.duration.map(|after| self.began + after);
        loop {
            tokio::select! {
                woken = self.sources.ring.woken() => woken.context("waiting for the ring")?,
                _ = drain_tick.tick() => {}
                _ = sweep_tick.tick() => self.look_around()?,
                answer = next_answer(self.sources.references.as_mut()) => {
                    if let Some(context) = self.sources.answered(answer) {
                        self.apply(&context);
                    }
                }
                _ = second_tick.tick() => self.every_second()?,
                signal = signals.next() => {
                    if signal == Received::End || self.hangup() {
                        break;
                    }
                }
                () = until(end) => break,
                exited = command.exited() => {
                    exited.context("waiting for the command")?;
                    break;
                }
            }
            if self.take_ring()? {
                break;
            }
        }
        command.end().await;
        loop {
            let before = self.counts.records;
            if self.enough() || self.take_ring()? || self.counts.records == before {
                return Ok(command.status());
            }
        }
    }

    /// Applies what is known at the start, emits the first line, starts the command.
    fn begin(&mut self, config: &config::Session, doing: Option<&str>) -> anyhow::Result<(Signals, Command)> {
        let origin = self.origin.clone();
        self.apply(&origin);
        for context in self.sources.at_start()? {
            self.apply(&context);
        }
        // Before the first line, which says that one may interrupt.
        let signals = Signals::new()?;
        self.announce(doing)?;
        let command = Command::start(&config.command)?;
        if let Some(pid) = command.id() {
            self.sources.follow(pid)?;
        }
        Ok((signals, command))
    }

    fn announce(&mut self, doing: Option<&str>) -> anyhow::Result<()> {
        for degraded in &self.start.probes.degraded {
            tracing::warn!("{} sees less: {}", degraded.probe, degraded.why);
        }
        if let Some(doing) = doing {
            tracing::info!("{doing} {}; ^C ends", self.start.probes.attached.join(", "));
        }
        for caveat in self.sources.caveats() {
            tracing::warn!("{caveat}");
        }
        self.outputs.iter_mut().try_for_each(|output| output.start(&self.start))
    }

    /// Takes what is in the ring; `true`: enough was seen.
    fn take_ring(&mut self) -> anyhow::Result<bool> {
        let records = self.sources.in_ring();
        self.take_all(&records)
    }

    /// `true`: enough was seen.
    fn take_all(&mut self, records: &[Bytes]) -> anyhow::Result<bool> {
        for record in records {
            self.take(record);
            if self.enough() {
                return Ok(true);
            }
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.outputs.iter_mut().try_for_each(|output| output.flush())?;
        Ok(self.enough())
    }

    /// No output wants more, or as many events as were asked for were emitted.
    fn enough(&self) -> bool {
        self.outputs.iter().any(|output| output.done()) || self.is_full()
    }

    fn is_full(&self) -> bool {
        self.max_events.is_some_and(|limit| self.counts.facts >= limit)
    }

    /// One record, from the kernel or from us.
    fn take(&mut self, record: &Bytes) {
        self.counts.records += 1;
        let event = match decode(record) {
            Ok(event) => event,
            Err(why) => {
                self.counts.undecodable += 1;
                self.counts.undecodable_why = Some(why);
                return;
            }
        };
        let (contexts, result) = self.sources.before(&event);
        self.check(result);
        for context in contexts {
            self.apply(&context);
        }
        self.emit(|output| output.record(record));
        let step = self.pipeline.step(Item::Event(&event));
        // What is recorded is recorded whole: a replay gives all facts of its last step.
        let whole = self.outputs.iter().any(|output| output.takes_whole_steps());
        for fact in &step.facts {
            if !whole && self.is_full() {
                break;
            }
            self.counts.facts += 1;
            self.emit(|output| output.fact(fact));
        }
        self.feed.stepped(self.pipeline.world());
        self.emit_incidents(&step.incidents);
        for request in &step.requests {
            match self.sources.answer(request) {
                Ok(contexts) => contexts.iter().for_each(|context| self.apply(context)),
                Err(error) => self.check(Err(error)),
            }
        }
    }

    /// Applies something that was found out about the system.
    fn apply(&mut self, context: &Context) {
        self.emit(|output| output.context(context));
        let step = self.pipeline.step(Item::Context(context));
        self.emit_incidents(&step.incidents);
    }

    fn emit_incidents(&mut self, incidents: &[Incident]) {
        if !incidents.is_empty() {
            self.emit(|output| output.incidents(incidents));
        }
    }

    /// Every output gets it, whatever goes wrong with another.
    fn emit(&mut self, to: impl Fn(&mut dyn Output) -> anyhow::Result<()>) {
        for output in &mut self.outputs {
            if let Err(error) = to(output.as_mut()) {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn check(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    /// What the kernel does not say by itself: what is pending, what was lost, that time passed.
    fn look_around(&mut self) -> anyhow::Result<()> {
        let now = boot_ns();
        let seen = self.sources.look(now)?;
        for context in &seen.contexts {
            self.apply(context);
        }
        for batch in self.sources.in_order(seen, now) {
            self.take_all(&batch)?;
        }
        let world = self.pipeline.world();
        self.outputs.iter_mut().for_each(|output| output.show(world, now));
        self.publish(now)
    }

    fn so_far(&self) -> SoFar {
        SoFar { elapsed: self.began.elapsed(), events: self.counts.facts, incidents: self.pipeline.opened() }
    }

    fn every_second(&mut self) -> anyhow::Result<()> {
        let so_far = self.so_far();
        self.outputs.iter_mut().try_for_each(|output| output.every_second(&so_far))
    }

    /// SIGHUP: `true` ends the session, unless some output reads its configuration again.
    fn hangup(&mut self) -> bool {
        let mut ends = true;
        for output in &mut self.outputs {
            match output.hangup() {
                Hangup::Ends => {}
                Hangup::Stays => ends = false,
                Hangup::Changes(config) => {
                    ends = false;
                    self.sources.reconfigure(&config);
                }
            }
        }
        ends
    }

    /// The end: what is pending is looked at once more, incidents that are over resolve, outputs finish.
    fn drain(mut self) -> anyhow::Result<()> {
        // Whatever goes wrong now, what was collected is shown or saved.
        let looked = self.look_around();
        self.check(looked);
        let incidents = self.pipeline.finish();
        self.emit_incidents(&incidents);
        let SoFar { elapsed, events, incidents } = self.so_far();
        let summary = Summary::new(
            events,
            incidents,
            self.pipeline.world().known.losses().to_vec(),
            self.counts.undecodable,
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        );
        self.emit(|output| output.finish(&summary));
        if let Some(why) = self.counts.undecodable_why {
            let undecodable = self.counts.undecodable;
            tracing::warn!("{undecodable} records could not be decoded, the last because of {why}");
        }
        // An answer stands for itself, unless something was lost.
        if !self.answers || summary.lost > 0 {
            if events == 0 && self.sources.filters() {
                tracing::warn!("nothing that happened passed the filters");
            }
            tracing::info!("{}", closing_line(&summary));
        }
        self.failure.map_or(Ok(()), Err)
    }
}

fn ticker(every: Duration) -> tokio::time::Interval {
    let mut ticker = interval(every);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
