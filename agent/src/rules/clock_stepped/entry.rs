//! One step, in words.

use super::SeriesStep;
use crate::{
    domains::clock,
    fact::Process,
    pipeline::incident::{ClockStep, Parent, StepCause},
    pipeline::world::World,
    records::comm,
    rules::clocks::reading,
    text::{
        duration::{by, span},
        shown,
    },
    time::SECOND_NS,
};

/// Steps below this are said to the millisecond.
const FINE_NS: u64 = 60 * SECOND_NS;

impl SeriesStep {
    pub(super) fn how(&self) -> StepCause {
        match &self.step {
            step if step.by.is_some() => StepCause::Call,
            step if step.slept_ns > 0 => StepCause::Resume,
            _ if self.seen => StepCause::Hypervisor,
            _ => StepCause::Unseen,
        }
    }

    pub(super) fn process(&self, world: &World) -> Option<Process> {
        let author = self.step.by.as_ref()?;
        let mut process = world.known.named(&author.owner)?;
        if process.exe.is_none() {
            process.exe.clone_from(&author.exe);
        }
        Some(process)
    }

    /// `date[4711] (clock_settime)`, `no call: resume from a suspend of 8 h`.
    pub(super) fn author(&self) -> String {
        match &self.step.by {
            Some(author) => format!("{}[{}]", shown(&comm(&author.owner.comm)), author.owner.process),
            None => match self.how() {
                StepCause::Resume => {
                    format!("no call set it: resume from a suspend of {}", span(self.step.slept_ns))
                }
                StepCause::Unseen => {
                    "by whom cannot be seen: the hooks on the calls are not attached".to_owned()
                }
                _ => "no call set it: hypervisor or restored VM".to_owned(),
            },
        }
    }

    /// `forward 125 days 20 h by date[4711]`.
    pub(super) fn short(&self) -> String {
        let by_whom = if self.step.by.is_some() {
            format!("by {}", self.author())
        } else {
            format!("({})", self.author())
        };
        let calls = if self.calls > 1 { format!(" in {} calls", self.calls) } else { String::new() };
        format!("{}{calls} {by_whom}", by(self.step.delta_ns()))
    }

    pub(super) fn shown(&self, world: &World) -> ClockStep {
        let step = &self.step;
        let author = step.by.as_ref();
        ClockStep {
            before: clock::reading(step.at_ns, step.before_ns),
            after: clock::reading(step.at_ns, step.after_ns),
            delta_ns: step.delta_ns(),
            how: self.how(),
            call: author.map(|author| author.call),
            process: self.process(world),
            parent: author
                .filter(|author| author.parent != 0)
                .map(|author| Parent { pid: author.parent, comm: author.parent_comm.clone() }),
            within_ms: step.at_ns.saturating_sub(step.looked_ns) / 1_000_000,
            suspended_ms: (step.slept_ns > 0).then_some(step.slept_ns / 1_000_000),
        }
    }

    pub(super) fn readings(&self) -> String {
        let step = &self.step;
        let fine = step.delta_ns().unsigned_abs() < FINE_NS;
        let read = |offset_ns| reading(step.at_ns, offset_ns, fine);
        format!("from {} to {}", read(step.before_ns), read(step.after_ns))
    }

    /// What is known when no call was seen, in a sentence.
    pub(super) fn without_author(&self) -> String {
        match self.how() {
            StepCause::Resume => format!(
                "No call set it: the machine resumed from a suspend of {}, and its clock was set from the hardware clock.",
                span(self.step.slept_ns)
            ),
            StepCause::Unseen => {
                "Whether a call set it is not known: the hooks on those calls are not attached (culprit doctor says why).".to_owned()
            }
            _ => "No call set it: the kernel did for its hypervisor, or this is a restored VM; or a 32-bit process did, whose calls cannot be seen.".to_owned(),
        }
    }

    /// What the calls of one program have in common: ` (/bin/date)` and `clock_settime, started by bash[4700]`.
    pub(super) fn manner(&self, world: &World) -> Option<(String, String)> {
        let author = self.step.by.as_ref()?;
        let process = self.process(world);
        let exe =
            process.as_ref().and_then(|process| process.exe.as_ref()).map(|exe| format!(" ({})", shown(exe)));
        let place = process.as_ref().and_then(place).map(|place| format!(", in {place}"));
        let parent = (author.parent != 0)
            .then(|| format!(", started by {}[{}]", shown(&author.parent_comm), author.parent));
        Some((
            exe.unwrap_or_default(),
            format!("{}{}{}", author.call.name(), parent.unwrap_or_default(), place.unwrap_or_default()),
        ))
    }
}

/// Where a process belongs, for those who do not know it by its number.
fn place(process: &Process) -> Option<String> {
    let pod = process.pod.as_ref().map(|pod| format!("pod {}", shown(pod)));
    pod.or_else(|| process.container.as_ref().map(|name| format!("container {}", shown(name))))
        .or_else(|| {
            process.container_id.as_ref().map(|id| format!("container {}", shown(id.get(..12).unwrap_or(id))))
        })
        .or_else(|| process.unit.as_ref().map(|unit| shown(unit).into_owned()))
}
