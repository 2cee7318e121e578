//! The hardware clocks, by `/sys/class/rtc/rtc*/since_epoch`: any user may read it. `/dev/rtc*` only one process
//! may have open at a time, and we would be in its way.
//!
//! The kernel takes what the clock shows for UTC. One that is kept in local time (as other systems on the same
//! machine want it) is off by the time zone; nothing here can say.
//! <https://docs.kernel.org/admin-guide/rtc.html>

use std::{fs, io, path::Path};

use rustix::io::Errno;

use super::{Answer, Failure, SECOND_NS, devices, timed};
use crate::fact::{Reading, ReferenceKind};

/// The clock counts seconds: it shows `s` during all of [s, s + 1). Half a second for that; and half a second
/// because those who set it mind the beginning of the second more or less, and it may take half a second to
/// obey.
const ERROR_NS: u64 = 1_000_000_000;

/// Reads every hardware clock, as `rtc0`.
pub fn readings(sysfs: &Path) -> Vec<Answer> {
    match devices(sysfs, "rtc") {
        Err(error) => vec![Err(Failure { name: "rtc".into(), why: format!("cannot be listed: {error}") })],
        Ok(names) => {
            names.into_iter().map(|name| reading(sysfs, &name).map_err(|why| Failure { name, why })).collect()
        }
    }
}

fn reading(sysfs: &Path, name: &str) -> Result<Reading, String> {
    let file = sysfs.join("class/rtc").join(name).join("since_epoch");
    let (text, at) = timed(|| fs::read_to_string(file));
    let sec = seconds(&text.map_err(|error| explained(&error))?)?;
    at.reading(ReferenceKind::Rtc, name, (sec, SECOND_NS / 2), ERROR_NS)
}

fn explained(error: &io::Error) -> String {
    if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
        // What drivers answer when the battery was empty or the registers make no date.
        return "the clock holds no valid time".into();
    }
    format!("cannot be read: {error}")
}

/// Seconds since 1970.
fn seconds(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("since_epoch is empty".into());
    }
    text.parse().map_err(|_| "since_epoch holds no number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of `rtc0` when its file holds this.
    fn shown(text: &[u8]) -> Answer {
        let dir = tempfile::tempdir().expect("a directory");
        let rtc = dir.path().join("class/rtc/rtc0");
        fs::create_dir_all(&rtc).expect("a directory");
        fs::write(rtc.join("since_epoch"), text).expect("a file");
        readings(dir.path()).pop().expect("one clock")
    }

    #[test]
    fn a_clock_is_half_a_second_further_than_it_shows() {
        let reading = shown(b"1700000000\n").expect("a time");
        assert_eq!((reading.kind, reading.name.as_str()), (ReferenceKind::Rtc, "rtc0"));
        assert_eq!(reading.utc_ns + reading.boot_ns as i64, 1_700_000_000_500_000_000);
        assert!((ERROR_NS..ERROR_NS + 500_000_000).contains(&reading.error_ns), "{}", reading.error_ns);
    }

    #[test]
    fn what_is_no_time_is_named_with_the_reason() {
        for (text, why) in [
            (&b""[..], "since_epoch is empty"),
            (b"\n", "since_epoch is empty"),
            (b"noon", "since_epoch holds no number of seconds"),
            (b"12345678901234567890", "since_epoch holds no number of seconds"),
            (b"-86400", "it shows the year 1969: it has not been set"),
            (b"0", "it shows the year 1970: it has not been set"),
        ] {
            assert_eq!(shown(text), Err(Failure { name: "rtc0".into(), why: why.into() }));
        }
        assert!(shown(&[0xff, 0xfe]).is_err_and(|failure| failure.why.starts_with("cannot be read")));
    }

    #[test]
    fn every_clock_is_read_in_order_and_a_missing_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["rtc1", "rtc0", "rtcx", "other"] {
            fs::create_dir_all(dir.path().join("class/rtc").join(name)).expect("a directory");
        }
        let names: Vec<_> =
            readings(dir.path()).into_iter().map(|answer| answer.expect_err("no file").name).collect();
        assert_eq!(names, ["rtc0", "rtc1"]);
    }

    #[test]
    fn no_clocks_are_no_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(readings(dir.path()).is_empty());
        fs::write(dir.path().join("class"), "no directory").expect("a file");
        assert!(readings(dir.path()).pop().expect("one answer").is_err());
    }

    #[test]
    fn a_driver_that_refuses_its_registers_is_explained() {
        assert_eq!(explained(&Errno::INVAL.into()), "the clock holds no valid time");
        assert!(explained(&Errno::ACCESS.into()).starts_with("cannot be read: "));
    }
}
