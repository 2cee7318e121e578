//! What the hardware clock has to do with a step. It may have been wrong for years, and what sets the wall
//! clock often writes it, too: alone it neither convicts nor acquits, and what it said before is reported beside.

use super::{Series, Step};
use crate::{
    domains::clock::references::Source,
    fact::ReferenceKind,
    pipeline::View,
    rules::clocks::called,
    text::duration::{off, span},
    time::SECOND_NS,
};

/// A hardware clock without a time daemon is some seconds off, which contradicts nothing.
const NEARLY_NS: u64 = 30 * SECOND_NS;
/// What vouched for a clock so long ago counts for nothing.
const VOUCHED_NS: u64 = 3600 * SECOND_NS;

/// How the hardware clock stands to a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Hardware {
    /// There is none, or it was not read before, or it is kept in local time.
    #[default]
    Silent,
    /// It says that the wall clock is right now, and was wrong before.
    Agrees(Source),
    /// It still says what the wall clock said before, and that it is so far off now (whole seconds).
    Contradicts(Source, i64),
    /// It did, until it was written; that was after the step.
    WrittenSince(Source, i64),
    /// It moved between the last look before the step and the first one after it: it was written, or this machine
    /// stood still and it did not.
    MovedWith(Source, i64),
}

impl Hardware {
    /// Judges by the hardware clock that was read before the first step.
    pub(super) fn of(series: &Series, view: &View<'_>) -> Self {
        let (world, began_ns) = (view.world, series.entries[0].step.looked_ns);
        let references = world.references();
        for (source, readings) in references.all().filter(|(source, _)| source.0 == ReferenceKind::Rtc) {
            let Some(before) = readings.iter().rfind(|reading| reading.boot_ns < began_ns) else { continue };
            let was_off = before.utc_ns.abs_diff(series.base_ns);
            let ahead_ns = world.offset_ns().saturating_sub(before.utc_ns);
            // In whole seconds: what is compared from tick to tick must not change with every reading.
            let ahead_ns = ahead_ns / SECOND_NS as i64 * SECOND_NS as i64;
            let near = NEARLY_NS.min(series.largest_ns() / 4).max(before.error_ns);
            let source = source.clone();
            if ahead_ns.unsigned_abs() <= near {
                return Self::Agrees(source);
            }
            if was_off > near {
                // Neither then nor now: in local time, or simply wrong.
                continue;
            }
            let written = references.written(&source).filter(|written| written.before_ns > began_ns);
            return match written {
                None => Self::Contradicts(source, ahead_ns),
                Some(written) if written.after_ns > series.entries[0].step.at_ns => {
                    Self::WrittenSince(source, ahead_ns)
                }
                Some(_) => Self::MovedWith(source, ahead_ns),
            };
        }
        Self::Silent
    }

    /// It stood by what the wall clock said before.
    pub(super) fn contradicts(&self) -> bool {
        matches!(self, Self::Contradicts(..) | Self::WrittenSince(..))
    }

    /// What that means, for a step of which nothing else is known.
    pub(super) fn sentence(&self) -> Option<String> {
        let it = |source: &Source| capital(&called(source));
        match self {
            Self::Silent => None,
            Self::Agrees(source) => Some(format!(
                "{} says that it is right now and was wrong before; it alone proves nothing.",
                it(source)
            )),
            Self::Contradicts(source, ahead_ns) => Some(format!(
                "{} stands by the time before the step: by it the wall clock is {} now. That settles nothing: a hardware clock may have been wrong for long (an empty battery, a cloned image).",
                it(source),
                off(*ahead_ns)
            )),
            Self::WrittenSince(source, ahead_ns) => Some(format!(
                "{} stood by the time before the step ({}) until it was written from the wall clock (hwclock --systohc, or the kernel for a time daemon): what it says since vouches for nothing.",
                it(source),
                off(*ahead_ns)
            )),
            Self::MovedWith(source, ahead_ns) => Some(format!(
                "{} moved with it: either it was written too, or this machine stood still for {} and the step made up for that.",
                it(source),
                span(ahead_ns.unsigned_abs())
            )),
        }
    }
}

/// Whether something had vouched for the wall clock before a step: a time daemon by way of the kernel, a
/// server that was asked, the hypervisor.
pub(super) fn vouched(step: &Step, view: &View<'_>) -> bool {
    let firm = [ReferenceKind::Kernel, ReferenceKind::Ntp, ReferenceKind::Ptp];
    view.world.references().all().filter(|(source, _)| firm.contains(&source.0)).any(|(_, readings)| {
        let before = readings.iter().rfind(|reading| reading.boot_ns < step.looked_ns);
        before.is_some_and(|reading| {
            step.looked_ns.saturating_sub(reading.boot_ns) < VOUCHED_NS
                && reading.utc_ns.abs_diff(step.before_ns) <= reading.error_ns.saturating_add(2 * SECOND_NS)
        })
    })
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
