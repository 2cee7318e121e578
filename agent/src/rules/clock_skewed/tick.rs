//! Is it the tick that makes the clock wrong, or that sets it right little by little? `adjtimex --tick 11000` has it run
//! ten percent fast, and no step is ever seen; a time daemon does the same for a while to take an offset away.

use crate::{
    domains::clock::{Tick, rate},
    fact::Process,
    pipeline::{View, remedy::Remedy},
    records::comm,
    rules::{
        clocks::{daemons::daemon, verdict::Verdict},
        text,
    },
    text::{duration::span, shell::Command},
};

/// The tick that drives the clock further away: the way the clock is off already.
fn away<'a>(judged: &Verdict, view: &'a View<'_>) -> Option<&'a Tick> {
    let tick = view.world.wrong_tick()?;
    ((tick.ppm() > 0.0) == (judged.ahead_ns > 0)).then_some(tick)
}

/// The process that set a tick that drives the clock away.
pub(super) fn author(judged: &Verdict, view: &View<'_>) -> Option<Process> {
    view.world.known.named(&away(judged, view)?.by.as_ref()?.owner)
}

/// What the tick does to the clock.
pub(super) fn sentence(judged: &Verdict, view: &View<'_>) -> Option<String> {
    let tick = view.world.wrong_tick()?;
    let (ppm, tick_us) = (tick.ppm(), tick.tick_us);
    let who = tick.by.as_ref().and_then(|author| view.world.known.named(&author.owner));
    let set = who.as_ref().map_or_else(
        || format!("its tick is {tick_us} (10000 is right)"),
        |who| {
            let at = view.world.wall_text(tick.since_ns);
            format!("{} set tick {tick_us} (10000 is right) at {at}", text::process(who))
        },
    );
    if away(judged, view).is_some() {
        return Some(match who {
            Some(_) => format!("It runs {} since {set}.", rate(ppm)),
            None => format!("It runs {}: {set}.", rate(ppm)),
        });
    }
    // What is off is taken away at this rate.
    let left_ms = judged.ahead_ns.unsigned_abs() as f64 / (ppm.abs() / 1e6) / 1e6;
    let left = span((left_ms as u64).saturating_mul(1_000_000));
    Some(format!("It is being slewed back: {set} and it runs {}; that takes {left} more.", rate(ppm)))
}

/// To set the tick right, unless a time daemon would set it again.
pub(super) fn remedy(judged: &Verdict, view: &View<'_>) -> Option<Remedy> {
    let tick = away(judged, view)?;
    let by = tick.by.as_ref().and_then(|author| daemon(&comm(&author.owner.comm)));
    match by {
        Some(daemon) => Some(daemon.whom_it_follows()),
        None => Some(
            Remedy::from("have it run at the right rate first: ")
                .and(Command::new("adjtimex").words("--tick 10000")),
        ),
    }
}
