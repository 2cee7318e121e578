//! `cargo xtask COMMAND`: everything a culprit developer runs, one file per command.
//!
//! Standard output carries what was asked for (test results, a command's output in a VM); what
//! xtask has to say about its own doings goes to standard error.

mod bench;
mod ci;
mod cmd;
mod demo;
mod hooks;
mod process;
mod run;
mod setup;
mod test;
#[expect(unreachable_pub, dead_code, reason = "shared with agent/build.rs, which includes it as a module")]
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install whatever this repository needs and this machine lacks
    Setup(setup::Args),
    /// Build the agent and start `culprit trace`, as root
    Run(run::Args),
    /// Run the unit and replay tests, and the live tests as root
    Test(test::Args),
    /// Check what needs neither root nor a kernel: format, lints, imports, unit and replay tests, docs, deployment files
    Check(ci::Args),
    /// Check everything CI does: `check`, the live tests, and their core in VMs with other kernels
    Ci(ci::Args),
    /// Run the live tests, or any command, in VMs with other kernels
    Vm(vm::Args),
    /// Build an outage, watch it with culprit, and explain it
    Demo(demo::Args),
    /// Check every hook and kernel field against the BTF of each kernel
    Hooks(hooks::Args),
    /// Measure what culprit costs, against nothing attached and against strace
    Bench(bench::Args),
    /// The live tests, as root, in rounds
    #[command(hide = true)]
    LiveRounds(test::live::rounds::Args),
    /// The measuring part of `bench`, as root
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchMeasure(bench::measure::Args),
    /// The measuring part of `bench soak`, as root
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchSoak(bench::measure::soak::Args),
    /// The load of `bench`
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchLoad(bench::measure::load::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::main(&args),
        Command::Test(args) => test::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => ci::check(&args),
        Command::Ci(args) => ci::main(&args),
        Command::Vm(args) => vm::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::LiveRounds(args) => test::live::rounds::main(&args),
        Command::Hooks(args) => hooks::main(&args),
        Command::Bench(args) => bench::main(&args),
        #[cfg(feature = "bench")]
        Command::BenchMeasure(args) => bench::measure::main(&args),
        #[cfg(feature = "bench")]
        Command::BenchSoak(args) => bench::measure::soak::main(&args),
        #[cfg(feature = "bench")]
        Command::BenchLoad(args) => bench::measure::load::main(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
