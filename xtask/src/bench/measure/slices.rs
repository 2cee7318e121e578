//! How fast do connects, handshakes and bytes go with this or that attached? Every round runs every
//! condition once per load, in an order that rotates, so that what changes on the machine meanwhile
//! meets them all.

use std::time::Instant;

use anyhow::Result;
use aya::sys::{Stats, enable_stats};

use super::{
    Bench,
    empty::Everywhere,
    load::Kind,
    load_pair::Pair,
    proc,
    programs::{self, between, names},
    progress,
    report::{self, Condition, Cpu, DISTURBING, Program, Slice, Workload},
    watch::{self, Culprit, Strace, Summary},
};

/// Before each slice, as a share of it: new programs and a new process are cold.
const SETTLE: f64 = 0.1;
/// For run-time statistics, after each slice, as a share of it.
const COUNTED: f64 = 0.25;

pub(crate) fn measure(bench: &Bench<'_>, slices: &mut Vec<Slice>, repeated: &mut u32) -> Result<()> {
    let (rounds, seconds) = (bench.plan.rounds(), bench.plan.seconds());
    let mut pairs = Vec::new();
    for workload in bench.plan.workloads() {
        let mut pair = Pair::start(kind(workload))?;
        eprintln!("bench: warming up: {workload}");
        pair.run(seconds.min(1.0))?;
        pairs.push((workload, pair));
    }
    let mut cells: Vec<Vec<Slice>> = Vec::new();
    for round in 0..rounds {
        for (workload, pair) in &mut pairs {
            cells.push(all_conditions(bench, pair, *workload, round)?);
        }
    }
    // Again what others disturbed, as long as there is time for it. Which of two measurements stays
    // depends on what others did, never on what came out.
    let deadline = Instant::now() + bench.plan.patience();
    let loads = pairs.len();
    while cells.iter().any(|cell| disturbance(cell) > DISTURBING) && Instant::now() < deadline {
        for (i, cell) in cells.iter_mut().enumerate() {
            let Some((workload, pair)) = pairs.get_mut(i % loads) else { break };
            if disturbance(cell) <= DISTURBING || Instant::now() >= deadline {
                continue;
            }
            eprintln!("bench: others disturbed this round of {workload}: once more");
            let again = all_conditions(bench, pair, *workload, (i / loads) as u32)?;
            *repeated += 1;
            if disturbance(&again) < disturbance(cell) {
                *cell = again;
            }
        }
    }
    slices.extend(cells.into_iter().flatten());
    Ok(())
}

/// How much others disturbed a round at most.
fn disturbance(cell: &[Slice]) -> f64 {
    cell.iter().map(Slice::disturbance).fold(0.0, f64::max)
}

/// One round of one load.
fn all_conditions(bench: &Bench<'_>, pair: &mut Pair, workload: Workload, round: u32) -> Result<Vec<Slice>> {
    let mut order = bench.conditions();
    let first = round as usize % order.len().max(1);
    order.rotate_left(first);
    let mut measured = Vec::new();
    for condition in order {
        bench.check()?;
        let slice = slice(bench, pair, workload, condition, round)?;
        eprintln!("{}", progress::slice(&slice, bench.plan.rounds()));
        measured.push(slice);
    }
    // In the order of the tables, for the reader of the file.
    measured.sort_by_key(|slice| slice.condition as u8);
    Ok(measured)
}

fn kind(workload: Workload) -> Kind {
    match workload {
        Workload::Connects => Kind::Connects,
        Workload::Handshakes => Kind::Handshakes,
        Workload::Bulk => Kind::Bulk,
    }
}

/// What is attached.
enum Watcher {
    Nothing,
    Hooks(#[expect(dead_code, reason = "held while they are to be attached")] Everywhere),
    Culprit(Culprit),
    Strace(Strace),
}

impl Watcher {
    fn start(bench: &Bench<'_>, pair: &Pair, condition: Condition) -> Result<Self> {
        let dir = bench.scratch.path();
        Ok(match condition {
            Condition::Bare | Condition::BareAgain => Self::Nothing,
            Condition::Hooks => Self::Hooks(Everywhere::attach(&bench.cgroup)?),
            Condition::Run | Condition::Trace => {
                Self::Culprit(Culprit::start(bench.culprit, watch::command(condition)?, dir)?)
            }
            Condition::Strace => Self::Strace(Strace::start(pair, dir)?),
        })
    }

    fn id(&self) -> Option<u32> {
        match self {
            Self::Nothing | Self::Hooks(_) => None,
            Self::Culprit(culprit) => Some(culprit.process().id()),
            Self::Strace(strace) => Some(strace.process().id()),
        }
    }
}

fn slice(
    bench: &Bench<'_>,
    pair: &mut Pair,
    workload: Workload,
    condition: Condition,
    round: u32,
) -> Result<Slice> {
    let seconds = bench.plan.seconds();
    let strangers = programs::strangers();
    let watcher = Watcher::start(bench, pair, condition)?;
    let settled = pair.run(seconds * SETTLE)?;
    let before = Usage::now(pair, watcher.id())?;
    let done = pair.run(seconds)?;
    let cpu = Usage::now(pair, watcher.id())?.since(&before).shares(done.seconds);
    let culprit = match watcher {
        Watcher::Nothing | Watcher::Hooks(_) => None,
        Watcher::Strace(strace) => {
            strace.end()?;
            None
        }
        Watcher::Culprit(culprit) => {
            let (programs, counted) = counted(&culprit, pair, seconds * COUNTED)?;
            Some(account(culprit, programs, counted, settled.count + done.count + counted)?)
        }
    };
    let (done, seconds, stalls) = (done.count, done.seconds, done.stalls);
    Ok(Slice { workload, condition, round, done, seconds, stalls, cpu, culprit, strangers })
}

/// The load a while longer, with statistics kept: which programs ran, for how long, and what was
/// done meanwhile.
fn counted(culprit: &Culprit, pair: &mut Pair, seconds: f64) -> Result<(Vec<Program>, u64)> {
    let _kept = enable_stats(Stats::RunTime)?;
    let before = culprit.held()?;
    let done = pair.run(seconds)?;
    Ok((between(&before, &culprit.held()?, &names()), done.count))
}

/// What culprit and the kernel say at the end of a slice; ends culprit.
fn account(culprit: Culprit, programs: Vec<Program>, counted: u64, attached: u64) -> Result<report::Culprit> {
    let [rss_kib, peak_kib, maps_kib] = culprit.memory()?;
    let emitted = programs::emitted(culprit.process().id())?;
    let start_ms = culprit.start_ms();
    let Summary { events, lost } = culprit.end()?;
    Ok(report::Culprit {
        start_ms,
        events,
        lost,
        emitted,
        rss_kib,
        peak_kib,
        maps_kib,
        programs,
        counted,
        attached,
    })
}

/// Processor time used so far, in seconds.
struct Usage {
    server: f64,
    client: f64,
    watcher: f64,
    machine: f64,
}

impl Usage {
    fn now(pair: &Pair, watcher: Option<u32>) -> Result<Self> {
        Ok(Self {
            server: proc::cpu_seconds(pair.server.id())?,
            client: proc::cpu_seconds(pair.driver.id())?,
            watcher: watcher.map_or(Ok(0.0), proc::cpu_seconds)?,
            machine: proc::machine_cpu_seconds()?,
        })
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            server: self.server - earlier.server,
            client: self.client - earlier.client,
            watcher: self.watcher - earlier.watcher,
            machine: self.machine - earlier.machine,
        }
    }

    fn shares(&self, seconds: f64) -> Cpu {
        let ours = self.server + self.client + self.watcher;
        Cpu {
            server: self.server / seconds,
            client: self.client / seconds,
            watcher: self.watcher / seconds,
            // The machine's clock ticks at its own pace.
            others: (self.machine - ours).max(0.0) / seconds,
        }
    }
}
