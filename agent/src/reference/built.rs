//! The day the running kernel was built, by its own word (`uname -v`): no right clock shows an earlier time.
//!
//! Distributions write it as Debian does, `… (2025-12-18)`, or as the kernel's own build does,
//! `… Thu Jan  9 12:00:00 UTC 2025`; kernels built reproducibly may say nothing.

use jiff::civil::Date;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Words between the day and the year: a time, AM or PM, a zone.
const BETWEEN: usize = 4;

/// The running kernel by its release and the day it was built, and that day in nanoseconds since 1970; if it says.
pub fn built() -> Option<(String, i64)> {
    let uname = rustix::system::uname();
    named(&uname.release().to_string_lossy(), &uname.version().to_string_lossy())
}

fn named(release: &str, version: &str) -> Option<(String, i64)> {
    let date = date(version)?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some((format!("{release} ({date})"), i64::try_from(at.as_nanosecond()).ok()?))
}

fn date(version: &str) -> Option<Date> {
    let words: Vec<&str> = version.split_whitespace().collect();
    let in_brackets = |word: &&str| word.strip_prefix('(')?.strip_suffix(')')?.parse().ok();
    words.iter().find_map(in_brackets).or_else(|| {
        words.windows(2).enumerate().find_map(|(at, pair)| {
            let month = MONTHS.iter().position(|month| *month == pair[0])?;
            let day: i8 = pair[1].parse().ok()?;
            let after = words.iter().skip(at + 2).take(BETWEEN);
            let year = after.filter(|word| word.len() == 4).find_map(|word| word.parse::<i16>().ok())?;
            Date::new(year, i8::try_from(month + 1).ok()?, day).ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_write_is_understood() {
        for (version, expected) in [
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)", Some("2025-11-05")),
            ("#37-Ubuntu SMP PREEMPT_DYNAMIC Thu Jan  9 12:00:00 UTC 2025", Some("2025-01-09")),
            ("#1 SMP PREEMPT_DYNAMIC Wed Nov 20 03:04:03 PM EST 2024", Some("2024-11-20")),
            ("#1 SMP PREEMPT_DYNAMIC @0", None),
            ("#1 SMP Feb 31 12:00:00 UTC 2025", None),
            ("", None),
        ] {
            assert_eq!(date(version).map(|date| date.to_string()).as_deref(), expected, "{version}");
        }
    }

    #[test]
    fn the_name_has_the_day() {
        let expected = ("6.12 (1970-01-02)".into(), 86_400_000_000_000);
        assert_eq!(named("6.12", "#1 SMP Debian 6.12-1 (1970-01-02)"), Some(expected));
    }
}
