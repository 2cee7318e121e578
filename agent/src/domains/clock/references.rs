//! What reference clocks said: the last readings of each, and leaps between two of them.
//!
//! A reading says UTC − BOOTTIME, so that it stays good across steps of the wall clock. When a reference that
//! agreed with the wall clock is suddenly far from it and nothing was set, this machine stood still
//! while the world went on: it was paused, or restored from a snapshot. When a hardware clock moves in any other
//! way it was written (`hwclock --systohc`, the kernel's 11-minute mode): from then on it says what was written to it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use ebpf_probes::{
    abi::Netns,
    probes::clock::{AGED, DateKey, DateRecord},
};

use super::{Memory, What};
use crate::{
    domains::ms,
    fact::{Reading, ReferenceKind},
    known::context::Way,
    records,
};

/// Reference clocks remembered at most; the one silent longest gives way.
const SOURCES: usize = 64;
/// Readings remembered of each.
const READINGS: usize = 64;
/// Readings of one clock that are closer together than this are one: the history reaches further back.
const APART_NS: u64 = 5_000_000_000;
/// An HTTP date has a resolution of one second, and its way here is not measured.
const HTTP_ERROR_NS: u64 = 2_500_000_000;
/// A machine that stood still for less is not said to have.
const LEAP_NS: u64 = 10_000_000_000;
/// A pause from here on is reported: leases and leaders' terms are as long.
const PAUSE_NS: u64 = 5_000_000_000;
const SECOND: i64 = crate::time::SECOND_NS.cast_signed();

/// A reference clock, by kind and name.
pub type Source = (ReferenceKind, String);

/// The world went on and this machine did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leap {
    /// Which clock showed it.
    pub source: Source,
    /// It had not happened yet, CLOCK_BOOTTIME in nanoseconds.
    pub after_ns: u64,
    /// It had.
    pub before_ns: u64,
    /// How much time this machine missed, nanoseconds.
    pub missed_ns: i64,
}

/// A hardware clock was written while it was watched: it is a child of the wall clock since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// It had not been yet, CLOCK_BOOTTIME in nanoseconds.
    pub after_ns: u64,
    /// It had been.
    pub before_ns: u64,
    /// By how much it moved, nanoseconds.
    pub moved_ns: i64,
}

/// The reference clocks there are.
#[derive(Debug, Default)]
pub struct References {
    heard: BTreeMap<Source, VecDeque<Reading>>,
    /// When each hardware clock was written last.
    written: BTreeMap<Source, Written>,
    /// Metadata services: link-local addresses that the host itself has a route to.
    metadata: BTreeSet<Source>,
    /// How far the wall clock was off when that was last reported, by clock.
    facts: BTreeMap<Source, i64>,
    leap: Option<Leap>,
    /// What is to be reported of them.
    compared: Vec<(u64, What)>,
}

impl References {
    /// Takes in a reading; `offset_ns` is REALTIME − BOOTTIME, and `stepped_ns` when it changed last.
    fn hear(&mut self, reading: &Reading, offset_ns: i64, stepped_ns: u64) {
        let source = (reading.kind, reading.name.clone());
        let earlier = self.heard.get(&source).and_then(VecDeque::back);
        if let Some(earlier) = earlier {
            // A clock that moved together with the wall clock shows nothing.
            let leap = leap(earlier, reading, offset_ns).filter(|leap| stepped_ns <= leap.after_ns);
            if let Some(leap) = leap {
                // What others said before this one showed it is of another time.
                self.heard.clear();
                self.leap = Some(leap);
            } else if let Some(written) = written(earlier, reading) {
                self.written.insert(source.clone(), written);
                self.leap.take_if(|leap| leap.source == source);
            }
        }
        if !self.heard.contains_key(&source) && self.heard.len() >= SOURCES {
            let silent = self
                .heard
                .iter()
                .min_by_key(|(_, readings)| readings.back().map(|last| last.boot_ns))
                .map(|(source, _)| source.clone());
            if let Some(silent) = silent {
                self.heard.remove(&silent);
                self.facts.remove(&silent);
                self.written.remove(&silent);
                self.metadata.remove(&silent);
            }
        }
        let readings = self.heard.entry(source).or_default();
        let len = readings.len();
        if len >= 2 && reading.boot_ns.saturating_sub(readings[len - 2].boot_ns) < APART_NS {
            readings.pop_back();
        } else if len >= READINGS {
            // The first one stays: what drifts is seen best over a long time.
            readings.remove(1);
        }
        readings.push_back(reading.clone());
    }

    /// The readings of each clock, the oldest first.
    pub fn all(&self) -> impl Iterator<Item = (&Source, &VecDeque<Reading>)> {
        self.heard.iter()
    }

    /// The last time this machine was found to have stood still.
    pub fn leap(&self) -> Option<&Leap> {
        self.leap.as_ref()
    }

    /// When a hardware clock was written last, if it was while it was watched.
    pub fn written(&self, source: &Source) -> Option<&Written> {
        self.written.get(source)
    }

    /// What is to be reported of them, once.
    pub(super) fn take_compared(&mut self) -> Vec<(u64, What)> {
        std::mem::take(&mut self.compared)
    }

    /// Whether it is the cloud's metadata service, reached as the host reaches it.
    pub fn is_metadata(&self, source: &Source) -> bool {
        self.metadata.contains(source)
    }
}

/// Whether a hardware clock moved as none does by itself, be the system clock a tenth too fast.
fn written(earlier: &Reading, reading: &Reading) -> Option<Written> {
    if reading.kind != ReferenceKind::Rtc {
        return None;
    }
    let moved_ns = reading.utc_ns.saturating_sub(earlier.utc_ns);
    let elapsed_ns = reading.boot_ns.saturating_sub(earlier.boot_ns);
    let unsure = earlier.error_ns.saturating_add(reading.error_ns).saturating_add(elapsed_ns / 8);
    (moved_ns.unsigned_abs() > unsure).then_some(Written {
        after_ns: earlier.boot_ns,
        before_ns: reading.boot_ns,
        moved_ns,
    })
}

fn leap(earlier: &Reading, reading: &Reading, offset_ns: i64) -> Option<Leap> {
    // Those two are not clocks of their own, or may be set by their owner.
    if !matches!(reading.kind, ReferenceKind::Ptp | ReferenceKind::Ntp | ReferenceKind::Rtc) {
        return None;
    }
    let missed_ns = reading.utc_ns.saturating_sub(earlier.utc_ns);
    let unsure = LEAP_NS.saturating_add(earlier.error_ns).saturating_add(reading.error_ns);
    let agreed = earlier.utc_ns.abs_diff(offset_ns) < unsure;
    // Only ahead: nothing takes time back from the world. A hardware clock that is set is no leap either.
    (agreed && missed_ns > 0 && missed_ns.unsigned_abs() >= unsure).then(|| Leap {
        source: (reading.kind, reading.name.clone()),
        after_ns: earlier.boot_ns,
        before_ns: reading.boot_ns,
        missed_ns,
    })
}

/// How long the machine stood still between two readings of a clock that went on, and how far that may be wrong. Who
/// writes a hardware clock writes the wall clock's time: one that agreed with it before and is ahead of it now went on.
fn pause(earlier: &Reading, reading: &Reading, offset_ns: i64) -> Option<(u64, u64)> {
    if !matches!(reading.kind, ReferenceKind::Ptp | ReferenceKind::Ntp | ReferenceKind::Rtc) {
        return None;
    }
    let missed_ns = u64::try_from(reading.utc_ns.saturating_sub(earlier.utc_ns)).ok()?;
    let unsure = earlier.error_ns.saturating_add(reading.error_ns);
    let agreed = earlier.utc_ns.abs_diff(offset_ns) <= unsure;
    // A resolution of a second may hide half of it.
    let long = missed_ns.saturating_add(SECOND.unsigned_abs() / 2) >= PAUSE_NS && missed_ns > unsure;
    (agreed && long).then_some((missed_ns, unsure))
}

impl Memory {
    /// As if the host had a route to it.
    #[cfg(test)]
    pub fn is_metadata_in_tests(&mut self, name: &str) {
        self.references.metadata.insert((ReferenceKind::Http, name.to_owned()));
    }

    /// A reference clock was read.
    pub(super) fn heard(&mut self, reading: &Reading) {
        let (offset_ns, stepped_ns) = (self.offset_ns(), self.stepped_ns());
        let source = (reading.kind, reading.name.clone());
        let earlier = self.references.heard.get(&source).and_then(VecDeque::back);
        let paused = earlier.filter(|earlier| stepped_ns <= earlier.boot_ns).and_then(|earlier| {
            let (missed_ns, unsure_ns) = pause(earlier, reading, offset_ns)?;
            Some(What::MachinePaused {
                reference: reading.kind,
                name: reading.name.clone(),
                paused_ms: ms(missed_ns),
                error_ms: ms(unsure_ns),
                within_ms: ms(reading.boot_ns.saturating_sub(earlier.boot_ns)),
            })
        });
        self.references.hear(reading, offset_ns, stepped_ns);
        // Others show the same pause.
        let again = |(at_ns, what): &(u64, What)| {
            matches!(what, What::MachinePaused { .. }) && reading.boot_ns.saturating_sub(*at_ns) < APART_NS
        };
        if let Some(paused) = paused.filter(|_| !self.references.compared.iter().any(again)) {
            self.references.compared.push((reading.boot_ns, paused));
        }
        let Some(off) = self.off(reading) else { return };
        let compared = &mut self.references.compared;
        if compared.len() < SOURCES {
            compared.push((reading.boot_ns, off));
        }
    }

    /// A server said what time it is: a reading, unless a cache said it for another moment, it is no date, or the
    /// server may be any host's: of this host, or of a user with a namespace of their own.
    pub(super) fn date(&mut self, record: &DateRecord) {
        let netns = Netns { inode: record.server.netns, generation: record.date.generation };
        let way = self.ways.get(&(netns, record.server.address)).copied();
        let Some(way @ (Way::Host | Way::Out)) = way else { return };
        if record.date.flags & AGED == 0
            && let Some(reading) = http(record)
        {
            let source = (reading.kind, reading.name.clone());
            let is_metadata = way == Way::Host && is_link_local(&record.server);
            self.heard(&reading);
            if is_metadata && self.references.heard.contains_key(&source) {
                self.references.metadata.insert(source);
            }
        }
    }

    /// How far the wall clock is from a reading that disagrees with it, once, and when that has changed.
    fn off(&mut self, reading: &Reading) -> Option<What> {
        let source = (reading.kind, reading.name.clone());
        let ahead_ns = self.offset_ns().saturating_sub(reading.utc_ns);
        let news = match self.references.facts.get(&source) {
            Some(known) => known.abs_diff(ahead_ns) > reading.error_ns.saturating_mul(2),
            None => ahead_ns.unsigned_abs() > reading.error_ns.max(SECOND.unsigned_abs()),
        };
        if !news {
            return None;
        }
        self.references.facts.insert(source, ahead_ns);
        Some(What::ClockCompared {
            reference: reading.kind,
            name: reading.name.clone(),
            ahead_ns,
            error_ns: reading.error_ns,
        })
    }
}

/// Where clouds keep their metadata service.
fn is_link_local(server: &DateKey) -> bool {
    match records::address(server.address) {
        IpAddr::V4(v4) => v4.is_link_local(),
        // fd00:ec2::254 is the metadata service of one cloud.
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0x0ec2],
    }
}

/// The date of a response as a reading.
fn http(record: &DateRecord) -> Option<Reading> {
    let text = &record.date.text;
    let end = text.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).unwrap_or(text.len());
    let date = std::str::from_utf8(&text[..end]).ok()?.trim();
    // IMF-fixdate of RFC 9110, a subset of RFC 2822's dates; always UTC.
    if !date.ends_with("GMT") {
        return None;
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let boot_ns = record.date.boot_ns;
    let utc_ns = i64::try_from(at.as_nanosecond()).ok()?.checked_add(SECOND / 2)?;
    let address: IpAddr = records::address(record.server.address);
    let port = u16::try_from(record.server.port).ok()?;
    Some(Reading {
        boot_ns,
        kind: ReferenceKind::Http,
        name: std::net::SocketAddr::new(address, port).to_string(),
        utc_ns: utc_ns.checked_sub(i64::try_from(boot_ns).ok()?)?,
        error_ns: HTTP_ERROR_NS,
    })
}

#[cfg(test)]
mod tests {
    use ebpf_probes::probes::clock::{DateKey, HttpDate};

    use super::*;
    use crate::{domains::Domain, known::context::Context};

    fn record(text: &[u8]) -> DateRecord {
        let mut date = HttpDate { boot_ns: 5_000_000_000, ..HttpDate::default() };
        date.text[..text.len()].copy_from_slice(text);
        let server = DateKey { address: [0; 16], netns: 1, port: 80 };
        DateRecord { server, date, ..DateRecord::default() }
    }

    #[test]
    fn an_http_date_is_a_reading() {
        let reading = http(&record(b" Sat, 21 Nov 2026 07:19:37 GMT\r\n")).expect("a date");
        assert_eq!(reading.utc_ns + 5_000_000_000, 1_795_245_577_500_000_000);
        assert_eq!(reading.name, "[::]:80");
    }

    #[test]
    fn only_a_server_that_may_be_another_host_is_another_clock() {
        let address = std::net::Ipv4Addr::new(169, 254, 169, 254);
        let mut record = record(b" Sat, 21 Nov 2026 07:19:37 GMT\r\n");
        record.server.address = address.to_ipv6_mapped().octets();
        let heard = |way: Option<Way>| {
            let mut memory = Memory::default();
            if let Some(way) = way {
                memory.context(&Context::Way { netns: 1, generation: 0, address: address.into(), way });
            }
            memory.date(&record);
            let references = memory.references();
            references.all().next().map(|(source, _)| references.is_metadata(source))
        };
        assert_eq!(heard(Some(Way::Host)), Some(true));
        // Of a container it may be whatever its owner wants.
        assert_eq!(heard(Some(Way::Out)), Some(false));
        for way in [None, Some(Way::Itself), Some(Way::Inside), Some(Way::Foreign), Some(Way::Unknown)] {
            assert_eq!(heard(way), None, "{way:?}");
        }
    }

    #[test]
    fn what_is_no_date_is_no_reading() {
        let bad: [&[u8]; 6] = [
            b"",
            b" Sat, 21 Nov 2026",
            b" soon GMT",
            b" Sat, 31 Feb 2026 07:19:37 GMT",
            b"\xff\xfe GMT",
            b" Sat, 21 Nov 2026 07:19 +0100",
        ];
        for text in bad {
            assert_eq!(http(&record(text)), None, "{}", String::from_utf8_lossy(text));
        }
    }

    fn at(kind: ReferenceKind, boot_s: u64, utc_s: i64) -> Reading {
        Reading {
            boot_ns: boot_s * 1_000_000_000,
            kind,
            name: "rtc0".into(),
            utc_ns: utc_s * SECOND,
            error_ns: 1_000_000_000,
        }
    }

    #[test]
    fn a_day_missed_is_a_leap_and_a_clock_that_is_set_is_none() {
        let day = 86_400;
        let (before, after) = (at(ReferenceKind::Rtc, 10, 1000), at(ReferenceKind::Rtc, 20, 1000 + day));
        let found = leap(&before, &after, 1000 * SECOND).expect("a day");
        assert_eq!((found.missed_ns, found.after_ns), (day * SECOND, 10_000_000_000));
        // The hardware clock was a day behind and was set right.
        assert_eq!(leap(&before, &after, (1000 + day) * SECOND), None);
        assert_eq!(leap(&after, &before, (1000 + day) * SECOND), None);
        let http = |reading: Reading| Reading { kind: ReferenceKind::Http, ..reading };
        assert_eq!(leap(&http(before), &http(after), 1000 * SECOND), None);
    }

    #[test]
    fn a_pause_of_some_seconds_is_one_where_the_other_clock_agreed_before_and_is_ahead_now() {
        let paused = |kind, before: i64, after: i64, wall: i64| {
            pause(&at(kind, 10, before), &at(kind, 20, after), wall * SECOND)
                .map(|(missed_ns, _)| missed_ns / 1_000_000_000)
        };
        assert_eq!(paused(ReferenceKind::Rtc, 1000, 1007, 1000), Some(7));
        assert_eq!(paused(ReferenceKind::Rtc, 1000, 1004, 1000), None, "too short to be sure");
        // It was seven seconds behind and is set to what the wall clock shows.
        assert_eq!(paused(ReferenceKind::Rtc, 993, 1000, 1000), None);
        assert_eq!(paused(ReferenceKind::Http, 1000, 1007, 1000), None);
        assert_eq!(paused(ReferenceKind::Rtc, 1007, 1000, 1007), None, "nothing takes time back");
    }

    #[test]
    fn however_many_clocks_there_are_a_bounded_number_is_remembered() {
        let mut references = References::default();
        for number in 0..1000u64 {
            let name = format!("clock {}", number % 200);
            references.hear(&Reading { name, ..at(ReferenceKind::Http, number * 10, 0) }, 0, 0);
        }
        assert_eq!(references.all().count(), SOURCES);
        assert!(references.all().all(|(_, readings)| readings.len() <= READINGS));
    }
}
