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
pub mod why;

use std::process::ExitCode;

use session::Session;

use crate::{config, outputs, terminal::progress::Progress};

/// `culprit trace`, `record` and `top`: a session with these outputs. `doing`: what is said of it when it begins.
///
/// # Errors
/// When it cannot begin, or watching failed; what was collected by then is shown.
pub async fn session(
    config: &config::Session,
    outputs: &config::Outputs,
    doing: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let opened = outputs::open(outputs)?;
    let verbose = outputs.printed.as_ref().is_some_and(|output| output.verbose);
    let waiting = doing.map(|_| Progress::spinner("attaching", verbose));
    let mut session = Session::build(config)?;
    drop(waiting);
    session.answers = outputs.answer.is_some();
    for open in opened {
        let output = open(session.start())?;
        session.emit_to(output);
    }
    session.run(config, doing).await
}
