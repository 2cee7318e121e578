//! How fast is culprit itself: from its start to the first event, live events without loss, and
//! events of a recording?

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::{
    Bench,
    load::{Kind, Order},
    load_pair::{Pair, SERVER, has_two_processors, pin},
    report::{Condition, Replay, Start, Sustained},
    watch::{self, Culprit, Summary},
};
use crate::process::{Process, wait_until};

/// Until the first event of a running load.
const PATIENCE: Duration = Duration::from_secs(10);
/// A replay takes no longer.
const REPLAY: Duration = Duration::from_secs(120);
/// A load that goes on for as long as it takes, and a moment longer.
const WHILE_STARTING: f64 = 2.0;
/// Events a second that `trace` is offered, one step after the other.
const STEPS: &[f64] = &[50e3, 100e3, 150e3, 200e3, 250e3, 300e3, 400e3, 500e3, 750e3, 1e6];

/// Starts of `trace` while connects go on.
pub(crate) fn starts(bench: &Bench<'_>, starts: &mut Vec<Start>) -> Result<()> {
    let mut pair = Pair::start(Kind::Connects)?;
    for _ in 0..bench.plan.rounds() {
        bench.check()?;
        let condition = Condition::Trace;
        pair.begin(&Order { seconds: WHILE_STARTING, rate: 0.0 })?;
        let began = Instant::now();
        let culprit = Culprit::start(bench.culprit, watch::command(condition)?, bench.scratch.path())?;
        wait_until(PATIENCE, || Ok(culprit.has_event()))?;
        let first_event_ms = began.elapsed().as_secs_f64() * 1e3;
        let start = Start { condition, start_line_ms: culprit.start_ms(), first_event_ms };
        culprit.end()?;
        pair.finish()?;
        eprintln!(
            "bench: start of {condition}: start line after {:.0} ms, first event after {:.0} ms",
            start.start_line_ms, start.first_event_ms
        );
        starts.push(start);
    }
    Ok(())
}

/// More and more events a second until `trace` loses some. The load has one processor, culprit
/// another, on which the load's server only sleeps.
pub(crate) fn sustained(bench: &Bench<'_>, steps: &mut Vec<Sustained>) -> Result<()> {
    if !has_two_processors() {
        eprintln!("bench: sustained events are not measured: that needs two processors");
        return Ok(());
    }
    let mut pair = Pair::start(Kind::Datagrams)?;
    for &rate in STEPS {
        bench.check()?;
        let culprit = Culprit::start(bench.culprit, "trace", bench.scratch.path())?;
        pin(culprit.process().pid(), SERVER)?;
        let before = culprit.cpu_seconds()?;
        pair.begin(&Order { seconds: bench.plan.seconds(), rate })?;
        let done = pair.finish()?;
        let cpu = (culprit.cpu_seconds()? - before) / done.seconds;
        let Summary { events, lost } = culprit.end()?;
        let step = Sustained { asked: rate, reached: done.count as f64 / done.seconds, events, lost, cpu };
        eprintln!(
            "bench: sustained: {:>7.0} events/s (asked for {:.0}), {} reported, {} lost, culprit took {:.0} % of a processor",
            step.reached,
            step.asked,
            step.events,
            step.lost,
            step.cpu * 100.0
        );
        let go_on = step.holds();
        steps.push(step);
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// A recording of connects, replayed several times.
pub(crate) fn replays(bench: &Bench<'_>, replays: &mut Vec<Replay>) -> Result<()> {
    let file = bench.scratch.path().join("connects.rec");
    let mut pair = Pair::start(Kind::Connects)?;
    let culprit = Culprit::record(bench.culprit, &file, bench.scratch.path())?;
    // Long enough that starting the replay is not what is measured.
    pair.run(bench.plan.seconds() * 3.0)?;
    culprit.end_recording()?;
    let recording_bytes = fs::metadata(&file)?.len();
    for _ in 0..bench.plan.rounds().min(5) {
        bench.check()?;
        let mut command = Command::new(bench.culprit);
        command.arg("replay").arg(&file).args(["-o", "/dev/null", "--format=json"]);
        let began = Instant::now();
        let mut process = Process::logged(&mut command, &bench.scratch.path().join("talk"))?;
        let status = process.wait(REPLAY)?;
        let seconds = began.elapsed().as_secs_f64();
        let (line, said) = (process.line(), process.said());
        ensure!(status.success(), "`{line}` failed: {status}{said}");
        let events =
            reported(&said).with_context(|| format!("`{line}` did not say how many events{said}"))?;
        eprintln!("bench: replay: {events} events in {seconds:.2} s: {:.0}/s", events as f64 / seconds);
        replays.push(Replay { events, seconds, recording_bytes });
    }
    Ok(())
}

/// Of the closing line: `culprit: 1234 events, none lost, 2.0 s`.
fn reported(talk: &str) -> Option<u64> {
    let line = talk
        .lines()
        .rev()
        .find_map(|line| line.trim_start().strip_prefix("culprit: ")?.split_once(" events"));
    line?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_says_how_many_events_there_were() {
        let talk = "culprit: connect sees less: x\nculprit: 1234 events, none lost, 2.0 s\n";
        assert_eq!(reported(talk), Some(1234));
        assert_eq!(reported("culprit: nothing"), None);
    }
}
