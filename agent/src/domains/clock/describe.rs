//! What facts about the clock can be asked. The clock has no peer, and concerns every process.

use super::{What, text};
use crate::{
    domains::{Describe, Weight},
    fact::Phrase,
    time::SECOND_NS,
};

/// A wall clock that is so far off begins to matter.
const MATTERS_NS: u64 = 30 * SECOND_NS;

impl Describe for What {
    fn weight(&self) -> Weight {
        Weight::of(match self {
            Self::ClockSet { .. }
            | Self::ClockMoved { .. }
            | Self::LeapSecond { .. }
            | Self::MachinePaused { .. }
            | Self::Suspended { .. } => true,
            // What a time daemon slews is set right; a tick of another length is worth a line all the same.
            Self::ClockSlewed { refused, tick_us, .. } => {
                *refused || tick_us.is_some_and(|tick_us| tick_us != 10_000)
            }
            Self::ClockCompared { ahead_ns, .. } => ahead_ns.unsigned_abs() >= MATTERS_NS,
        })
    }

    fn concerns_everyone(&self) -> bool {
        match self {
            Self::ClockSet { .. }
            | Self::ClockMoved { .. }
            | Self::LeapSecond { .. }
            | Self::MachinePaused { .. }
            | Self::Suspended { .. } => true,
            Self::ClockSlewed { .. } | Self::ClockCompared { .. } => false,
        }
    }

    fn phrase(&self) -> Option<Phrase> {
        Some(text::phrase(self))
    }
}
