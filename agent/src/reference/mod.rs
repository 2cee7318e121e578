//! Reference clocks: what else on this machine, or a server the user named, says what time it is.
//!
//! Every reading is reported as UTC − CLOCK_BOOTTIME. BOOTTIME is never set and goes on through sleep: a reading
//! stays good across a step of the wall clock, and an answer that comes late is as good as one that does not.
//!
//! Nothing here sets a clock, and nothing opens `/dev/rtc*`, which only one process may have open.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use culprit::reference::Watch;
//!
//! let mut watch = Watch::start(vec![])?;
//! watch.ask_now();
//! while let Some(answer) = watch.try_next() {
//!     // A reading, or why there is none.
//! }
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    fact::{Reading, ReferenceKind},
    time::{self, boot_ns},
};

pub mod built;
pub mod kernel;
pub mod ptp;
pub mod rtc;
mod schedule;
mod server;
pub mod sntp;
mod watch;

pub use server::{Server, server};
pub use watch::Watch;

/// Clocks of one kind looked at, at most: no machine has more, and a broken sysfs shall not keep us busy.
const DEVICES: usize = 16;
/// 2001-01-01, seconds since 1970. Many clocks begin at 1970 or at 2000 when their battery is empty: nothing
/// earlier is a time that was set.
const EARLIEST_SEC: i64 = 978_307_200;
/// Nanoseconds of a second, as differences of clocks have them.
const SECOND_NS: i64 = time::SECOND_NS.cast_signed();

/// A reading, or why there is none.
pub type Answer = Result<Reading, Failure>;

/// A clock that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{name}: {why}")]
pub struct Failure {
    /// Which: as in [`Reading::name`].
    pub name: String,
    /// Why not, in words.
    pub why: String,
}

/// Where the machine keeps its clocks: another place in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/sys`.
    pub sysfs: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sysfs: "/sys".into(), dev: "/dev".into() }
    }
}

/// Reads every clock this machine has, once. Costs milliseconds: the hardware clock is slow to read. A kernel
/// whose clock no time daemon has called right gives neither a reading nor a failure.
pub fn local(roots: &Roots) -> Vec<Answer> {
    let mut answers = ptp::readings(roots);
    answers.extend(rtc::readings(&roots.sysfs));
    answers.extend(kernel::look().map(|look| look.reading).transpose());
    answers
}

/// When a clock was read: between two looks at BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    /// The middle, CLOCK_BOOTTIME in nanoseconds.
    boot_ns: u64,
    /// From the middle to either look, nanoseconds.
    half_ns: u64,
}

/// Does something, and says when.
fn timed<T>(read: impl FnOnce() -> T) -> (T, Moment) {
    let before = boot_ns();
    let read = read();
    let half_ns = boot_ns().saturating_sub(before).div_ceil(2);
    (read, Moment { boot_ns: before + half_ns, half_ns })
}

impl Moment {
    /// A reading taken then of a clock that showed these seconds and nanoseconds since 1970. Refuses what no
    /// clock that was ever set shows, and what nanoseconds cannot count (after 2262).
    fn reading(
        self,
        kind: ReferenceKind,
        name: &str,
        (sec, nsec): (i64, i64),
        error_ns: u64,
    ) -> Result<Reading, String> {
        if sec < EARLIEST_SEC {
            // The year alone: the same words at every look.
            return Err(match jiff::Timestamp::from_second(sec) {
                Ok(time) => format!("it shows the year {}: it has not been set", time.strftime("%Y")),
                Err(_) => "it shows a time long before 1970: it has not been set".into(),
            });
        }
        let shown_ns = sec.checked_mul(SECOND_NS).and_then(|ns| ns.checked_add(nsec));
        let utc_ns = shown_ns.and_then(|shown| shown.checked_sub_unsigned(self.boot_ns));
        Ok(Reading {
            boot_ns: self.boot_ns,
            kind,
            name: name.to_owned(),
            utc_ns: utc_ns.ok_or("it shows a time after the year 2262")?,
            error_ns: error_ns.saturating_add(self.half_ns),
        })
    }
}

/// The devices of a class below sysfs, by name: `rtc0`, `rtc1`. None if there is no such class.
fn devices(sysfs: &Path, class: &str) -> io::Result<Vec<String>> {
    let is_device = |name: &str| {
        let number = name.strip_prefix(class).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    };
    let entries = match sysfs.join("class").join(class).read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| is_device(name)));
    }
    names.sort_unstable();
    names.truncate(DEVICES);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment { boot_ns: 5_000_000_000, half_ns: 10 };

    fn shown(sec: i64) -> Result<Reading, String> {
        AT.reading(ReferenceKind::Rtc, "rtc0", (sec, 7), 100)
    }

    #[test]
    fn a_reading_is_utc_less_boottime_and_as_wrong_as_the_clock_and_the_look() {
        let reading = shown(1_700_000_000).expect("a time that was set");
        assert_eq!((reading.boot_ns, reading.error_ns), (5_000_000_000, 110));
        assert_eq!(reading.utc_ns, 1_699_999_995_000_000_007);
    }

    #[test]
    fn a_clock_that_was_never_set_gives_no_reading() {
        assert_eq!(shown(0), Err("it shows the year 1970: it has not been set".into()));
        assert_eq!(shown(946_684_800 + 86_400), Err("it shows the year 2000: it has not been set".into()));
        assert!(shown(EARLIEST_SEC - 1).is_err() && shown(EARLIEST_SEC).is_ok());
        assert!(shown(-1).is_err_and(|why| why.contains("1969")));
        assert!(shown(i64::MIN).is_err_and(|why| why.contains("before 1970")));
    }

    #[test]
    fn a_time_nanoseconds_cannot_count_gives_no_reading() {
        assert!(shown(i64::MAX).is_err_and(|why| why.contains("2262")));
        assert!(shown(i64::MAX / SECOND_NS + 1).is_err());
        assert!(shown(i64::MAX / SECOND_NS).is_ok());
    }

    #[test]
    fn a_look_says_when_it_was() {
        let before = boot_ns();
        let ((), at) = timed(|| ());
        assert!(before <= at.boot_ns && at.boot_ns <= boot_ns());
    }

    #[test]
    fn a_machine_without_clocks_has_no_failures_but_the_kernels() {
        let nowhere = Roots { sysfs: "/nonexistent".into(), dev: "/nonexistent".into() };
        let kernel = |answer: &Answer| match answer {
            Ok(reading) => reading.kind == ReferenceKind::Kernel,
            Err(failure) => failure.name == kernel::NAME,
        };
        assert!(local(&nowhere).iter().all(kernel));
    }
}
