//! `cargo xtask demo [NAME]`: an outage, built on this machine in network namespaces or in a virtual machine,
//! watched by culprit, and explained. Every demo takes less than a minute and leaves nothing behind.

mod clock;
pub(crate) mod lab;
mod neigh;
mod tls;
mod watch;

use std::{ffi::OsStr, process::ExitCode};

use anyhow::{Result, bail};

use crate::{
    cmd,
    setup::{self, Need},
};

/// The demos there are.
const DEMOS: &[Demo] = &[
    Demo {
        name: "tls",
        about: "every TLS handshake hangs behind a certificate fetch that a firewall drops",
        play: tls::play,
        here: None,
    },
    Demo {
        name: "neigh",
        about: "a worker is replaced under the same address, and the database goes on answering the dead one",
        play: neigh::play,
        here: None,
    },
    Demo {
        name: "clock",
        about: "the clock jumps four months ahead and comes back, and some are refused long after that",
        play: clock::play,
        here: Some(clock::here),
    },
];

struct Demo {
    name: &'static str,
    about: &'static str,
    play: fn() -> Result<()>,
    /// What becomes of it without a virtual machine.
    here: Option<fn() -> Result<()>>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one; without it, the list
    name: Option<String>,
    /// For `clock`: instead of a virtual machine's clock, step this machine's by one second, and back
    #[arg(long)]
    here: bool,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let Some(name) = &args.name else {
        let list: String = DEMOS.iter().map(|demo| format!("{:<8} {}\n", demo.name, demo.about)).collect();
        std::io::Write::write_all(&mut std::io::stdout(), list.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(demo) = DEMOS.iter().find(|demo| demo.name == name) else {
        let names: Vec<_> = DEMOS.iter().map(|demo| demo.name).collect();
        bail!("there is no demo {name}: there is {}", names.join(", "));
    };
    let play = match demo.here {
        Some(here) if args.here => here,
        None if args.here => bail!("the demo {} has no --here: it always plays here", demo.name),
        _ => demo.play,
    };
    if !cmd::is_root() {
        // Namespaces and probes need root; the build above has been done as the caller.
        let mut again = cmd::as_root(std::env::current_exe()?, &[])?;
        again.args([OsStr::new("demo"), OsStr::new(demo.name)]).args(args.here.then_some("--here"));
        cmd::run(&mut again)?;
        return Ok(ExitCode::SUCCESS);
    }
    play()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds what demos run.
fn build() -> Result<std::path::PathBuf> {
    setup::ensure(&[Need::Build, Need::Test])?;
    cmd::run(cmd::cargo().args(["build", "--release", "--package", "culprit"]))?;
    Ok(cmd::target_dir()?.join("release/culprit"))
}
