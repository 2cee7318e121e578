//! Durations and differences of clocks as people write them: one function for each precision in use.
//!
//! - [`span`]: two units, from milliseconds to months: clocks, and how long an incident lasts
//! - [`short`]: as `span`, to a tenth of a second below a minute: the sentences of incidents
//! - [`fine`]: as `span`, and nanoseconds to milliseconds below: the error of a clock
//! - [`line`]: from milliseconds, to a hundredth: a fact's line
//!
//! How a person writes one is read by `units::duration`.

/// `650 ms`, `1.5 s`, `15 min 35 s`, `5 h 12 min`, `125 days 20 h`: two units, the smaller one rounded.
pub fn span(ns: u64) -> String {
    let ms = ns.saturating_add(500_000) / 1_000_000;
    let two = |big: String, number: u64, unit: &str| {
        if number == 0 { big } else { format!("{big} {number} {unit}") }
    };
    let (seconds, minutes, hours) = ((ms + 500) / 1000, (ms + 30_000) / 60_000, (ms + 1_800_000) / 3_600_000);
    // What rounds up to the next unit is said in that.
    if ms < 1000 {
        format!("{ms} ms")
    } else if ms < 59_950 {
        let tenths = (ms + 50) / 100;
        if tenths.is_multiple_of(10) {
            format!("{} s", tenths / 10)
        } else {
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
    } else if seconds < 3600 {
        two(format!("{} min", seconds / 60), seconds % 60, "s")
    } else if minutes < 1440 {
        two(format!("{} h", minutes / 60), minutes % 60, "min")
    } else {
        let days = hours / 24;
        two(format!("{days} {}", if days == 1 { "day" } else { "days" }), hours % 24, "h")
    }
}

/// `650 ms`, `1.5 s`, `59.9 s`, then as [`span`]: whole milliseconds and tenths, cut, not rounded.
pub fn short(ns: u64) -> String {
    let ms = ns / 1_000_000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => span(ns),
    }
}

/// `0.25 ms`, `650 ms`, `1.5 s`, then as [`span`]: from milliseconds.
pub fn line(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        ms => span((ms * 1e6) as u64),
    }
}

/// `850 ns`, `12.3 µs`, `12.3 ms`, then as [`span`].
pub fn fine(ns: u64) -> String {
    // Rounded before the unit is chosen: no `60.0 s`.
    let tenths = |unit: u64| (ns + unit / 20) / (unit / 10);
    match ns {
        0..1_000 => format!("{ns} ns"),
        _ if tenths(1_000) < 10_000 => format!("{}.{} µs", tenths(1_000) / 10, tenths(1_000) % 10),
        _ if tenths(1_000_000) < 10_000 => {
            format!("{}.{} ms", tenths(1_000_000) / 10, tenths(1_000_000) % 10)
        }
        _ => span(ns),
    }
}

/// `forward 125 days 20 h`: how a clock moved, in nanoseconds.
pub fn by(delta_ns: i64) -> String {
    format!("{} {}", if delta_ns < 0 { "back" } else { "forward" }, span(delta_ns.unsigned_abs()))
}

/// `15 min 35 s ahead`: how far a clock is ahead of another, in nanoseconds.
pub fn off(ahead_ns: i64) -> String {
    format!("{} {}", span(ahead_ns.unsigned_abs()), if ahead_ns < 0 { "behind" } else { "ahead" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_as_people_say_them() {
        let s = |seconds: f64| span((seconds * 1e9) as u64);
        assert_eq!(s(0.65), "650 ms");
        assert_eq!((s(1.0), s(1.5), s(59.97)), ("1 s".into(), "1.5 s".into(), "1 min".into()));
        assert_eq!(
            (s(935.0), s(300.0), s(934.9)),
            ("15 min 35 s".into(), "5 min".into(), "15 min 35 s".into())
        );
        assert_eq!((s(3599.9), s(3600.0 * 5.0 + 720.0)), ("1 h".into(), "5 h 12 min".into()));
        assert_eq!((s(86_399.0), s(86_400.0)), ("1 day".into(), "1 day".into()));
        assert_eq!(s(125.0 * 86_400.0 + 20.0 * 3600.0 + 100.0), "125 days 20 h");
        assert_eq!(
            (s(126.0 * 86_400.0 - 9.0), span(u64::MAX)),
            ("126 days".into(), "213503 days 24 h".replace(" 24 h", "").replace("213503", "213504"))
        );
    }
}
