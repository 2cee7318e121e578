//! What the kernel knows of its own clock: a time daemon says by `adjtimex` that the clock is right,
//! and by how much it may be wrong; the kernel adds 500 parts per million to that as time goes by, and no longer
//! believes it at 16 s.
//!
//! "Not synchronised" does not mean that the clock is wrong, or that no time daemon runs: chrony reports to the kernel
//! only with `rtcsync` in its configuration. And a clock set by hand (`settimeofday`) is not synchronised from
//! then on: a reading never vouches for such a step. One set with `ADJ_SETOFFSET`, as time daemons do, it does.
//! <https://man7.org/linux/man-pages/man2/adjtimex.2.html>

use std::{io, mem::MaybeUninit};

use nix::libc;
use serde::Serialize;

use super::Failure;
use crate::{
    clockwatch::Sample,
    fact::{LeapKind, Reading, ReferenceKind},
};

/// Name of the kernel as a reference.
pub const NAME: &str = "kernel";
const MICROSECOND_NS: u64 = 1_000;

/// The kernel's account of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct State {
    /// A time daemon has reported to the kernel that the clock is right.
    pub synchronised: bool,
    /// By how much the clock may be wrong, nanoseconds: means something only if it is synchronised.
    pub max_error_ns: u64,
    /// By how much it is thought to be wrong, nanoseconds.
    pub estimated_error_ns: u64,
    /// By how much its frequency is corrected, parts per million.
    pub frequency_ppm: f64,
    /// The leap second that is armed for the end of the day.
    pub leap_second: Option<LeapKind>,
    /// TAI − UTC, seconds; 0 where it has not been set.
    pub tai_s: i32,
    /// The length of a tick, microseconds; 10000 is the right rate.
    pub tick_us: i64,
}

/// What the kernel says, and what that makes of the wall clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Synchronisation {
    /// Its account.
    pub state: State,
    /// The wall clock, if it is synchronised.
    pub reading: Option<Reading>,
}

/// Asks the kernel. Any user may.
pub fn look() -> Result<Synchronisation, Failure> {
    // The clock first: a process that sets it by hand in between is found to have made it unsynchronised.
    let clocks = Sample::now();
    let state = state()
        .map_err(|error| Failure { name: NAME.into(), why: format!("adjtimex is refused: {error}") })?;
    Ok(Synchronisation { state, reading: reading(&state, &clocks) })
}

fn reading(state: &State, clocks: &Sample) -> Option<Reading> {
    state.synchronised.then(|| Reading {
        boot_ns: clocks.boot_ns,
        kind: ReferenceKind::Kernel,
        name: NAME.into(),
        utc_ns: clocks.real_ns,
        error_ns: state.max_error_ns.saturating_add(clocks.spread_ns.div_ceil(2)),
    })
}

/// Asks the kernel for its account.
pub fn state() -> io::Result<State> {
    // All zero: `modes` is 0, which changes nothing.
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the kernel reads and writes one `timex` there, and no more.
    let result = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it consists of numbers, for which zeroes are values too; the kernel has filled them in.
    let timex = unsafe { timex.assume_init() };
    Ok(account(&timex, result))
}

fn account(timex: &libc::timex, result: i32) -> State {
    let microseconds = |value: libc::c_long| u64::try_from(value).unwrap_or(0) * MICROSECOND_NS;
    State {
        synchronised: result != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        max_error_ns: microseconds(timex.maxerror),
        estimated_error_ns: microseconds(timex.esterror),
        // 16 bits of it are fraction.
        frequency_ppm: timex.freq as f64 / 65_536.0,
        leap_second: match timex.status & (libc::STA_INS | libc::STA_DEL) {
            libc::STA_INS => Some(LeapKind::Insert),
            libc::STA_DEL => Some(LeapKind::Delete),
            _ => None,
        },
        tai_s: timex.tai,
        tick_us: timex.tick,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCKS: Sample =
        Sample { boot_ns: 7, real_ns: 1_700_000_000_000_000_000, slept_ns: 0, spread_ns: 21 };

    fn timex() -> libc::timex {
        // SAFETY: numbers only.
        let mut timex: libc::timex = unsafe { MaybeUninit::zeroed().assume_init() };
        timex.maxerror = 1_500;
        timex.esterror = 20;
        timex.freq = -98_304;
        timex.status = libc::STA_INS;
        timex.tai = 37;
        timex.tick = 10_000;
        timex
    }

    #[test]
    fn a_synchronised_kernel_vouches_for_the_wall_clock() {
        let state = account(&timex(), libc::TIME_OK);
        let expected = State {
            synchronised: true,
            max_error_ns: 1_500_000,
            estimated_error_ns: 20_000,
            frequency_ppm: -1.5,
            leap_second: Some(LeapKind::Insert),
            tai_s: 37,
            tick_us: 10_000,
        };
        assert_eq!(state, expected);
        let reading = reading(&state, &CLOCKS).expect("a reading");
        assert_eq!((reading.boot_ns, reading.utc_ns), (7, 1_700_000_000_000_000_000));
        assert_eq!((reading.error_ns, reading.name.as_str()), (1_500_011, "kernel"));
    }

    #[test]
    fn a_kernel_without_a_time_daemon_does_not() {
        let mut unsynchronised = timex();
        unsynchronised.status = libc::STA_UNSYNC | libc::STA_PLL;
        let state = account(&unsynchronised, libc::TIME_OK);
        assert!(!state.synchronised && reading(&state, &CLOCKS).is_none());
        assert!(!account(&timex(), libc::TIME_ERROR).synchronised);
    }

    #[test]
    fn errors_below_zero_are_none() {
        let mut odd = timex();
        odd.maxerror = -1;
        assert_eq!(account(&odd, libc::TIME_OK).max_error_ns, 0);
    }

    #[test]
    fn any_user_may_ask() {
        // Some sandboxes refuse.
        if let Ok(look) = look() {
            assert_eq!(look.reading.is_some(), look.state.synchronised);
        }
    }
}
