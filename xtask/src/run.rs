//! `cargo xtask run`: from a fresh clone to a running `culprit trace` in one command.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    cmd,
    setup::{self, Need},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments of `culprit trace`
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build])?;
    cmd::run(cmd::cargo().args(["build", "--release", "--package", "culprit"]))?;
    let mut culprit = cmd::as_root(cmd::target_dir()?.join("release/culprit"), &[])?;
    culprit.arg("trace").args(&args.args);
    // Becoming the agent passes its exit status and every signal through.
    Err(culprit.exec()).with_context(|| format!("starting `{}`", cmd::line(&culprit)))
}
