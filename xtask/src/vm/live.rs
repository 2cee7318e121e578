//! The live tests in machines with other kernels: one kernel at a time, and one table at the end.

use std::{
    ffi::OsString,
    io::{self, Write},
    num::NonZero,
    path::Path,
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{Args, Output, describe, kernels::Kernel};
use crate::{
    cmd,
    test::live::{
        self, Live, history,
        report::{self, Report},
        rounds::{self, ALONE_AT_MOST, Part},
    },
};

/// Runs them on each kernel.
pub(super) fn main(args: &Args, kernels: &[Kernel]) -> Result<ExitCode> {
    let live = live::build()?;
    let tests = if args.core {
        ensure!(args.args.is_empty(), "--core names its tests itself: leave those after `--` out");
        live::core()?
    } else {
        args.args.clone()
    };
    let xtask = live::xtask()?;
    let run = Run { args, live: &live, tests: &tests, xtask: &xtask };
    let mut reports = Vec::new();
    for kernel in kernels {
        reports.push(run.on(kernel)?);
    }
    let table = report::table(&reports);
    io::stdout().write_all(table.as_bytes()).context("writing the table")?;
    Ok(if reports.iter().all(Report::is_success) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One selection of tests, to run on several kernels.
struct Run<'a> {
    args: &'a Args,
    live: &'a Live,
    tests: &'a [OsString],
    xtask: &'a Path,
}

impl Run<'_> {
    /// Runs them on one kernel: an emulated machine keeps one processor busy, so its tests are spread over several.
    fn on(&self, kernel: &Kernel) -> Result<Report> {
        let of = self.machines();
        let machines = if of == 1 { String::new() } else { format!(", in {of} machines side by side") };
        eprintln!("vm: live tests on {} ({}){machines}", kernel.id, kernel.version);
        let mut report =
            Report { kernel: kernel.id.clone(), version: kernel.version.clone(), ..Report::default() };
        thread::scope(|scope| {
            let running: Vec<_> =
                (1..=of).map(|number| scope.spawn(move || self.part(kernel, Part { number, of }))).collect();
            for machine in running {
                report.merge(machine.join().expect("it reports its failures"));
            }
        });
        let again = report.failed.len() + report.alone.len();
        if again > ALONE_AT_MOST {
            let why = format!("{again} tests failed among others: more than {ALONE_AT_MOST}");
            report.broken.get_or_insert(why);
        }
        if self.args.core || self.args.args.is_empty() {
            let kind = if self.args.core { "-core" } else { "" };
            report.repeated = history::remember(&format!("{}{kind}", kernel.id), &report.alone)?;
        }
        Ok(report)
    }

    /// How many machines share a kernel's tests.
    fn machines(&self) -> usize {
        if let Some(machines) = self.args.machines {
            return machines as usize;
        }
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        // Two on two processors: where each of them waits, the other runs. Not for a few named tests.
        if self.args.args.is_empty() { (processors / 2).clamp(2, 4) } else { 1 }
    }

    fn part(&self, kernel: &Kernel, part: Part) -> Report {
        let mut report = Report::default();
        if let Err(error) = self.machine(kernel, part, &mut report) {
            report.broken = Some(format!("{error:#}"));
        }
        report
    }

    fn machine(&self, kernel: &Kernel, part: Part, report: &mut Report) -> Result<()> {
        let (args, live) = (self.args, self.live);
        let root = cmd::workspace();
        let mut visible = vec![root.clone()];
        visible.extend(
            [&live.tests, &self.xtask.to_owned()].iter().filter_map(|file| file.parent()).map(Path::to_owned),
        );
        visible.extend(live.servers.iter().filter_map(|(_, server)| server.parent()).map(Path::to_owned));
        let mut env = args.env();
        env.extend(live.env().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        env.push(("CULPRIT_VM".into(), kernel.id.clone().into()));
        // Emulated, on one CPU: no deadline of a real machine holds.
        env.push(("CULPRIT_TEST_SLOW".into(), "5".into()));
        // Most of what they do is wait for something to stall: several at a time, even on one processor.
        env.push(("RUST_TEST_THREADS".into(), "3".into()));
        let name = if part.of == 1 { kernel.id.clone() } else { format!("{} {}", kernel.id, part.number) };
        let mut command = vec![self.xtask.to_owned().into_os_string()];
        command.extend(rounds::command(&live.tests, true, (part.of > 1).then_some(part), self.tests));
        let (mut out, mut err) = (Lines::new(&name), Lines::new(&name));
        let outcome =
            args.machine(kernel, &visible).run(&env, &root.join("agent"), &command, |output| match output {
                Output::Stdout(bytes) => out.push(bytes, &mut io::stdout(), report),
                Output::Stderr(bytes) => err.push(bytes, &mut io::stderr(), report),
            });
        out.push(b"\n", &mut io::stdout(), report);
        err.push(b"\n", &mut io::stderr(), report);
        let outcome = outcome?;
        report.seconds = outcome.total;
        report.ended(outcome.status);
        eprintln!("vm: {name}: {}", describe(&outcome));
        Ok(())
    }
}

/// Cuts a stream into lines, which go on with the machine's name before them.
struct Lines<'a> {
    machine: &'a str,
    rest: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(machine: &'a str) -> Self {
        Self { machine, rest: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8], to: &mut impl Write, report: &mut Report) {
        for &byte in bytes {
            if byte != b'\n' {
                self.rest.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.rest).into_owned();
            self.rest.clear();
            if !line.is_empty() {
                report.line(&line);
                // The reader may have gone; the tests go on.
                let _ = writeln!(to, "[{}] {line}", self.machine);
            }
        }
    }
}
