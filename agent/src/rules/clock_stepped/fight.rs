//! Two programs that set the clock against each other: each undoes what the other did. One incident, which names
//! both, for as long as it lasts; which of the two is right is not known here.

use super::{Series, SeriesStep, WARNING_NS};
use crate::{pipeline::incident::ClockVerdict, records::comm, time::SECOND_NS};

/// What was undone sooner than this may come again just as soon, if another program undid it: its end is waited for.
const SOON_NS: u64 = WARNING_NS;
/// Two that have set the clock in turns have ceased to when neither has for this long.
const CEASED_NS: u64 = 60 * SECOND_NS;
/// Of a fight that goes on, news are reported this often.
const EMIT_EVERY_NS: u64 = 10 * SECOND_NS;
/// Steps in turns from which on it is a fight, and no correction of a mistake.
const TURNS: usize = 3;

impl Series {
    /// A step now belongs to these: they have not been undone, or a moment ago only.
    pub(super) fn may_go_on(&self, now_ns: u64) -> bool {
        let waits = self.verdict == ClockVerdict::Reverted
            && now_ns.saturating_sub(self.last().at_ns) <= self.patience_ns();
        !self.over && (!self.is_right() || waits)
    }

    /// For how long after the last step another one may come that belongs to these.
    pub(super) fn patience_ns(&self) -> u64 {
        if self.verdict != ClockVerdict::Reverted {
            return 0;
        }
        if self.fight().is_some() {
            return CEASED_NS;
        }
        let Some([before, last]) = self.entries.last_chunk() else { return 0 };
        let apart_ns = last.step.at_ns.saturating_sub(before.step.at_ns);
        let least_ns = if program(before) == program(last) { 0 } else { EMIT_EVERY_NS };
        if apart_ns <= SOON_NS { least_ns.max(2 * apart_ns) } else { 0 }
    }

    /// Whether it is time to report another step: at once, but for a fight that is known to be one.
    pub(super) fn emits_again(&self, now_ns: u64) -> bool {
        !self.fight_emitted
            || self.fight().is_none()
            || now_ns.saturating_sub(self.step_emitted_ns) >= EMIT_EVERY_NS
    }

    /// All steps so far are reported.
    pub(super) fn has_emitted(&mut self, now_ns: u64) {
        self.fight_emitted = self.fight().is_some();
        (self.step_emitted_ns, self.step_pending) = (now_ns, false);
    }

    /// The last step of each of the two programs that set the clock in turns, the earlier one first.
    pub(super) fn fight(&self) -> Option<(&SeriesStep, &SeriesStep)> {
        let turns = |two: &[SeriesStep]| {
            let [one, other] = two else { return false };
            let forward = |entry: &SeriesStep| entry.step.delta_ns() > 0;
            forward(one) != forward(other)
                && program(one).zip(program(other)).is_some_and(|(one, other)| one != other)
        };
        let last = self.entries.len().checked_sub(TURNS)?;
        if !self.entries[last..].windows(2).all(turns) {
            return None;
        }
        let [one, other] = self.entries.last_chunk()?;
        Some((one, other))
    }

    /// How long the steps have been going on, nanoseconds.
    pub(super) fn lasted_ns(&self) -> u64 {
        self.last().at_ns.saturating_sub(self.entries[0].step.at_ns)
    }
}

/// Which program: one that is started again for each step is the same.
fn program(entry: &SeriesStep) -> Option<String> {
    entry.step.by.as_ref().map(|author| comm(&author.owner.comm))
}
