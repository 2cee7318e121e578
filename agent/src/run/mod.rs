//! A live session: sources → pipeline → outputs, until something ends it. Each command names its outputs; the
//! [`Session`] is the same for all of them.
//!
//! A session is built from its configuration (attaches and loads, may fail), then begun, then runs, then drained:
//! whatever ends it, and however, what was collected is shown or saved.

mod build;
mod command;
pub mod daemon;
mod end;
mod metrics;
mod session;
mod sources;

use std::{path::Path, process::ExitCode};

use session::Session;

use crate::{
    config,
    sinks::{printer::Printer, recorder::Recorder},
    terminal::progress::Progress,
    top::{self, Top},
};

/// `culprit trace`.
///
/// # Errors
/// When it cannot begin, or watching failed; what was collected by then is shown.
pub async fn trace(config: &config::Session, output: &config::Output) -> anyhow::Result<ExitCode> {
    let printer = Printer::open(output)?;
    let waiting = Progress::spinner("attaching", output.verbose);
    let mut session = Session::build(config)?;
    drop(waiting);
    session.emit_to(printer);
    session.run(config, Some(if config.spec.quiet { "watching" } else { "tracing" })).await
}

/// `culprit top`.
///
/// # Errors
/// As of [`trace`], and without a terminal.
pub async fn top(config: &config::Session, colour: config::Colour) -> anyhow::Result<ExitCode> {
    top::check()?;
    let mut session = Session::build(config)?;
    let view = Top::start(session.start(), colour)?;
    session.emit_to(view);
    session.run(config, None).await
}

/// `culprit record`; `force`: in place of a file that exists.
///
/// # Errors
/// As of [`trace`], and when the file cannot be written.
pub async fn record(config: &config::Session, file: &Path, force: bool) -> anyhow::Result<ExitCode> {
    let waiting = Progress::spinner("attaching", false);
    let mut session = Session::build(config)?;
    drop(waiting);
    // A command may write to the same terminal.
    let progress = config.command.is_empty().then(|| Progress::spinner("recording", false));
    let recorder = Recorder::create(file, force, session.start(), progress)?;
    session.emit_to(recorder);
    session.run(config, Some("recording")).await
}
