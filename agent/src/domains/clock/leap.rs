//! Leap seconds: who armed one, what the kernel says of it, and whether a move of the wall clock is one. That takes
//! a second, midnight in UTC, and that one was armed or TAI − UTC has changed by as much.

use ebpf_probes::probes::clock::{ClockMoved, ClockRecord, mode, status};

use super::Author;
use crate::{fact::LeapKind, time::SECOND_NS};

/// What looking at clocks and a slew of half a second may be wrong by.
const UNSURE_NS: u64 = 20_000_000;
const DAY_NS: i64 = crate::time::DAY_NS.cast_signed();
/// What was armed so long ago is over: it is for the end of the day.
const ARMED_NS: u64 = 25 * 3600 * SECOND_NS;

/// A leap second as it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct LeapSecond {
    /// One more, or one less.
    pub kind: LeapKind,
    /// Who had armed it, if that was seen.
    pub by: Option<Author>,
    /// When that was seen or found, CLOCK_BOOTTIME in nanoseconds.
    pub armed_ns: Option<u64>,
    /// TAI − UTC before and after it, seconds, if it was seen to change.
    pub tai: Option<(i32, i32)>,
}

/// What is armed, and TAI − UTC.
#[derive(Debug, Default)]
pub(super) struct Leaps {
    armed: Option<(LeapKind, u64)>,
    by: Option<(Author, LeapKind)>,
    /// TAI − UTC and since when.
    tai: Option<(i32, u64)>,
    /// What it was before.
    tai_before: Option<i32>,
}

impl Leaps {
    /// What the kernel says. What was armed is remembered until it is over: a daemon disarms it when it has happened.
    pub(super) fn says(&mut self, boot_ns: u64, armed: Option<LeapKind>, tai_s: i32) {
        if let Some(kind) = armed
            && self.armed.is_none_or(|(known, _)| known != kind)
        {
            self.armed = Some((kind, boot_ns));
        }
        match self.tai {
            Some((known, _)) if known == tai_s => {}
            known => {
                self.tai_before = known.map(|(known, _)| known);
                self.tai = Some((tai_s, boot_ns));
            }
        }
    }

    /// A call set the clock's status: `kind` is what it armed, `None` disarms.
    pub(super) fn set(&mut self, boot_ns: u64, kind: Option<LeapKind>, author: impl FnOnce() -> Author) {
        let Some(kind) = kind else { return };
        self.armed = Some((kind, boot_ns));
        // Who arms it again and again was the first to.
        if self.by.as_ref().is_none_or(|(_, known)| *known != kind) {
            self.by = Some((author(), kind));
        }
    }

    /// Whether a move of the clock is a leap second; it is over then.
    pub(super) fn second(
        &mut self,
        record: &ClockMoved,
        before_ns: i64,
        delta_ns: i64,
    ) -> Option<LeapSecond> {
        let kind = if delta_ns < 0 { LeapKind::Insert } else { LeapKind::Delete };
        if delta_ns.abs_diff(kind.moves_ns()) > UNSURE_NS {
            return None;
        }
        let (at_ns, looked_ns) = (record.header.boot_ns, record.looked_ns);
        let wall_ns = i64::try_from(at_ns).ok()?.checked_add(before_ns)?;
        let since_ns = wall_ns.rem_euclid(DAY_NS);
        let near_ns =
            i64::try_from(at_ns.saturating_sub(looked_ns)).ok()?.saturating_add(2 * SECOND_NS as i64);
        if since_ns > near_ns && DAY_NS - since_ns > near_ns {
            return None;
        }
        let armed = self
            .armed
            .filter(|(armed, since_ns)| *armed == kind && at_ns.saturating_sub(*since_ns) < ARMED_NS);
        let tai = self.tai.zip(self.tai_before).and_then(|((tai, since_ns), before)| {
            let with_it =
                since_ns >= looked_ns && i64::from(tai - before) * SECOND_NS as i64 == -kind.moves_ns();
            with_it.then_some((before, tai))
        });
        if armed.is_none() && tai.is_none() {
            return None;
        }
        let by = self.by.take().filter(|(_, known)| *known == kind).map(|(author, _)| author);
        self.armed = None;
        Some(LeapSecond { kind, by, armed_ns: armed.map(|(_, since_ns)| since_ns), tai })
    }
}

/// What a call armed.
pub(super) fn armed(record: &ClockRecord) -> Option<LeapKind> {
    if record.modes & mode::STATUS == 0 || record.modes & mode::ADJTIME != 0 {
        return None;
    }
    match record.status & (status::INSERT | status::DELETE) {
        status::INSERT => Some(LeapKind::Insert),
        status::DELETE => Some(LeapKind::Delete),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ebpf_probes::abi::Header;

    use super::*;

    const SECOND: i64 = SECOND_NS as i64;

    /// The clock goes from one second to another, `gap` of a look apart; midnight is at `at` seconds of BOOTTIME.
    fn moved(at_s: u64) -> ClockMoved {
        ClockMoved {
            header: Header { boot_ns: at_s * SECOND_NS + 100_000_000, ..Header::default() },
            looked_ns: at_s * SECOND_NS - 150_000_000,
            ..ClockMoved::default()
        }
    }

    /// REALTIME − BOOTTIME by which midnight is at 500 s.
    const BEFORE: i64 = DAY_NS * 20_000 - 500 * SECOND;

    fn inserts(leaps: &mut Leaps, at_s: u64, delta_ns: i64) -> Option<LeapKind> {
        leaps.second(&moved(at_s), BEFORE, delta_ns).map(|second| second.kind)
    }

    #[test]
    fn a_second_at_midnight_that_was_armed_is_one() {
        let mut leaps = Leaps::default();
        leaps.says(SECOND_NS, Some(LeapKind::Insert), 37);
        assert_eq!(inserts(&mut leaps, 500, -SECOND), Some(LeapKind::Insert));
        // Only once.
        assert_eq!(inserts(&mut leaps, 500, -SECOND), None);
    }

    #[test]
    fn neither_another_size_nor_another_time_nor_one_that_was_not_armed_is() {
        let armed = || {
            let mut leaps = Leaps::default();
            leaps.says(SECOND_NS, Some(LeapKind::Insert), 0);
            leaps
        };
        assert_eq!(inserts(&mut armed(), 500, SECOND), None);
        assert_eq!(inserts(&mut armed(), 500, -SECOND * 3 / 2), None);
        assert_eq!(inserts(&mut armed(), 900, -SECOND), None);
        assert_eq!(inserts(&mut Leaps::default(), 500, -SECOND), None);
        assert_eq!(inserts(&mut armed(), 500 + 26 * 3600, -SECOND), None);
    }

    #[test]
    fn tai_that_changed_with_it_proves_it_even_if_no_process_was_seen_to_arm_it() {
        let mut leaps = Leaps::default();
        leaps.says(SECOND_NS, None, 37);
        leaps.says(500 * SECOND_NS, None, 38);
        let second = leaps.second(&moved(500), BEFORE, -SECOND).expect("a leap second");
        assert_eq!((second.kind, second.tai, second.by), (LeapKind::Insert, Some((37, 38)), None));
    }
}
