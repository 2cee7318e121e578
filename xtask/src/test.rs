//! `cargo xtask test`: does the code do what its tests say, here, on this kernel?
//!
//! The unit and replay tests run as the caller. The live tests load programs into the kernel,
//! so their binary is built as the caller and run as root, and given (`CULPRIT_LIVE=require`) that
//! a test that cannot run has failed.

pub(crate) mod live;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::{
    cmd,
    setup::{self, Need, unpacked::PROMTOOL},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the unit and replay tests
    #[arg(long, conflicts_with = "live")]
    unit: bool,
    /// Only the live tests
    #[arg(long)]
    live: bool,
    /// Make the recordings of tests/incidents/ again from the live tests, one after the other
    #[arg(long, conflicts_with_all = ["unit", "live"])]
    keep_incidents: bool,
    /// Arguments of the test binaries (a filter, `--nocapture`, …)
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Test, Need::Deploy])?;
    if args.keep_incidents {
        return keep_incidents(&args.args);
    }
    if !args.live {
        unprivileged(&args.args)?;
    }
    if !args.unit {
        live::here(&args.args)?;
    }
    Ok(())
}

/// Everything but the live tests, which would run a second time, unprivileged, and skip.
pub(crate) fn unprivileged(args: &[OsString]) -> Result<()> {
    let mut command = cmd::cargo();
    command.args(["test", "--workspace", "--lib", "--bins", "--features", "xtask/bench"]);
    for name in live::targets()?.iter().filter(|name| *name != "live") {
        command.args(["--test", name]);
    }
    command.envs(PROMTOOL.find().map(|promtool| ("CULPRIT_PROMTOOL", promtool)));
    cmd::run(command.arg("--").args(args))
}

/// Recordings name the executables they saw: they are made by copies that stand elsewhere than here.
fn keep_incidents(args: &[OsString]) -> Result<()> {
    let live = live::build()?;
    let elsewhere = tempfile::Builder::new().prefix("culprit-keep-").tempdir()?;
    let copy = |from: &PathBuf, name: &str| -> Result<PathBuf> {
        let to = elsewhere.path().join(name);
        fs::copy(from, &to)?;
        Ok(to)
    };
    let copies = live::Live {
        tests: copy(&live.tests, "live")?,
        culprit: copy(&live.culprit, "culprit")?,
        servers: (live.servers.iter())
            .map(|(name, server)| Ok((*name, copy(server, name)?)))
            .collect::<Result<_>>()?,
    };
    let mut keep = copies.env();
    keep.push(("CULPRIT_KEEP_INCIDENTS", "1".as_ref()));
    let mut command = cmd::as_root(&copies.tests, &keep)?;
    command.arg("--test-threads=1");
    if args.is_empty() {
        command.arg("incidents::");
    }
    command.args(args);
    cmd::run(command.current_dir(cmd::workspace().join("agent")))?;
    eprintln!("test: now look at them: CULPRIT_BLESS=1 cargo test -p culprit --test replay && git diff");
    Ok(())
}
