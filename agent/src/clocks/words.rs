//! Times and differences of clocks as people write them.

use crate::{fact::LeapKind, reference::kernel::State, text::duration::fine};

/// `12.3 ms behind`.
pub(super) fn words(offset_ns: i64) -> String {
    let span = fine(offset_ns.unsigned_abs());
    match offset_ns {
        0 => "right".into(),
        1.. => format!("{span} ahead"),
        _ => format!("{span} behind"),
    }
}

/// What the kernel says of its own clock.
pub(super) fn account(state: State) -> String {
    if !state.synchronised {
        return "no time daemon has reported that its clock is right (none runs, or it does not report so)"
            .into();
    }
    let leap = match state.leap_second {
        None => "",
        Some(LeapKind::Insert) => "; a leap second is to be inserted at the end of the day",
        Some(LeapKind::Delete) => "; a leap second is to be left out at the end of the day",
    };
    format!(
        "synchronised by a time daemon: at most {} wrong, probably {}; frequency corrected by {:+.3} ppm{leap}",
        fine(state.max_error_ns),
        fine(state.estimated_error_ns),
        state.frequency_ppm
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = crate::time::SECOND_NS.cast_signed();
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;

    #[test]
    fn times_are_said_in_words() {
        for (offset, said) in [
            (0, "right"),
            (850, "850 ns ahead"),
            (-12_345, "12.3 µs behind"),
            (-12_300_000, "12.3 ms behind"),
            (999_970_000, "1 s ahead"),
            (59_960_000_000, "1 min ahead"),
            (935 * SECOND, "15 min 35 s ahead"),
            (-7 * HOUR - 30 * MINUTE, "7 h 30 min behind"),
            (25 * HOUR, "1 day 1 h ahead"),
            (i64::MIN, "106752 days behind"),
        ] {
            assert_eq!(words(offset), said);
        }
    }
}
