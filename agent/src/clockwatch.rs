//! Did the wall clock move, or did the machine sleep, whatever did it? Compares REALTIME and
//! MONOTONIC with BOOTTIME between two looks, and lets the kernel say when the clock is set.
//!
//! It does not know who moved it (the `clock` probe does), nor whether the clock is right: a virtual
//! machine paused from outside finds all its clocks stopped alike, and only a reference can say.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use culprit::clockwatch::Clockwatch;
//!
//! let mut watch = Clockwatch::new()?;
//! // At every tick; at once when its descriptor is readable, for those who poll it.
//! for record in watch.look().records() {
//!     // … to where the ring's records go.
//! }
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind},
    probes::clock::{ClockMoved, ClockSuspended},
};
use rustix::{
    io::Errno,
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use crate::{records::encode, time::clock_ns};

/// A difference below this is not a move: reading clocks is not exact, and nothing we explain needs it.
const MOVED_NS: u64 = 1_000_000;
/// The kernel slews by at most 500 parts per million: one part in this many.
const SLEW: u64 = 2_000;
/// A sleep below this is none: MONOTONIC and BOOTTIME are read one after the other.
const SLEPT_NS: i64 = 10_000_000;
/// Of several readings the one the fewest nanoseconds apart is taken.
const READINGS: usize = 3;
/// Far in the future, and below what the kernel counts in nanoseconds (year 2262).
const NEVER_SEC: i64 = 9_000_000_000;

/// Where the clocks stood, compared with BOOTTIME, which is never set and goes on through sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
    /// REALTIME − BOOTTIME, nanoseconds.
    pub real_ns: i64,
    /// BOOTTIME − MONOTONIC: how long the machine has slept since it booted, nanoseconds.
    pub slept_ns: i64,
    /// How far apart the clocks were read: what the differences may be wrong by, nanoseconds.
    pub spread_ns: u64,
}

impl Sample {
    /// Reads the clocks.
    pub fn now() -> Self {
        let mut best = Self::once();
        for _ in 1..READINGS {
            let next = Self::once();
            if next.spread_ns < best.spread_ns {
                best = next;
            }
        }
        best
    }

    fn once() -> Self {
        let before = clock_ns(ClockId::Boottime);
        let real = clock_ns(ClockId::Realtime);
        let monotonic = clock_ns(ClockId::Monotonic);
        let after = clock_ns(ClockId::Boottime);
        let spread = after - before;
        let boot = before + spread / 2;
        Self {
            boot_ns: boot.unsigned_abs(),
            real_ns: real - boot,
            slept_ns: boot - monotonic,
            spread_ns: spread.unsigned_abs(),
        }
    }
}

/// What happened between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// The wall clock moved.
    pub moved: Option<ClockMoved>,
    /// The machine slept.
    pub suspended: Option<ClockSuspended>,
}

impl Changes {
    /// The records of it, as they would come from the ring: the sleep first, which came first.
    pub fn records(&self) -> impl Iterator<Item = Bytes> {
        self.suspended.map(encode).into_iter().chain(self.moved.map(encode))
    }
}

/// Compares two looks; `was_set`: the kernel said meanwhile that the clock was set.
pub fn compare(before: &Sample, after: &Sample, was_set: bool) -> Changes {
    let elapsed = after.boot_ns.saturating_sub(before.boot_ns);
    let unsure = before.spread_ns + after.spread_ns;
    let header = |kind: Kind, len: usize| Header { boot_ns: after.boot_ns, kind: kind.0, len: len as u32 };
    let moved = after.real_ns.abs_diff(before.real_ns) >= MOVED_NS + elapsed / SLEW + unsure;
    let slept_ns = after.slept_ns.saturating_sub(before.slept_ns);
    let slept = slept_ns >= SLEPT_NS.saturating_add_unsigned(unsure);
    Changes {
        moved: moved.then(|| ClockMoved {
            header: header(Kind::CLOCK_MOVED, size_of::<ClockMoved>()),
            looked_ns: before.boot_ns,
            before_ns: before.real_ns,
            after_ns: after.real_ns,
            was_set: u32::from(was_set),
            pad: 0,
        }),
        suspended: slept.then(|| ClockSuspended {
            header: header(Kind::CLOCK_SUSPENDED, size_of::<ClockSuspended>()),
            looked_ns: before.boot_ns,
            slept_ns,
        }),
    }
}

/// Watches the clocks. To be looked at every second or so: that alone finds everything, a second late.
/// Its descriptor becomes readable when the wall clock is set, for those who cannot wait (an `AsyncFd`, say:
/// clear the readiness, then look).
#[derive(Debug)]
pub struct Clockwatch {
    timer: OwnedFd,
    last: Sample,
    /// Set after the clocks were read: explains what the next look finds.
    set_late: bool,
}

impl Clockwatch {
    /// Begins to watch.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let never = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: NEVER_SEC, tv_nsec: 0 },
        };
        // A timer that nothing waits for, except to hear from the kernel that it has become meaningless.
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
        Ok(Self { timer, last: Sample::now(), set_late: false })
    }

    /// What happened since the last look.
    pub fn look(&mut self) -> Changes {
        let set_early = self.was_set() | self.set_late;
        let now = Sample::now();
        let set_late = self.was_set();
        let changes = compare(&self.last, &now, set_early | set_late);
        self.last = now;
        self.set_late = set_late && changes.moved.is_none();
        changes
    }

    /// Where the clocks stood at the last look.
    pub fn last(&self) -> &Sample {
        &self.last
    }

    /// Whether the kernel says that the clock was set since this was asked last.
    fn was_set(&self) -> bool {
        let mut expirations = [0; 8];
        rustix::io::read(&self.timer, &mut expirations) == Err(Errno::CANCELED)
    }
}

impl AsFd for Clockwatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl AsRawFd for Clockwatch {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND_NS;

    fn look(boot_ns: u64, real_ns: i64, slept_ns: i64) -> Sample {
        Sample { boot_ns, real_ns, slept_ns, spread_ns: 200 }
    }

    #[test]
    fn a_step_back_is_reported_with_both_offsets() {
        let changes =
            compare(&look(SECOND_NS, 5_000, 0), &look(2 * SECOND_NS, 5_000 - SECOND_NS as i64, 0), true);
        let moved = changes.moved.expect("a second is a step");
        assert_eq!(moved.after_ns - moved.before_ns, -(SECOND_NS as i64));
        assert_eq!((moved.looked_ns, moved.header.boot_ns, moved.was_set), (SECOND_NS, 2 * SECOND_NS, 1));
        assert_eq!(moved.header.kind, Kind::CLOCK_MOVED.0);
        assert_eq!(changes.suspended, None);
    }

    #[test]
    fn the_fastest_slew_of_a_time_daemon_is_no_move_however_long_between_looks() {
        for seconds in [1, 60, 3600] {
            let slewed = (seconds * SECOND_NS / SLEW) as i64;
            let changes = compare(&look(0, 0, 0), &look(seconds * SECOND_NS, slewed, 0), false);
            assert_eq!(changes, Changes::default(), "{seconds} s");
        }
    }

    #[test]
    fn a_move_is_reported_from_one_millisecond_on() {
        let reported = |by: i64| compare(&look(0, 0, 0), &look(0, by, 0), false).moved.is_some();
        assert!(reported(1_000_400) && reported(-1_000_400));
        assert!(!reported(1_000_399) && !reported(-1_000_399));
    }

    #[test]
    fn a_clumsy_reading_is_not_taken_for_a_move() {
        let clumsy = Sample { spread_ns: 8_000_000, ..look(SECOND_NS, 4_000_000, 4_000_000) };
        assert_eq!(compare(&look(0, 0, 0), &clumsy, false), Changes::default());
    }

    #[test]
    fn a_night_asleep_is_a_suspend_and_no_move() {
        let night = 8 * 3600 * SECOND_NS;
        let changes = compare(&look(0, 7, 0), &look(night, 7, night as i64), true);
        assert_eq!(changes.moved, None);
        assert_eq!(changes.suspended.map(|record| record.slept_ns), Some(night as i64));
    }

    #[test]
    fn waking_a_day_behind_gives_both_records_the_sleep_first() {
        let day = 24 * 3600 * SECOND_NS as i64;
        let changes = compare(&look(0, 0, 0), &look(SECOND_NS, -day, SECOND_NS as i64), true);
        let kinds: Vec<u32> = changes
            .records()
            .map(|bytes| u32::from_ne_bytes(bytes[8..12].try_into().expect("a header")))
            .collect();
        assert_eq!(kinds, [Kind::CLOCK_SUSPENDED.0, Kind::CLOCK_MOVED.0]);
    }

    #[test]
    fn extreme_clocks_do_not_overflow() {
        let changes = compare(&look(u64::MAX, i64::MIN, i64::MAX), &look(0, i64::MAX, i64::MIN), false);
        assert!(changes.moved.is_some() && changes.suspended.is_none());
    }

    #[test]
    fn any_process_may_watch() -> io::Result<()> {
        let mut watch = Clockwatch::new()?;
        let first = *watch.last();
        let _ = watch.look();
        assert!(watch.last().boot_ns >= first.boot_ns);
        Ok(())
    }
}
