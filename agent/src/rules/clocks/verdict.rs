//! How wrong is the wall clock? Reference clocks vote; those that agree with each other stand together, and
//! the group with the most weight decides. Of groups that weigh the same, the one nearest to the wall clock
//! does: to call a clock wrong, more must speak for it than against.
//!
//! | says | weight | why |
//! |---|---|---|
//! | a hypervisor's or cloud's clock (`ptp`), a configured NTP server | 8 | made to be asked |
//! | a hardware clock that leapt ahead between two looks | 6 | this machine stood still and it did not |
//! | the kernel, synchronised | 4 | a time daemon vouched for it, which may have been some time ago |
//! | an HTTP server with a link-local address | 4 | the cloud's own metadata service |
//! | a hardware clock | 3 | set once, drifts |
//! | an HTTP server, heard twice with the time going on between | 2, together 6 at most | somebody's clock |
//!
//! A hardware clock that is off by quarters of an hour, up to a day, is kept in local time, and says nothing;
//! neither does a single HTTP server that is.

use crate::{
    correlate::incident::Confidence,
    enrich::{
        World,
        clock::references::{Leap, Source},
    },
    fact::{Reading, ReferenceKind, is_time_zone},
};

const SECOND: u64 = 1_000_000_000;
/// What an undisciplined clock may drift between a reading and now: 100 parts per million.
const DRIFT: u64 = 10_000;
/// Readings that agree are at most this far apart beyond their errors.
const AGREE_NS: u64 = 2 * SECOND;
/// How far the wall clock is from UTC.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::rules) struct Verdict {
    /// Wall clock − UTC, nanoseconds: positive is ahead.
    pub(in crate::rules) ahead_ns: i64,
    /// How far that may be wrong, nanoseconds.
    pub(in crate::rules) error_ns: u64,
    /// The best of the clocks that say so.
    pub(in crate::rules) source: Source,
    /// The others.
    pub(in crate::rules) others: Vec<Source>,
    /// How sure it is.
    pub(in crate::rules) confidence: Confidence,
    /// Clocks that contradict.
    pub(in crate::rules) against: Vec<Source>,
    /// Clocks that are off by a time zone, and count for nothing.
    pub(in crate::rules) zones: Vec<(Source, i64)>,
    /// The time this machine missed, when that is how the clock became wrong.
    pub(in crate::rules) leap: Option<Leap>,
}

impl Verdict {
    /// The least the clock is wrong by, nanoseconds.
    pub(in crate::rules) fn at_least_ns(&self) -> u64 {
        self.ahead_ns.unsigned_abs().saturating_sub(self.error_ns)
    }
}

/// One clock's vote.
#[derive(Debug, Clone)]
struct Vote {
    source: Source,
    ahead_ns: i64,
    error_ns: u64,
    weight: u32,
}

impl Vote {
    fn agrees(&self, other: &Self) -> bool {
        self.ahead_ns.abs_diff(other.ahead_ns)
            <= self.error_ns.saturating_add(other.error_ns).saturating_add(AGREE_NS)
    }
}

/// How wrong the wall clock is, as far as anything here can tell.
pub(in crate::rules) fn judge(world: &World, now_ns: u64) -> Option<Verdict> {
    judge_by(world, now_ns, |_| true)
}

/// The same, by some of the clocks only.
pub(in crate::rules) fn judge_by(
    world: &World,
    now_ns: u64,
    counts: impl Fn(ReferenceKind) -> bool,
) -> Option<Verdict> {
    let (references, offset_ns) = (world.references(), world.offset_ns());
    let mut votes = Vec::new();
    let mut zones = Vec::new();
    for (source, readings) in references.all().filter(|(source, _)| counts(source.0)) {
        let Some(last) = readings.back() else { continue };
        let age_ns = now_ns.saturating_sub(last.boot_ns);
        let ahead_ns = offset_ns.saturating_sub(last.utc_ns);
        let leapt = references.leap().is_some_and(|leap| leap.source == *source);
        let vote = Vote {
            source: source.clone(),
            ahead_ns,
            error_ns: last.error_ns.saturating_add(age_ns / DRIFT),
            weight: weight(last, readings.iter(), leapt),
        };
        if vote.weight == 0 || age_ns > lifetime_ns(source.0) {
            continue;
        }
        if source.0 == ReferenceKind::Rtc && !leapt && is_zone(&vote) {
            zones.push((source.clone(), ahead_ns));
        } else {
            votes.push(vote);
        }
    }
    votes.sort_by_key(|vote| (vote.error_ns, vote.source.clone()));
    // Of HTTP servers a single one's local time is no more than that.
    let http = votes.iter().filter(|vote| vote.source.0 == ReferenceKind::Http).count();
    if http == 1 {
        let local =
            |vote: &Vote| vote.source.0 == ReferenceKind::Http && vote.weight < METADATA && is_zone(vote);
        zones.extend(votes.extract_if(.., |vote| local(vote)).map(|vote| (vote.source, vote.ahead_ns)));
    }
    let group =
        |with: &Vote| -> Vec<Vote> { votes.iter().filter(|vote| vote.agrees(with)).cloned().collect() };
    // The sort is stable: the most exact first among equals.
    let best = votes
        .iter()
        .map(group)
        .max_by_key(|group| (together(group), std::cmp::Reverse(group[0].ahead_ns.unsigned_abs())))?;
    let against: Vec<&Vote> =
        votes.iter().filter(|vote| !best.iter().any(|agreed| agreed.source == vote.source)).collect();
    let first = &best[0];
    let confidence = match together(&best) {
        weight if weight >= ASKED && against.iter().all(|vote| vote.weight < ASKED) => Confidence::Certain,
        weight if weight > 4 => Confidence::Likely,
        _ => Confidence::Possible,
    };
    let leap = references.leap().filter(|leap| best.iter().any(|vote| vote.source == leap.source));
    Some(Verdict {
        ahead_ns: first.ahead_ns,
        error_ns: first.error_ns,
        source: first.source.clone(),
        others: best[1..].iter().map(|vote| vote.source.clone()).collect(),
        confidence,
        against: against.into_iter().map(|vote| vote.source.clone()).collect(),
        zones,
        leap: leap.cloned(),
    })
}

/// Weight of a clock that was made to be asked.
const ASKED: u32 = 8;
/// Weight of the cloud's own metadata service.
const METADATA: u32 = 4;
/// What HTTP servers weigh together at most.
const HTTP_MOST: u32 = 6;

fn together(group: &[Vote]) -> u32 {
    let (http, clocks): (Vec<&Vote>, Vec<&Vote>) =
        group.iter().partition(|vote| vote.source.0 == ReferenceKind::Http);
    let sum = |votes: Vec<&Vote>| votes.iter().map(|vote| vote.weight).sum::<u32>();
    sum(http).min(HTTP_MOST) + sum(clocks)
}

fn weight<'a>(last: &Reading, readings: impl Iterator<Item = &'a Reading>, leapt: bool) -> u32 {
    match last.kind {
        ReferenceKind::Ptp | ReferenceKind::Ntp => ASKED,
        ReferenceKind::Kernel => 4,
        ReferenceKind::Rtc if leapt => 6,
        ReferenceKind::Rtc => 3,
        // One whose date does not go on with time hands out an old answer.
        ReferenceKind::Http if !goes_on(last, readings) => 0,
        ReferenceKind::Http if link_local(&last.name) => METADATA,
        ReferenceKind::Http => 2,
    }
}

/// How long a reading counts.
fn lifetime_ns(kind: ReferenceKind) -> u64 {
    match kind {
        ReferenceKind::Ptp | ReferenceKind::Rtc => 120 * SECOND,
        ReferenceKind::Ntp => 2 * 3600 * SECOND,
        ReferenceKind::Kernel | ReferenceKind::Http => 3600 * SECOND,
    }
}

/// The last two readings, a while apart, say the same of UTC.
fn goes_on<'a>(last: &Reading, readings: impl Iterator<Item = &'a Reading>) -> bool {
    const APART_NS: u64 = 2 * SECOND;
    readings
        .filter(|earlier| last.boot_ns.saturating_sub(earlier.boot_ns) >= APART_NS)
        .last()
        .is_some_and(|earlier| earlier.utc_ns.abs_diff(last.utc_ns) < APART_NS)
}

fn link_local(name: &str) -> bool {
    let Ok(at) = name.parse::<std::net::SocketAddr>() else { return false };
    match at.ip() {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        // fd00:ec2::254 is the metadata service of one cloud.
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[..2] == [0xfd00, 0x0ec2],
    }
}

/// Whether a clock is off by as much as local time may be.
fn is_zone(vote: &Vote) -> bool {
    is_time_zone(vote.ahead_ns.unsigned_abs(), vote.error_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::context::Context;

    const NOW: u64 = 1_000 * SECOND;

    fn world(said: &[(ReferenceKind, &str, i64)]) -> World {
        let mut world = World::default();
        world.learn(&Context::Clock { boot_ns: 0, offset_ns: 0 });
        // Each was heard twice, so that HTTP servers count.
        for at in [NOW - 30 * SECOND, NOW] {
            for (kind, name, ahead_s) in said {
                world.learn(&Context::Reference(Reading {
                    boot_ns: at,
                    kind: *kind,
                    name: (*name).into(),
                    utc_ns: -ahead_s * SECOND as i64,
                    error_ns: if *kind == ReferenceKind::Ntp { 20_000_000 } else { SECOND },
                }));
            }
        }
        world
    }

    fn verdict(said: &[(ReferenceKind, &str, i64)]) -> Option<(i64, Confidence)> {
        let verdict = judge(&world(said), NOW)?;
        Some((verdict.ahead_ns / SECOND as i64, verdict.confidence))
    }

    use Confidence::{Certain, Likely, Possible};
    use ReferenceKind::{Http, Kernel, Ntp, Rtc};

    type Case<'a> = (&'a [(ReferenceKind, &'a str, i64)], Option<(i64, Confidence)>);

    #[test]
    fn who_is_believed() {
        let web = |ahead| (Http, "192.0.2.1:80", ahead);
        let other = |ahead| (Http, "192.0.2.2:80", ahead);
        let third = |ahead| (Http, "192.0.2.3:80", ahead);
        let metadata = |ahead| (Http, "169.254.169.254:80", ahead);
        let cases: &[Case] = &[
            (&[], None),
            // A configured server against a kernel that believes itself.
            (&[(Ntp, "a", 935), (Kernel, "kernel", 0)], Some((935, Certain))),
            // Two servers that contradict each other: the one that finds nothing wrong.
            (&[(Ntp, "a", 935), (Ntp, "b", 0)], Some((0, Likely))),
            (&[(Ntp, "a", 935), (Ntp, "b", 0), (Ntp, "c", 935)], Some((935, Likely))),
            // A single web server is hardly anybody, against a synchronised kernel nobody.
            (&[web(-86_400 - 7)], Some((-86_407, Possible))),
            (&[web(-86_407), (Kernel, "kernel", 0)], Some((0, Possible))),
            (&[web(-86_407), other(-86_406), (Kernel, "kernel", 0)], Some((0, Possible))),
            (&[web(-86_407), other(-86_406), third(-86_407), (Kernel, "kernel", 0)], Some((-86_407, Likely))),
            (&[web(-86_407), (Rtc, "rtc0", -86_406), (Kernel, "kernel", 0)], Some((-86_407, Likely))),
            (&[metadata(-86_407), web(-86_407), (Kernel, "kernel", 0)], Some((-86_407, Likely))),
            // A hardware clock that drifted while nobody looked after it.
            (&[(Rtc, "rtc0", 100), (Kernel, "kernel", 0)], Some((0, Possible))),
            (&[(Rtc, "rtc0", 100)], Some((100, Possible))),
            // Local time is no wrong clock.
            (&[(Rtc, "rtc0", -2 * 3600)], None),
            (&[(Rtc, "rtc0", 5 * 3600 + 1800), (Kernel, "kernel", 0)], Some((0, Possible))),
            (&[web(3600)], None),
            (&[web(3600), other(3600)], Some((3600, Possible))),
        ];
        for (said, expected) in cases {
            let (found, expected) = (verdict(said), *expected);
            let same = found.is_some() == expected.is_some()
                && found.zip(expected).is_none_or(|(found, expected)| {
                    found.0.abs_diff(expected.0) <= 1 && found.1 == expected.1
                });
            assert!(same, "{said:?}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn a_server_that_hands_out_an_old_date_counts_for_nothing() {
        let mut world = World::default();
        world.learn(&Context::Clock { boot_ns: 0, offset_ns: 0 });
        for at in [0, 10, 20] {
            let reading = Reading {
                boot_ns: at * SECOND,
                kind: Http,
                name: "192.0.2.1:80".into(),
                // The same date each time.
                utc_ns: -(at as i64) * SECOND as i64 - 9000 * SECOND as i64,
                error_ns: SECOND,
            };
            world.learn(&Context::Reference(reading));
            assert_eq!(judge(&world, at * SECOND), None);
        }
    }

    #[test]
    fn a_machine_that_stood_still_is_believed_to_even_if_the_kernel_thinks_it_is_right() {
        let mut world = world(&[(Kernel, "kernel", 0), (Rtc, "rtc0", 0)]);
        let day = 86_400 * SECOND as i64;
        let at = NOW + 10 * SECOND;
        let reading = |kind, name: &str, utc_ns| Reading {
            boot_ns: at,
            kind,
            name: name.into(),
            utc_ns,
            error_ns: SECOND,
        };
        world.learn(&Context::Reference(reading(Rtc, "rtc0", day)));
        world.learn(&Context::Reference(reading(Kernel, "kernel", 0)));
        let verdict = judge(&world, at).expect("readings");
        assert_eq!((verdict.ahead_ns, verdict.confidence), (-day, Likely));
        assert_eq!(verdict.leap.map(|leap| leap.missed_ns), Some(day));
        assert_eq!(verdict.against, [(Kernel, "kernel".to_owned())]);
    }

    #[test]
    fn a_hardware_clock_in_local_time_is_named_and_harmless() {
        let world = world(&[(Kernel, "kernel", 0), (Rtc, "rtc0", -7200)]);
        let verdict = judge(&world, NOW).expect("the kernel");
        assert_eq!(verdict.ahead_ns, 0);
        assert_eq!(verdict.zones, [((Rtc, "rtc0".to_owned()), -7200 * SECOND as i64)]);
    }
}
