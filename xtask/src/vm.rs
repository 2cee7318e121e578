//! `cargo xtask vm`: do the live tests hold on kernels other than this machine's?
//!
//! Fetches the kernels, boots each, runs the live tests (or any command) inside with this
//! machine's file system below, and ends with one table. Inside, `$CULPRIT_VM_PAUSE SECONDS` has the
//! machine paused for that long, in no time; `$CULPRIT_VM_SLEEP SECONDS` has it asleep (with `--carry`).

mod initramfs;
pub(crate) mod kernels;
mod live;
mod pause;
mod qemu;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::{
    cmd,
    setup::{self, Need},
};
use kernels::Kernel;
use qemu::Outcome;
pub(crate) use qemu::{Machine, Output, pass_on};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernels: 5.10, 6.1, 6.12, new (default: all)
    kernels: Vec<String>,
    /// Only the tests of tests/live/core.txt: what each kernel can decide differently
    #[arg(long, conflicts_with = "exec")]
    core: bool,
    /// Machines that a kernel's live tests are spread over, side by side (default: one for each two processors of
    /// this machine, two at least, four at most)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16), conflicts_with = "exec")]
    machines: Option<u32>,
    /// Run the command after `--` instead of the live tests; its exit status is returned
    #[arg(long)]
    exec: bool,
    /// Memory of a machine, in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Processors of a machine
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Seconds after which a machine is stopped
    #[arg(long, default_value_t = 1500)]
    timeout: u64,
    /// The hardware clock at boot, such as 2024-02-29T23:59:00
    #[arg(long, default_value = "utc", value_name = "DATE")]
    clock: String,
    /// More of the kernel's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Let the machine write to this directory (repeatable)
    #[arg(long, value_name = "DIR")]
    writable: Vec<PathBuf>,
    /// Take this program and its libraries along and share nothing else: such a machine can sleep (repeatable)
    #[arg(long, value_name = "FILE", requires = "exec", conflicts_with = "writable")]
    carry: Vec<PathBuf>,
    /// Pass an environment variable on (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Fetch the newest kernels even if older ones are here
    #[arg(long)]
    fetch: bool,
    /// Arguments of the live tests; with --exec, the command
    #[arg(last = true)]
    args: Vec<OsString>,
}

impl Args {
    fn machine<'a>(&'a self, kernel: &'a Kernel, visible: &'a [PathBuf]) -> Machine<'a> {
        Machine {
            kernel,
            cpus: self.cpus,
            memory_mib: self.memory,
            timeout: Duration::from_secs(self.timeout),
            clock: &self.clock,
            append: &self.append,
            writable: &self.writable,
            visible,
            carried: &self.carry,
        }
    }

    /// The environment of the command: what a login has, and what was asked for.
    fn env(&self) -> Vec<(String, OsString)> {
        let inherited = ["PATH", "HOME", "LANG", "TERM", "RUST_BACKTRACE", "RUST_LOG"].map(str::to_owned);
        let named = inherited.into_iter().chain(self.env.iter().cloned());
        named
            .filter_map(|name| match name.split_once('=') {
                Some((name, value)) => Some((name.to_owned(), value.into())),
                None => env::var_os(&name).map(|value| (name, value)),
            })
            .chain(pause::env(!self.carry.is_empty()))
            .collect()
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    ensure!(cfg!(target_arch = "x86_64"), "the VMs are x86_64 machines, and this one is not");
    setup::ensure(if args.exec { &[Need::Vm] } else { &[Need::Build, Need::Test, Need::Vm] })?;
    need_root()?;
    if args.fetch {
        let wanted = |id: &str| args.kernels.is_empty() || args.kernels.iter().any(|kernel| kernel == id);
        for source in kernels::KERNELS.iter().filter(|source| wanted(source.id)) {
            kernels::fetch(source).with_context(|| format!("fetching kernel {}", source.id))?;
        }
    }
    let kernels = kernels::named(&args.kernels)?;
    if args.exec { exec(args, &kernels) } else { live::main(args, &kernels) }
}

/// Runs the core of the live tests on these kernels.
pub(crate) fn core(kernels: &[&str]) -> Result<()> {
    /// As the command line has it.
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let line = ["vm", "--core"].iter().chain(kernels);
    let Line { args } = clap::Parser::try_parse_from(line).context("the options of `cargo xtask vm`")?;
    ensure!(main(&args)? == ExitCode::SUCCESS, "the core of the live tests fails on another kernel");
    Ok(())
}

/// Runs one command in each machine and returns the first exit status that is not 0.
fn exec(args: &Args, kernels: &[Kernel]) -> Result<ExitCode> {
    if args.args.is_empty() {
        bail!("--exec needs a command: `cargo xtask vm KERNEL --exec -- CMD ARGS`");
    }
    let dir = env::current_dir().context("finding the current directory")?;
    let mut worst = 0;
    for kernel in kernels {
        let visible = [dir.clone()];
        let machine = args.machine(kernel, &visible);
        let outcome = machine.run(&args.env(), &dir, &args.args, pass_on)?;
        eprintln!("vm: {} ({}): {}", kernel.id, kernel.version, describe(&outcome));
        if worst == 0 {
            worst = outcome.status.unwrap_or(124);
        }
    }
    Ok(ExitCode::from(u8::try_from(worst).unwrap_or(1)))
}

fn describe(outcome: &Outcome) -> String {
    let (boot, total) = (outcome.boot.as_secs_f64(), outcome.total.as_secs_f64());
    match outcome.status {
        Some(status) => format!("exit {status}; booted in {boot:.1} s, {total:.1} s in all"),
        None => format!("ran out of time after {total:.0} s (see --timeout)"),
    }
}

/// What a kernel says of itself.
pub(crate) struct Facts {
    pub(crate) btf: Vec<u8>,
    pub(crate) events: String,
}

/// Reads a kernel's BTF and trace events, from a machine the first time and from files after that.
pub(crate) fn facts(kernel: &Kernel) -> Result<Facts> {
    let read = || {
        Some(Facts { btf: fs::read(kernel.btf()).ok()?, events: fs::read_to_string(kernel.events()).ok()? })
    };
    if let Some(facts) = read() {
        return Ok(facts);
    }
    need_root()?;
    eprintln!("vm: asking kernel {} for its types and trace events", kernel.id);
    let machine = Machine { memory_mib: 512, ..Machine::of(kernel) };
    let script = "cat /sys/kernel/btf/vmlinux && cat /sys/kernel/tracing/available_events >&2";
    let command = ["/bin/sh".into(), "-c".into(), script.into()];
    let (mut btf, mut events) = (Vec::new(), Vec::new());
    let outcome = machine.run(&[], Path::new("/"), &command, |output| match output {
        Output::Stdout(bytes) => btf.extend(bytes),
        Output::Stderr(bytes) => events.extend(bytes),
    })?;
    let events = String::from_utf8_lossy(&events).into_owned();
    ensure!(outcome.status == Some(0), "kernel {} did not say: {}\n{events}", kernel.id, describe(&outcome));
    for (path, bytes) in [(kernel.btf(), btf.as_slice()), (kernel.events(), events.as_bytes())] {
        fs::write(&path, bytes)?;
    }
    Ok(Facts { btf, events })
}

fn need_root() -> Result<()> {
    ensure!(
        cmd::is_root(),
        "sharing this machine's files with a VM needs root: `sudo -E env PATH=\"$PATH\" cargo xtask …`"
    );
    Ok(())
}
