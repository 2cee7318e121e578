//! The wall clock as text.

use std::fmt::Write as _;

use super::{
    What,
    rate::{ppm, rate},
};
use crate::{
    fact::{LeapKind, Phrase, Tone},
    text::{
        duration::{by, line as duration, off},
        shown,
    },
};

pub(super) fn phrase(what: &What) -> Phrase {
    let (peer, text, tone) = match what {
        What::ClockSet { call, before, after, delta_ns, refused } => {
            let text = if *refused {
                "refused (EPERM)".into()
            } else {
                format!("clock set {}: {before} → {after}", by(*delta_ns))
            };
            (call.name(), text, if *refused { Tone::Slow } else { Tone::Bad })
        }
        What::ClockSlewed {
            call,
            modes,
            offset_ns,
            frequency_ppm,
            tick_us,
            leap_second,
            zone_only,
            refused,
        } => {
            let mut text = String::from("clock slewed");
            if *zone_only {
                text = "kernel time zone set".into();
            }
            if let Some(offset) = offset_ns {
                let _ = write!(text, "  {}", by(*offset));
            }
            if let Some(ppm) = frequency_ppm {
                let _ = write!(text, "  frequency {ppm:+.3} ppm");
            }
            let wrong_us = tick_us.filter(|tick_us| *tick_us != 10_000);
            if let Some(tick_us) = wrong_us {
                let _ = write!(text, "  tick {tick_us}: it runs {}", rate(ppm(tick_us)));
            }
            if let Some(second) = leap_second {
                let what = match second {
                    LeapKind::Insert => "inserted",
                    LeapKind::Delete => "left out",
                };
                let _ = write!(text, "  a leap second is to be {what} at the end of the day");
            }
            if *refused {
                text.push_str("  refused (EPERM)");
            } else if leap_second.is_none()
                && offset_ns.is_none()
                && frequency_ppm.is_none()
                && wrong_us.is_none()
                && !*zone_only
            {
                let _ = write!(text, "  modes {modes:#x}");
            }
            (call.name(), text, if wrong_us.is_some() && !*refused { Tone::Slow } else { Tone::Plain })
        }
        What::ClockMoved { before, after, delta_ns, was_set, .. } => {
            let why = if *was_set {
                "set by no call that was seen"
            } else {
                "no call set it: it ran at another rate"
            };
            ("no call seen", format!("clock moved {}: {before} → {after} ({why})", by(*delta_ns)), Tone::Bad)
        }
        What::LeapSecond { leap_second, before, after } => {
            let what = match leap_second {
                LeapKind::Insert => "inserted",
                LeapKind::Delete => "left out",
            };
            ("the kernel", format!("leap second {what}: {before} → {after}"), Tone::Slow)
        }
        What::ClockCompared { reference, name, ahead_ns, error_ns } => {
            let unsure = duration(*error_ns as f64 / 1e6);
            let text = format!("{}: the clock is {} (± {unsure})", shown(name), off(*ahead_ns));
            (reference.name(), text, Tone::Plain)
        }
        What::MachinePaused { reference, name, paused_ms, error_ms, .. } => {
            let (paused, unsure) = (duration(*paused_ms), duration(*error_ms));
            let text = format!(
                "the machine stood still for {paused} (± {unsure}) while {} went on, as a paused VM does",
                shown(name)
            );
            (reference.name(), text, Tone::Bad)
        }
        What::Suspended { suspended_ms } => {
            ("no call seen", format!("the machine was suspended for {}", duration(*suspended_ms)), Tone::Slow)
        }
    };
    Phrase { arrow: "", peer: peer.into(), text, tone }
}
