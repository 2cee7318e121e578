//! Not here yet.
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn main(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not here yet")
}
