//! How people say a span of time that may be milliseconds or months.

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
