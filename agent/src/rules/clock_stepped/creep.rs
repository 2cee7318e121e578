//! Steps too small to be reported, made by one program in one direction, again and again: together they are a step.

use ebpf_probes::abi::Owner;

use crate::{domains::clock::Step, time::SECOND_NS};

/// They belong together when no more than this lies between two.
const APART_NS: u64 = 600 * SECOND_NS;

/// Small steps of one program, as far as they have come.
#[derive(Debug, Clone, Default)]
pub(super) struct Creep {
    run: Option<Run>,
}

#[derive(Debug, Clone)]
struct Run {
    author: Owner,
    first: Step,
    last_ns: u64,
    sum_ns: i64,
    calls: u64,
}

impl Creep {
    /// Adds a small step; all of them as one, with their number, once they have come to `step_ns`.
    pub(super) fn add(&mut self, step: &Step, step_ns: u64) -> Option<(Step, u64)> {
        // What no call made is drift, or a leap second.
        let author = step.by.as_ref()?.owner;
        let delta_ns = step.delta_ns();
        let goes_on = self.run.take().filter(|run| {
            run.author.process == author.process
                && run.sum_ns.signum() == delta_ns.signum()
                && step.at_ns.saturating_sub(run.last_ns) <= APART_NS
        });
        let mut run =
            goes_on.unwrap_or_else(|| Run { author, first: step.clone(), last_ns: 0, sum_ns: 0, calls: 0 });
        run.last_ns = step.at_ns;
        run.sum_ns = run.sum_ns.saturating_add(delta_ns);
        run.calls += 1;
        let whole = (run.sum_ns.unsigned_abs() >= step_ns).then(|| {
            let before_ns = step.after_ns.saturating_sub(run.sum_ns);
            (Step { looked_ns: run.first.looked_ns, before_ns, ..step.clone() }, run.calls)
        });
        self.run = Some(run);
        whole
    }

    /// A step that is one by itself: what comes after it begins again.
    pub(super) fn ends(&mut self) {
        self.run = None;
    }
}
