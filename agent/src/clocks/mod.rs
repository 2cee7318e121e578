//! `culprit list clocks`: every clock there is to compare the wall clock with, and how far it is off by each.
//! Needs no root, though only root may open the clocks of a hypervisor; what cannot be read is named.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clockwatch::Sample,
    config::Format,
    fact::{Reading, ReferenceKind, is_time_zone},
    outputs::json,
    reference::{
        Answer, Failure, Roots, Server,
        kernel::{self, State},
        local, ptp, sntp,
    },
    terminal::{self, Column},
    text::duration::fine,
    units,
};

mod words;

/// The table of clocks.
const COLUMNS: &[Column<'static>] = &[
    column("REFERENCE", 28, true),
    column("WHAT IT IS", 26, true),
    column("WALL CLOCK IS", 22, false),
    column("MAY BE WRONG BY", 0, true),
];

const fn column(heading: &'static str, least: usize, breaks: bool) -> Column<'static> {
    Column { heading, least, right: false, breaks }
}

use words::{account, words};

/// A clock that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Clock {
    name: String,
    kind: ReferenceKind,
    /// The wall clock less this clock, nanoseconds: positive if the wall clock is ahead.
    ahead_ns: i64,
    /// How far that may be wrong.
    error_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

impl Clock {
    fn new(reading: Reading, real_ns: i64) -> Self {
        let Reading { kind, name, utc_ns, error_ns, .. } = reading;
        let ahead_ns = real_ns.saturating_sub(utc_ns);
        let is_local = kind == ReferenceKind::Rtc && is_time_zone(ahead_ns.unsigned_abs(), 0);
        let note = is_local.then_some("kept in local time? harmless");
        Self { name, kind, ahead_ns, error_ns, note }
    }
}

/// All that is listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Listed {
    /// The wall clock, UTC.
    wall_clock: String,
    /// The system's time zone, and its offset from UTC now.
    time_zone: String,
    clocks: Vec<Clock>,
    /// What cannot be read.
    unreadable: Vec<Failure>,
    /// Clocks that do not show UTC, or show it is not known what.
    left_out: Vec<String>,
    /// The kernel's account, if it gives one.
    kernel: Option<State>,
}

/// Reads every clock once, and lists them. A server that does not answer takes a second.
pub fn list(servers: &[Server], format: Format) -> anyhow::Result<ExitCode> {
    let listed = read(servers);
    let mut out = io::stdout().lock();
    let written = match format {
        Format::Json => {
            let written = json::pretty(&listed, &mut out);
            written.and_then(|()| writeln!(out))
        }
        Format::Text => text(&listed, terminal::width(), &mut out),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("writing the list")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(servers: &[Server]) -> Listed {
    let roots = Roots::default();
    let mut answers: Vec<Answer> = local(&roots);
    answers.extend(servers.iter().map(|server| sntp::ask(server).map_err(|refusal| refusal.failure)));
    let (mut clocks, mut unreadable) = (Vec::new(), Vec::new());
    // Once for all: BOOTTIME has brought the readings to this moment.
    let real_ns = Sample::now().real_ns;
    for answer in answers {
        match answer {
            // It vouches for the wall clock: the line about the kernel says so.
            Ok(reading) if reading.kind == ReferenceKind::Kernel => {}
            Ok(reading) => clocks.push(Clock::new(reading, real_ns)),
            Err(failure) => unreadable.push(failure),
        }
    }
    let now = Timestamp::now();
    Listed {
        wall_clock: format!("{now:.3}"),
        time_zone: units::time_zone().unwrap_or_else(|| "not known".into()),
        clocks,
        unreadable,
        left_out: ptp::left_out(&roots.sysfs),
        kernel: kernel::state().ok(),
    }
}

fn text(listed: &Listed, width: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    let mut said = |lead: &str, text: &str| writeln!(out, "{lead}{}", terminal::paragraph(lead, text, width));
    said("wall clock: ", &format!("{} (UTC)", listed.wall_clock))?;
    let zone = format!("{}; all times compared are UTC: it plays no part", listed.time_zone);
    said("time zone:  ", &zone)?;
    said("kernel:     ", &listed.kernel.map_or_else(|| "says nothing".into(), account))?;
    let Listed { clocks, unreadable, left_out, .. } = listed;
    if clocks.is_empty() {
        writeln!(out, "no clock could be compared with it; name a time server: --ntp SERVER")?;
    }
    if !clocks.is_empty() {
        let rows: Vec<Vec<String>> = clocks
            .iter()
            .map(|clock| {
                let error = fine(clock.error_ns);
                let error = clock.note.map_or_else(|| error.clone(), |note| format!("{error}  ({note})"));
                vec![clock.name.clone(), clock.kind.about().into(), words(clock.ahead_ns), error]
            })
            .collect();
        out.write_all(terminal::table(COLUMNS, &rows, 1, width).as_bytes())?;
    }
    for failure in unreadable {
        let text = failure.to_string();
        writeln!(out, "not read: {}", terminal::paragraph("not read: ", &text, width))?;
    }
    for name in left_out {
        writeln!(out, "left out: {name}: a clock of its own time, not UTC")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::time::SECOND_NS;

    const MINUTE: i64 = 60 * SECOND_NS as i64;
    const HOUR: i64 = 60 * MINUTE;

    fn clock(kind: ReferenceKind, name: &str, offset_ns: i64) -> Clock {
        let reading = Reading { boot_ns: 1, kind, name: name.into(), utc_ns: 5, error_ns: 1_000_000_000 };
        Clock::new(reading, offset_ns + 5)
    }

    #[test]
    fn a_hardware_clock_in_local_time_is_no_reason_to_worry() {
        let note = |kind, offset| clock(kind, "x", offset).note.is_some();
        for offset in [HOUR, -2 * HOUR, 5 * HOUR + 45 * MINUTE, 14 * HOUR + 4 * SECOND_NS as i64, 15 * MINUTE]
        {
            assert!(note(ReferenceKind::Rtc, offset), "{offset}");
            assert!(!note(ReferenceKind::Ntp, offset), "{offset}");
        }
        for offset in [0, 3 * SECOND_NS as i64, 15 * MINUTE + 35 * SECOND_NS as i64, 15 * HOUR, i64::MAX - 5]
        {
            assert!(!note(ReferenceKind::Rtc, offset), "{offset}");
        }
    }

    #[test]
    fn the_table_names_what_was_read_what_was_not_and_why() {
        let listed = Listed {
            wall_clock: "1970-01-01T00:00:00.000Z".into(),
            time_zone: "Asia/Kathmandu, UTC+05:45".into(),
            clocks: vec![
                clock(ReferenceKind::Ntp, "192.0.2.1:123", 935 * SECOND_NS as i64),
                clock(ReferenceKind::Rtc, "rtc0", -5 * HOUR - 45 * MINUTE),
            ],
            unreadable: vec![Failure { name: "time:123".into(), why: "no answer within 1 s".into() }],
            left_out: vec!["ptp0 (igb)".into()],
            kernel: Some(State {
                synchronised: true,
                max_error_ns: 1_500_000,
                estimated_error_ns: 20_000,
                frequency_ppm: -1.5,
                leap_second: None,
                tai_s: 37,
                tick_us: 10_000,
            }),
        };
        let mut out = Vec::new();
        text(&listed, None, &mut out).expect("a buffer");
        assert_eq!(
            String::from_utf8(out).expect("text").lines().collect::<Vec<_>>(),
            [
                "wall clock: 1970-01-01T00:00:00.000Z (UTC)",
                "time zone:  Asia/Kathmandu, UTC+05:45; all times compared are UTC: it plays no part",
                "kernel:     synchronised by a time daemon: at most 1.5 ms wrong, probably 20.0 µs; frequency corrected by -1.500 ppm",
                "REFERENCE                    WHAT IT IS                 WALL CLOCK IS          MAY BE WRONG BY",
                "192.0.2.1:123                time server                15 min 35 s ahead      1 s",
                "rtc0                         hardware clock             5 h 45 min behind      1 s  (kept in local time? harmless)",
                "not read: time:123: no answer within 1 s",
                "left out: ptp0 (igb): a clock of its own time, not UTC",
            ]
        );
    }

    #[test]
    fn json_says_how_far_the_wall_clock_is_ahead() {
        let json = serde_json::to_value(clock(ReferenceKind::Ntp, "192.0.2.1:123", -7)).expect("JSON");
        let wanted = serde_json::json!({
            "name": "192.0.2.1:123", "kind": "ntp", "ahead_ns": -7, "error_ns": 1_000_000_000,
        });
        assert_eq!(json, wanted);
    }

    #[test]
    fn this_machine_can_be_listed_and_a_server_that_is_not_there_is_named() {
        // Bound, and closed at once: nothing listens there.
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let server = crate::reference::server(&free.expect("an address").to_string()).expect("a server");
        let listed = read(std::slice::from_ref(&server));
        let failure = listed.unreadable.last().expect("a failure");
        assert_eq!(failure.name, server.to_string());
        let mut out = Vec::new();
        text(&listed, None, &mut out).expect("a buffer");
        let out = String::from_utf8(out).expect("text");
        assert!(out.contains(&format!("not read: {failure}")), "{out}");
        assert!(serde_json::to_string(&listed).is_ok_and(|json| json.contains(&failure.why)));
    }
}
