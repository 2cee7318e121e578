//! `culprit why`: the processes that are meant and those they wait for are found first, then watched for a moment.

use std::process::ExitCode;

use crate::{config, kernel::cgroup, observe, snapshot::chain, terminal::progress::say, time::boot_ns};

/// Processes of a target that are asked about, at most.
const TARGETS: usize = 16;

/// Answers what a process waits for.
///
/// # Errors
/// No process is meant by the target, or watching cannot begin or fails.
pub async fn why(config: &config::Why) -> anyhow::Result<ExitCode> {
    let root = cgroup::root()?;
    let mut targets = observe::processes(&config.target, root);
    if targets.is_empty() {
        anyhow::bail!("{}: there is no such process; `culprit top` shows which ones wait", config.target);
    }
    let more = targets.len().saturating_sub(TARGETS);
    targets.truncate(TARGETS);
    if more > 0 {
        say(format_args!(
            "{} is {} processes: the first {TARGETS} are asked about",
            config.target,
            more + TARGETS
        ));
    }
    let chain = chain::follow(&targets, boot_ns());
    if chain.looked_at.is_empty() {
        anyhow::bail!("{}: it ended before it could be looked at", config.target);
    }
    let mut session = config.session.clone();
    session.spec.processes = chain.processes().collect();
    session.spec.follow = true;
    session.wanted.processes.clone_from(&session.spec.processes);
    let answer = config::Answer {
        about: config.target.to_string(),
        chain,
        format: config.format,
        colour: config.colour,
    };
    let outputs = config::Outputs { answer: Some(answer), ..config::Outputs::default() };
    super::session(&session, &outputs, None).await
}
