//! `xtask bench-measure`: the part of the benchmark that runs as root. It measures and prints one
//! report in JSON; what it has to say meanwhile goes to standard error.
//!
//! Whatever it starts or attaches is gone when it ends, also by an error or ^C: processes are ended
//! with it, links and the kernel's statistics hang on descriptors.

#[path = "../../../agent/src/kernel/cgroup.rs"]
#[expect(unreachable_pub, reason = "shared with the agent: the benchmark attaches where it does")]
mod cgroup;
#[path = "../../../agent/src/kernel/tracefs.rs"]
#[expect(unreachable_pub, reason = "shared with the agent: the benchmark attaches where it does")]
mod tracefs;

mod crowd;
mod empty;
mod events;
pub(crate) mod load;
mod load_pair;
mod packets;
mod proc;
mod programs;
mod progress;
mod slices;
pub(crate) mod soak;
mod watch;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use procfs::{CpuInfo, Current, Meminfo};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use tempfile::TempDir;

use report::{Condition, Machine, Report, SCHEMA, Settings};

use super::{Part, Plan, plan, report};
use crate::cmd;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_parser = plan::<Plan>)]
    plan: Plan,
    /// The culprit to measure
    #[arg(long)]
    culprit: PathBuf,
    /// Where culprit's output goes meanwhile
    #[arg(long)]
    scratch: PathBuf,
}

/// What every part of the benchmark needs.
pub(crate) struct Bench<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) culprit: &'a Path,
    pub(crate) scratch: TempDir,
    /// The cgroup culprit attaches to.
    pub(crate) cgroup: File,
    /// Why `culprit run` cannot be measured.
    no_run: Option<String>,
    stop: Arc<AtomicBool>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    ensure!(cmd::is_root(), "attaching programs needs root: `cargo xtask bench` takes care of that");
    let stop = interrupted()?;
    let root = cgroup::root()?;
    let bench = Bench {
        plan: &args.plan,
        culprit: &args.culprit,
        scratch: TempDir::new_in(&args.scratch)
            .with_context(|| format!("making a directory in {}", args.scratch.display()))?,
        cgroup: File::open(&root)
            .map_err(|source| cgroup::Error::Unreadable { path: root.clone(), source })?,
        no_run: without_run(&args.culprit),
        stop,
    };
    let report = bench.measure()?;
    let json = serde_json::to_vec(&report)?;
    io::stdout().write_all(&json).context("handing the report over")?;
    Ok(ExitCode::SUCCESS)
}

impl Bench<'_> {
    /// Fails once it is to end.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Those asked for that this culprit has.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let possible = |condition: &Condition| *condition != Condition::Run || self.no_run.is_none();
        self.plan.conditions().into_iter().filter(possible).collect()
    }

    /// Those of them that attach culprit.
    pub(crate) fn culprits(&self) -> Vec<Condition> {
        let attached = |condition: &Condition| matches!(condition, Condition::Run | Condition::Trace);
        self.conditions().into_iter().filter(attached).collect()
    }

    fn measure(&self) -> Result<Report> {
        let plan = self.plan;
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            machine: machine()?,
            settings: Settings {
                rounds: plan.rounds(),
                seconds: plan.seconds(),
                quick: plan.quick,
                partial: plan.is_partial(),
                repeated: 0,
            },
            notes: self.notes(),
            slices: Vec::new(),
            packets: Vec::new(),
            starts: Vec::new(),
            sustained: Vec::new(),
            replays: Vec::new(),
            crowds: Vec::new(),
        };
        for note in &report.notes {
            eprintln!("bench: {note}");
        }
        if plan.has(Part::Rates) {
            slices::measure(self, &mut report.slices, &mut report.settings.repeated)?;
        }
        if plan.has(Part::Packets) {
            packets::measure(self, &mut report.packets)?;
        }
        if plan.has(Part::Starts) {
            events::starts(self, &mut report.starts)?;
        }
        if plan.has(Part::Sustained) {
            events::sustained(self, &mut report.sustained)?;
        }
        if plan.has(Part::Replay) {
            events::replays(self, &mut report.replays)?;
        }
        if plan.has(Part::Crowd) {
            crowd::measure(self, &mut report.crowds)?;
        }
        Ok(report)
    }

    fn notes(&self) -> Vec<String> {
        let wanted = self.plan.conditions().contains(&Condition::Run);
        self.no_run.iter().filter(|_| wanted).cloned().collect()
    }
}

/// Set once this process is to end.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&stop)).context("watching for signals")?;
    }
    Ok(stop)
}

/// Why this culprit cannot `run`.
fn without_run(culprit: &Path) -> Option<String> {
    let has = cmd::succeeds(Command::new(culprit).args(["run", "--help"]));
    (!has).then(|| "`run` was not measured: this culprit has no `run` command.".to_owned())
}

fn machine() -> Result<Machine> {
    let memory = Meminfo::current().context("reading the machine's memory")?;
    let cpu = CpuInfo::current().context("reading the machine's processors")?;
    let kernel = "/proc/sys/kernel/osrelease";
    Ok(Machine {
        // Not on every architecture.
        cpu: cpu.model_name(0).unwrap_or(std::env::consts::ARCH).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: memory.mem_total / (1024 * 1024),
        kernel: fs::read_to_string(kernel)?.trim().to_owned(),
        date: String::new(),
        commit: String::new(),
    })
}
