//! Times as people write them: how long, and when.

use std::time::Duration;

/// How long: a number and its unit.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if digits == 0 {
        return Err(format!("{text} does not begin with a number"));
    }
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        other => return Err(format!("{other} is not a unit: use ms, s, m, h or d")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text} does not begin with a number"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| format!("{text} is out of range"))
}

/// A moment: RFC 3339, or so long ago.
///
/// # Errors
/// What is wrong with it.
pub fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment);
    }
    let ago = duration(text)
        .map_err(|_| "write a time such as 2026-11-21T10:00:00Z, or how long ago, such as 24h".to_owned())?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|_| format!("{text} ago is out of range"))
}

/// The machine's time zone as people write it, `Asia/Kathmandu, UTC+05:45`: to say that it has no part in
/// what clocks say. Nothing when it cannot be known.
pub fn time_zone() -> Option<String> {
    let zone = jiff::tz::TimeZone::try_system().ok()?;
    let offset = zone.to_offset(jiff::Timestamp::now());
    Some(match zone.iana_name() {
        Some("UTC" | "Etc/UTC") => "UTC".to_owned(),
        Some(name) => format!("{name}, UTC{offset}"),
        None => format!("UTC{offset}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert!(duration("5 days").is_err());
    }

    #[test]
    fn a_moment_is_a_time_or_so_long_ago() {
        assert_eq!(moment("1970-01-01T00:00:01Z").map(jiff::Timestamp::as_second), Ok(1));
        let hour = jiff::Timestamp::now().as_second() - moment("1h").map_or(0, jiff::Timestamp::as_second);
        assert!((3599..=3601).contains(&hour), "{hour}");
        assert!(moment("yesterday").is_err_and(|why| why.contains("24h")));
    }
}
