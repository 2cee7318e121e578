//! The live tests in machines with other kernels: one machine a kernel, and one table at the end.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Args, Output, describe, kernels::Kernel};
use crate::{
    cmd,
    live::{
        self, Live, history,
        report::{self, Report},
        rounds,
    },
};

/// Runs them on each kernel.
pub(super) fn main(args: &Args, kernels: &[Kernel]) -> Result<ExitCode> {
    let Some(live) = live::build()? else {
        bail!("there are no live tests (no test target `live` in agent/Cargo.toml)");
    };
    let tests = if args.core {
        ensure!(args.args.is_empty(), "--core names its tests itself: leave those after `--` out");
        live::core()?
    } else {
        args.args.clone()
    };
    let xtask = live::xtask()?;
    let run = Run { args, live: &live, tests: &tests, xtask: &xtask };
    let mut reports = Vec::new();
    for kernels in kernels.chunks(args.abreast as usize) {
        thread::scope(|scope| {
            let run = &run;
            let running: Vec<_> = kernels.iter().map(|kernel| scope.spawn(move || run.on(kernel))).collect();
            reports
                .extend(running.into_iter().map(|machine| machine.join().expect("it reports its failures")));
        });
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
    fn on(&self, kernel: &Kernel) -> Report {
        eprintln!("vm: live tests on {} ({})", kernel.id, kernel.version);
        let mut report =
            Report { kernel: kernel.id.clone(), version: kernel.version.clone(), ..Report::default() };
        if let Err(error) = self.machine(kernel, &mut report) {
            report.broken = Some(format!("{error:#}"));
        }
        report
    }

    fn machine(&self, kernel: &Kernel, report: &mut Report) -> Result<()> {
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
        let mut command = vec![self.xtask.to_owned().into_os_string()];
        command.extend(rounds::command(&live.tests, true, self.tests));
        let (mut out, mut err) = (Lines::new(&kernel.id), Lines::new(&kernel.id));
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
        eprintln!("vm: {}: {}", kernel.id, describe(&outcome));
        if args.core || args.args.is_empty() {
            let kind = if args.core { "-core" } else { "" };
            report.repeated = history::remember(&format!("{}{kind}", kernel.id), &report.alone)?;
        }
        Ok(())
    }
}

/// Cuts a stream into lines, which go on with the kernel's name before them.
struct Lines<'a> {
    kernel: &'a str,
    rest: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(kernel: &'a str) -> Self {
        Self { kernel, rest: Vec::new() }
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
                // Whoever reads us may have gone; the tests go on.
                let _ = writeln!(to, "[{}] {line}", self.kernel);
            }
        }
    }
}
