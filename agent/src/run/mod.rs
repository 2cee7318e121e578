//! A live session: kernel → ring → decode → enrich → output or recording, until something ends it.
//! One task, one direction, nothing clever.

mod attach;
mod clocks;
pub mod daemon;
mod end;
mod metrics;
mod neighbours;
mod ways;

use std::{
    ffi::OsString,
    io::Write,
    path::Path,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use crate::time::{boot_ns, realtime_ns};
use anyhow::Context as _;
use bytes::Bytes;
use ebpf_probes::abi::{Header, Kind, LostRecord, ProbeId, Stat};
use end::{Signals, end_command, exit_code, exit_of, until};
use tokio::{
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    clockwatch::Clockwatch,
    config,
    correlate::{Look, incident::Incident},
    enrich::{context::Context, observe::Observer},
    event::{self, encode},
    fact::{LeapKind, Start, Summary},
    kernel::{
        load::{Kernel, Loss},
        plan::Request,
        ring::Drain,
        sweep::Sweep,
    },
    network,
    output::{self, Printer, closing_line},
    pipeline::{Item, Pipeline},
    record, reference, snapshot,
    terminal::progress::Progress,
    top::{self, Top},
};

/// How often the ring is looked at when the kernel does not wake us first.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// How often what is pending is looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// How often a recording reaches the disk at the latest.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// `culprit trace`.
pub async fn trace(config: &config::Session, output: &config::Output) -> anyhow::Result<ExitCode> {
    let printer = Printer::open(output)?;
    let waiting = Progress::spinner("attaching", output.verbose);
    let mut session = Session::attach(config)?;
    drop(waiting);
    session.printer = Some(printer);
    session.run(config).await
}

/// `culprit top`.
pub async fn top(config: &config::Session, colour: config::Colour) -> anyhow::Result<ExitCode> {
    top::check()?;
    let mut session = Session::attach(config)?;
    session.view = Some(Top::start(&session.start, colour)?);
    session.run(config).await
}

/// `culprit record`.
pub async fn record(config: &config::Session, file: &Path, force: bool) -> anyhow::Result<ExitCode> {
    let waiting = Progress::spinner("attaching", false);
    let mut session = Session::attach(config)?;
    drop(waiting);
    session.writer = Some(session.create(file, force)?);
    // A command may write to the same terminal.
    session.progress = config.command.is_empty().then(|| Progress::spinner("recording", false));
    session.run(config).await
}

struct Session {
    request: Request,
    kernel: Kernel,
    drain: Drain,
    pipeline: Pipeline,
    observer: Observer,
    sweep: Sweep,
    clocks: Option<Clockwatch>,
    references: Option<reference::Watch>,
    ways: ways::Ways,
    /// What the kernel said last of leap seconds: what is armed, and TAI − UTC.
    leap_seconds: Option<(Option<LeapKind>, i32)>,
    printer: Option<Printer>,
    view: Option<Top>,
    service: Option<daemon::Service>,
    writer: Option<record::Writer<Box<dyn Write>>>,
    /// Shows that it is alive where nothing else does.
    progress: Option<Progress>,
    origin: Context,
    start: Start,
    known_losses: Vec<Loss>,
    undecodable: u64,
    undecodable_why: Option<event::Error>,
    records: u64,
    /// Facts told.
    told: u64,
    began: Instant,
    max_events: Option<u64>,
    failure: Option<anyhow::Error>,
    tables: neighbours::Tables,
    feed: metrics::Feed,
}

impl Session {
    /// Whatever ends the session, and however: what was collected is shown or saved, and the last line
    /// is written.
    async fn run(mut self, config: &config::Session) -> anyhow::Result<ExitCode> {
        let watched = self.watch(config).await;
        let finished = self.finish();
        let status = watched?;
        finished?;
        Ok(status.map_or(ExitCode::SUCCESS, exit_code))
    }

    /// Watches until something ends it; the status of the command, if one was run to its end.
    async fn watch(&mut self, config: &config::Session) -> anyhow::Result<Option<ExitStatus>> {
        let origin = self.origin.clone();
        self.learn(&origin);
        self.learn(&Context::Clock { boot_ns: boot_ns(), offset_ns: realtime_ns() - boot_ns() as i64 });
        if self.clocks.is_some()
            && let Some((name, utc_ns)) = reference::built::built()
        {
            self.learn(&Context::Built { name, utc_ns });
        }
        if wants(&self.request, ProbeId::Neigh) {
            self.learn_neighbours()?;
        }
        // Before the first line, which says that one may interrupt.
        let mut interrupts = Signals::new()?;
        self.announce()?;
        let mut child = match config.command.split_first() {
            Some((program, args)) => Some(self.spawn(program, args)?),
            None => None,
        };
        let mut drain_tick = ticker(DRAIN_EVERY);
        let mut sweep_tick = ticker(SWEEP_EVERY);
        let mut save_tick = ticker(SAVE_EVERY);
        let end = config.duration.map(|after| self.began + after);
        let mut status: Option<ExitStatus> = None;
        loop {
            tokio::select! {
                woken = self.drain.woken() => woken.context("waiting for the ring")?,
                _ = drain_tick.tick() => {}
                _ = sweep_tick.tick() => self.look_around()?,
                answer = clocks::answer(self.references.as_mut()) => self.take_answer(answer),
                _ = save_tick.tick() => {
                    self.save()?;
                    self.show_progress();
                    self.show_state();
                }
                hangup = interrupts.any() => match &self.service {
                    Some(_) if hangup => self.reload(),
                    _ => break,
                },
                () = until(end) => break,
                () = quits(self.view.as_ref()) => break,
                exited = exit_of(child.as_mut()) => {
                    status = Some(exited.context("waiting for the command")?);
                    break;
                }
            }
            if self.drain()? {
                break;
            }
        }
        if let Some(child) = child.as_mut()
            && status.is_none()
        {
            end_command(child).await;
        }
        self.drain_rest()?;
        Ok(status)
    }

    fn announce(&mut self) -> anyhow::Result<()> {
        for degraded in &self.start.probes.degraded {
            tracing::warn!("{} sees less: {}", degraded.probe, degraded.why);
        }
        let attached = self.start.probes.attached.join(", ");
        let doing = match (&self.writer, self.request.quiet) {
            (Some(_), _) => "recording",
            (None, true) => "watching",
            (None, false) => "tracing",
        };
        if self.view.is_none() {
            tracing::info!("{doing} {attached}; ^C ends");
        }
        for caveat in self.observer.caveats() {
            tracing::warn!("{caveat}");
        }
        match (&mut self.printer, &mut self.service) {
            (Some(printer), _) => printer.start(self.start.clone()),
            (None, Some(service)) => service.announce(self.start.clone()),
            (None, None) => Ok(()),
        }
    }

    fn spawn(&mut self, program: &OsString, args: &[OsString]) -> anyhow::Result<Child> {
        let child = Command::new(program)
            .args(args)
            .spawn()
            .with_context(|| format!("{}: cannot be started", program.to_string_lossy()))?;
        if let Some(pid) = child.id() {
            self.kernel.follow(pid)?;
            self.observer.follow(pid);
        }
        Ok(child)
    }

    /// `true`: enough was seen.
    fn drain(&mut self) -> anyhow::Result<bool> {
        let taken = self.in_ring();
        self.take_all(taken)
    }

    /// What the ring holds.
    fn in_ring(&mut self) -> Vec<Bytes> {
        let mut taken: Vec<Bytes> = Vec::new();
        let feed = &mut self.feed;
        self.drain.take(|record| {
            feed.received(record);
            taken.push(trimmed(record));
        });
        taken
    }

    /// `true`: enough was seen.
    fn take_all(&mut self, records: Vec<Bytes>) -> anyhow::Result<bool> {
        for record in records {
            self.take(&record);
            if self.enough() {
                return Ok(true);
            }
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if let Some(printer) = &mut self.printer {
            printer.flush()?;
        }
        Ok(self.enough())
    }

    fn drain_rest(&mut self) -> anyhow::Result<()> {
        loop {
            let before = self.records;
            if self.enough() || self.drain()? || self.records == before {
                return Ok(());
            }
        }
    }

    /// The reader is gone, or has got as many events as were asked for.
    fn enough(&self) -> bool {
        self.printer.as_ref().is_some_and(Printer::gone)
            || self.service.as_ref().is_some_and(daemon::Service::gone)
            || self.max_events.is_some_and(|limit| self.told >= limit)
    }

    /// One record, from the kernel or from us.
    fn take(&mut self, record: &Bytes) {
        self.records += 1;
        let event = match event::decode(record) {
            Ok(event) => event,
            Err(why) => {
                self.undecodable += 1;
                self.undecodable_why = Some(why);
                return;
            }
        };
        let mut learnt = Vec::new();
        self.observer.before(&event, |context| learnt.push(context));
        for context in learnt {
            self.learn(&context);
        }
        for (cgroup, wanted) in self.observer.verdicts() {
            if let Err(error) = self.kernel.judge(cgroup, wanted) {
                self.failure.get_or_insert(error.into());
            }
        }
        if let event::What::HttpDate(record) = &event.what
            && let Some(way) = self.ways.look(record)
        {
            self.learn(&way);
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.record(record)
        {
            self.failure.get_or_insert(anyhow::Error::from(error).context("writing the recording"));
        }
        let step = self.pipeline.step(Item::Event(&event));
        for fact in step.facts {
            // What is recorded is recorded whole: a replay tells all of it.
            if self.writer.is_none() && self.max_events.is_some_and(|limit| self.told >= limit) {
                break;
            }
            self.told += 1;
            if let Some(view) = &mut self.view {
                view.fact(&fact);
            }
            if let Some(Err(error)) = self.printer.as_mut().map(|printer| printer.fact(fact)) {
                self.failure.get_or_insert(error);
            }
        }
        self.feed.told(self.pipeline.world());
        self.print(step.incidents);
        for look in step.requests {
            match look {
                Look::Process(whom) => {
                    self.learn(&Context::Snapshot(Box::new(snapshot::take(whom, boot_ns()))));
                }
                Look::Network(netns) => self.look_at_network(netns),
                Look::Holders(sought) => self.look_for_holders(&sought),
                Look::Sessions(until_ns) => {
                    if let Err(error) = self.kernel.tell_sessions(until_ns) {
                        self.failure.get_or_insert(error.into());
                    }
                }
                Look::Exposed(request) => self.look_for_exposed(&request),
                Look::References => {
                    if let Some(references) = &self.references {
                        references.ask_now();
                    }
                }
                Look::Reach(target) => {
                    self.learn(&Context::Reach(Box::new(network::reach(&target, boot_ns()))));
                }
                Look::Tables(netns) => {
                    self.learn(&Context::Network(Box::new(network::tables(netns, boot_ns()))));
                }
            }
        }
    }

    fn print(&mut self, incidents: Vec<Incident>) {
        self.feed.incidents(&incidents);
        if let Some(service) = &self.service {
            return service.tell(incidents);
        }
        if let Some(view) = &mut self.view {
            return view.incidents(incidents);
        }
        let Some(printer) = &mut self.printer else { return };
        if let Err(error) = printer.incidents(incidents) {
            self.failure.get_or_insert(error);
        }
    }

    fn learn(&mut self, context: &Context) {
        if let Some(writer) = &mut self.writer {
            let result = serde_json::to_vec(context)
                .map_err(anyhow::Error::from)
                .and_then(|bytes| writer.context(&bytes).map_err(anyhow::Error::from));
            if let Err(error) = result {
                self.failure.get_or_insert(error.context("writing the recording"));
            }
        }
        let step = self.pipeline.step(Item::Context(context));
        self.print(step.incidents);
    }

    /// What the kernel does not tell by itself: what is pending, what was lost, that time passed.
    fn look_around(&mut self) -> anyhow::Result<()> {
        let now = boot_ns();
        let mut records = Vec::new();
        let counted = self.kernel.losses()?;
        let missed = counted.iter().any(|loss| loss.probe == ProbeId::Connect && loss.stat == Stat::Missed);
        self.sweep.sweep(&mut self.kernel, now, missed, |record| records.push(record))?;
        let mut losses = Vec::new();
        let mut blind = false;
        for loss in counted {
            let known = self
                .known_losses
                .iter_mut()
                .find(|known| known.probe == loss.probe && known.stat == loss.stat);
            let grown = match known {
                Some(known) => {
                    let grown = loss.count - known.count;
                    known.count = loss.count;
                    grown
                }
                None => {
                    self.known_losses.push(loss);
                    loss.count
                }
            };
            blind |= grown > 0 && loss.probe == ProbeId::Neigh;
            if grown > 0 {
                losses.push(encode(LostRecord {
                    header: header::<LostRecord>(Kind::Lost, now),
                    probe: loss.probe as u32,
                    stat: loss.stat as u32,
                    count: grown,
                }));
            }
        }
        self.read_neighbours_again(blind)?;
        records.push(encode(header::<Header>(Kind::Tick, now)));
        let clocks = self.look_at_clocks();
        // What is in the ring from before `now` happened before what we saw; the rest after it: a connect that
        // was seen waiting may have ended since. What was lost comes first: it weakens what is concluded from the
        // rest. Who set the clock explains what the look at it found.
        let (before, after): (Vec<Bytes>, Vec<Bytes>) = self.in_ring().into_iter().partition(|record| {
            number(record, 0) <= now || number(record, 8) as u32 == Kind::ClockSet as u32
        });
        for batch in [losses, before, clocks, records, after] {
            self.take_all(batch)?;
        }
        if let Some(view) = &mut self.view {
            view.show(self.pipeline.world(), now);
        }
        self.publish(now)
    }

    fn show_progress(&self) {
        if let Some(progress) = &self.progress {
            let (seconds, events) = (self.began.elapsed().as_secs(), self.told);
            let incidents = output::count_of_incidents(self.pipeline.opened());
            progress.say(format!("recording for {seconds} s: {events} events, {incidents}"));
        }
    }

    fn save(&mut self) -> anyhow::Result<()> {
        match &mut self.writer {
            Some(writer) => writer.flush().context("writing the recording"),
            None => Ok(()),
        }
    }

    /// Whether anything was asked for but a choice of probes.
    fn filters(&self) -> bool {
        let request = &self.request;
        request.by_owner()
            || !request.destinations.is_empty()
            || !request.ports.is_empty()
            || request.family.is_some()
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.progress = None;
        self.look_around()?;
        let incidents = self.pipeline.finish();
        self.print(incidents);
        let summary = Summary::new(
            self.told,
            self.pipeline.opened(),
            self.pipeline.world().losses().to_vec(),
            self.undecodable,
            u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        );
        if let Some(view) = &mut self.view {
            view.close()?;
        }
        if let Some(printer) = &mut self.printer {
            printer.finish(&summary)?;
        }
        if let Some(service) = self.service.take() {
            service.finish(&summary)?;
        }
        if let Some(writer) = self.writer.take() {
            writer.finish(summary.lost).context("writing the recording")?;
        }
        if let Some(why) = self.undecodable_why {
            tracing::warn!("{} records could not be decoded, the last because of {why}", self.undecodable);
        }
        if self.told == 0 && self.filters() {
            tracing::warn!("nothing that happened passed the filters");
        }
        tracing::info!("{}", closing_line(&summary));
        self.failure.map_or(Ok(()), Err)
    }
}

/// Somebody quits the view, if there is one.
async fn quits(view: Option<&Top>) {
    match view {
        Some(view) => view.quits().await,
        None => std::future::pending().await,
    }
}

/// The meaningful bytes of a record: what its header says, if that can be.
fn trimmed(record: &[u8]) -> Bytes {
    let len = record.get(12..16).and_then(|len| len.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
    Bytes::copy_from_slice(record.get(..len).unwrap_or(record))
}

/// Eight bytes of a record's header: when it was made at 0, its kind (the low half) at 8.
fn number(record: &Bytes, at: usize) -> u64 {
    record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn header<T>(kind: Kind, boot_ns: u64) -> Header {
    Header { boot_ns, kind: kind as u32, len: size_of::<T>() as u32 }
}

fn ticker(every: Duration) -> tokio::time::Interval {
    let mut ticker = interval(every);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

fn wants(request: &Request, probe: ProbeId) -> bool {
    request.probes.is_empty() || request.probes.contains(&probe)
}
