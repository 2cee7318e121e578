//! The two processes of a load, seen from the benchmark: a server, and a driver that takes orders.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use serde::de::DeserializeOwned;

use super::load::{Done, Kind, Order};
use crate::{demo::lab::Lab, process::Process};

/// The processor of a driver with one thread.
const DRIVER: usize = 0;
/// The processor of its server, or of what watches it.
pub(crate) const SERVER: usize = 1;

/// Whether both sides can have a processor each.
pub(crate) fn has_two_processors() -> bool {
    thread::available_parallelism().map_or(1, usize::from) >= 2
}

/// Keeps a process on one processor.
pub(crate) fn pin(pid: Pid, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(Some(pid), &set).with_context(|| format!("keeping process {pid:?} on processor {cpu}"))
}

/// A server and its driver.
pub(crate) struct Pair {
    pub(crate) server: Process,
    pub(crate) driver: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Pair {
    /// Starts both.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        Self::start_in(None, kind)
    }

    /// Starts both, in a network namespace if one is named.
    pub(crate) fn start_in(netns: Option<&str>, kind: Kind) -> Result<Self> {
        let mut command = this(netns, kind)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Process::start(&mut command)?;
        let out = server.child().stdout.take().context("the server has no output")?;
        let at: SocketAddr = line(&mut BufReader::new(out), &mut server)?;

        let mut command = this(netns, kind)?;
        command.args(["--to", &at.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut driver = Process::start(&mut command)?;
        let orders = driver.child().stdin.take().context("the driver has no input")?;
        let answers = BufReader::new(driver.child().stdout.take().context("the driver has no output")?);
        // One thread a side: where the scheduler happens to put them would decide more than what is
        // attached does.
        if kind != Kind::Handshakes && has_two_processors() {
            pin(driver.pid(), DRIVER)?;
            pin(server.pid(), SERVER)?;
        }
        Ok(Self { server, driver, orders, answers })
    }

    /// Runs the load for some seconds, as fast as it goes.
    pub(crate) fn run(&mut self, seconds: f64) -> Result<Done> {
        self.begin(&Order { seconds, rate: 0.0 })?;
        self.finish()
    }

    /// Starts what [`Self::finish`] waits for.
    pub(crate) fn begin(&mut self, order: &Order) -> Result<()> {
        let order = serde_json::to_string(order)?;
        writeln!(self.orders, "{order}").with_context(|| format!("giving `{}` an order", self.driver.line()))
    }

    /// Waits for the end of what was begun.
    pub(crate) fn finish(&mut self) -> Result<Done> {
        line(&mut self.answers, &mut self.driver)
    }
}

/// This program, as a load. `ip netns exec` becomes it, so that its process is the load's.
fn this(netns: Option<&str>, kind: Kind) -> Result<Command> {
    let this = env::current_exe().context("finding this program")?;
    let mut command = match netns {
        Some(netns) => Lab::inside(netns, this),
        None => Command::new(this),
    };
    let kind = kind.to_possible_value().context("a load without a name")?;
    command.args(["bench-load", kind.get_name()]);
    Ok(command)
}

/// One line of JSON from a process.
fn line<T: DeserializeOwned>(from: &mut impl BufRead, process: &mut Process) -> Result<T> {
    let mut text = String::new();
    from.read_line(&mut text).with_context(|| format!("reading from `{}`", process.line()))?;
    if text.is_empty() {
        process.wait(Duration::from_secs(1))?;
        process.check()?;
    }
    serde_json::from_str(&text).with_context(|| format!("`{}` said {text:?}", process.line()))
}
