//! How fast the wall clock is set to run: the tick and the frequency that `adjtimex(2)` sets. Both shift MONOTONIC and
//! BOOTTIME alike, so no step is ever seen, and only another clock shows what it leads to.

use super::Author;

/// Microseconds of a tick at the right rate: a hundredth of a second (USER_HZ).
const STRAIGHT: i64 = 10_000;
/// What the kernel lets a frequency be, parts per million (MAXFREQ of kernel/time/ntp.c): a rate beyond is a tick's.
const MOST_PPM: f64 = 500.0;
/// A call is what changed the tick if it returned this shortly before that was seen, nanoseconds.
const SHORTLY_NS: u64 = 2_000_000_000;

/// A tick that makes the clock run wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Microseconds a tick.
    pub tick_us: i64,
    /// When it was set, or first seen, CLOCK_BOOTTIME in nanoseconds.
    pub since_ns: u64,
    /// Who set it; `None` when that was before culprit started, or was not seen.
    pub by: Option<Author>,
}

impl Tick {
    /// How much faster than time the clock runs for it, parts per million; negative is slower.
    pub fn ppm(&self) -> f64 {
        ppm(self.tick_us)
    }
}

/// What a tick makes of the clock's rate, parts per million.
pub(super) fn ppm(tick_us: i64) -> f64 {
    (tick_us - STRAIGHT) as f64 * 1e6 / STRAIGHT as f64
}

/// The tick as it stands.
#[derive(Debug, Default)]
pub(super) struct Rate {
    now: Option<Tick>,
    /// The last call that set one: when, to what, who.
    called: Option<(u64, i64, Author)>,
}

impl Rate {
    /// A call set the tick.
    pub(super) fn set(&mut self, at_ns: u64, tick_us: i64, by: Author) {
        // Time daemons set it again and again.
        if self.now.as_ref().is_none_or(|known| known.tick_us != tick_us || known.by.is_none()) {
            self.now = Some(Tick { tick_us, since_ns: at_ns, by: Some(by.clone()) });
        }
        self.called = Some((at_ns, tick_us, by));
    }

    /// The kernel says what it is.
    pub(super) fn says(&mut self, at_ns: u64, tick_us: i64) {
        if self.now.as_ref().is_some_and(|known| known.tick_us == tick_us) {
            return;
        }
        let called = self.called.take().filter(|(called_ns, called_us, _)| {
            *called_us == tick_us && at_ns.saturating_sub(*called_ns) <= SHORTLY_NS
        });
        let (since_ns, by) = called.map_or((at_ns, None), |(called_ns, _, by)| (called_ns, Some(by)));
        self.now = Some(Tick { tick_us, since_ns, by });
    }

    /// The tick, if it alone makes the clock run faster or slower than any time daemon's frequency does.
    pub(super) fn wrong(&self) -> Option<&Tick> {
        self.now.as_ref().filter(|tick| tick.ppm().abs() > MOST_PPM)
    }
}

/// `10 % fast`, `0.6 % slow`.
pub fn rate(ppm: f64) -> String {
    let percent = format!("{:.2}", ppm.abs() / 10_000.0);
    let percent = percent.trim_end_matches('0').trim_end_matches('.');
    format!("{percent} % {}", if ppm < 0.0 { "slow" } else { "fast" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_said_in_percent() {
        assert_eq!((rate(ppm(11_000)), rate(ppm(9_940))), ("10 % fast".to_owned(), "0.6 % slow".to_owned()));
    }

    #[test]
    fn what_the_kernel_says_is_a_call_s_if_that_came_shortly_before() {
        let mut rate = Rate::default();
        rate.says(1, 11_000);
        assert_eq!(rate.wrong().map(|tick| (tick.since_ns, tick.by.is_some())), Some((1, false)));
        rate.says(2, 10_001);
        assert_eq!(rate.wrong(), None);
    }
}
