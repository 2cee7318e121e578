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
//! | an HTTP server, heard twice with the time going on between | 2, together 6 at most | any clock |
//!
//! HTTP servers are counted by address, for one machine has many ports. A hardware clock that is off by quarters of
//! an hour, up to a day, and has been from the first look on, is kept in local time, and says nothing; neither
//! does a single HTTP server that is.
//!
//! **Children of the clock.** What moved with or after a step of the wall clock cannot speak for it: a hardware
//! clock that was written (`hwclock --systohc`, the kernel's 11-minute mode), the kernel's own account, a server
//! that has its time from this machine. Of such a clock counts what it said before the step. A hardware clock
//! alone settles nothing, and says so: [`Ground::HardwareAlone`].
//!
//! No clock can be right that shows a time before the running kernel was built.

use std::{collections::VecDeque, net::IpAddr};

use crate::{
    domains::clock::references::{Leap, Source},
    fact::{Reading, ReferenceKind, is_time_zone},
    pipeline::incident::Confidence,
    pipeline::world::World,
    time::SECOND_NS,
};

/// What an undisciplined clock may drift between a reading and now: 100 parts per million.
const DRIFT: u64 = 10_000;
/// A known rate is exact to one part in this many: the frequency that is set beside the tick.
const RATE: u64 = 50;
/// Readings that agree are at most this far apart beyond their errors.
const AGREE_NS: u64 = 2 * SECOND_NS;
/// Build dates are written down in local time, or to the day.
const BUILT_NS: u64 = 86_400 * SECOND_NS;

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
    /// What it rests on.
    pub(in crate::rules) ground: Ground,
    /// Clocks that contradict.
    pub(in crate::rules) against: Vec<Source>,
    /// Clocks that are off by a time zone, and count for nothing.
    pub(in crate::rules) zones: Vec<(Source, i64)>,
    /// The time this machine missed, when that is how the clock became wrong.
    pub(in crate::rules) leap: Option<Leap>,
    /// What each of those that agree says: how far ahead the wall clock is, and how far that may be wrong.
    said: Vec<(Source, i64, u64)>,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) enum Ground {
    /// Clocks of which at least one is that cannot be forged.
    Firm,
    /// HTTP servers and nothing else: a server says what it likes.
    HttpAlone,
    /// A hardware clock and nothing else: it may have been wrong for years.
    HardwareAlone,
    /// The wall clock is before the day this kernel was built: it is behind at least by that.
    Built,
}

impl Verdict {
    /// The least the clock is wrong by, nanoseconds.
    pub(in crate::rules) fn at_least_ns(&self) -> u64 {
        self.ahead_ns.unsigned_abs().saturating_sub(self.error_ns)
    }

    /// The same, when it is over.
    pub(in crate::rules) fn no_more(&self) -> Self {
        Self { ahead_ns: 0, error_ns: 0, ..self.clone() }
    }

    /// Names the clock that was named before, as long as it is among those that agree: equal clocks take turns in
    /// being the most exact.
    pub(in crate::rules) fn still_by(&mut self, before: &Source) {
        let Some(at) = self.others.iter().position(|source| source == before) else { return };
        // Not in place of one that was made to be asked.
        if self.source.0 != before.0 {
            return;
        }
        let Some((_, ahead_ns, error_ns)) = self.said.iter().find(|(source, ..)| source == before) else {
            return;
        };
        (self.ahead_ns, self.error_ns) = (*ahead_ns, *error_ns);
        std::mem::swap(&mut self.source, &mut self.others[at]);
    }
}

/// A step that is to be judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::rules) struct After {
    /// The wall clock had not been touched by then, CLOCK_BOOTTIME in nanoseconds.
    pub(in crate::rules) began_ns: u64,
    /// A time daemon set it: that the kernel is synchronised is such a daemon's word.
    pub(in crate::rules) by_daemon: bool,
}

/// One clock's vote.
#[derive(Debug, Clone)]
struct Vote {
    source: Source,
    ahead_ns: i64,
    error_ns: u64,
    weight: u32,
    /// It went on while this machine stood still.
    leapt: bool,
    /// What it says has changed slowly since it was first heard: one of the two clocks runs wrong.
    drifts: bool,
}

impl Vote {
    fn agrees(&self, other: &Self) -> bool {
        self.ahead_ns.abs_diff(other.ahead_ns)
            <= self.error_ns.saturating_add(other.error_ns).saturating_add(AGREE_NS)
    }
}

/// How wrong the wall clock is, as far as anything here can say.
pub(in crate::rules) fn judge(world: &World, now_ns: u64) -> Option<Verdict> {
    judge_by(world, now_ns, None)
}

/// The same, by what does not owe its time to the step.
pub(in crate::rules) fn judge_after(world: &World, now_ns: u64, after: After) -> Option<Verdict> {
    judge_by(world, now_ns, Some(after))
}

fn judge_by(world: &World, now_ns: u64, after: Option<After>) -> Option<Verdict> {
    let judged = vote(world, now_ns, after);
    let Some((built, built_ns)) = world.built() else { return judged };
    let wall_ns = i64::try_from(now_ns).unwrap_or(i64::MAX).saturating_add(world.offset_ns());
    let ahead_ns = wall_ns.saturating_sub(built_ns);
    if ahead_ns >= 0 || ahead_ns.unsigned_abs() < BUILT_NS {
        return judged;
    }
    match judged {
        // It is wrong by no less than that, and it is known by how much.
        Some(mut judged)
            if judged.ground != Ground::HardwareAlone
                && judged.ahead_ns <= ahead_ns.saturating_add_unsigned(BUILT_NS) =>
        {
            (judged.ground, judged.confidence) = (Ground::Firm, Confidence::Certain);
            Some(judged)
        }
        judged => Some(Verdict {
            ahead_ns,
            error_ns: BUILT_NS,
            source: (ReferenceKind::Built, built.to_owned()),
            others: vec![],
            confidence: Confidence::Certain,
            ground: Ground::Built,
            against: vec![],
            zones: judged.map(|judged| judged.zones).unwrap_or_default(),
            leap: None,
            said: vec![],
        }),
    }
}

fn vote(world: &World, now_ns: u64, after: Option<After>) -> Option<Verdict> {
    let references = world.references();
    let mut votes = Vec::new();
    let mut zones = Vec::new();
    for (source, readings) in references.all() {
        let Some((vote, first)) = voice(world, now_ns, source, readings, after) else { continue };
        if source.0 == ReferenceKind::Rtc && !vote.leapt && is_zone(world, &vote, first) {
            zones.push((source.clone(), vote.ahead_ns));
        } else {
            votes.push((vote, first));
        }
    }
    // The one that is named is the one to be believed most, of equals the most exact.
    votes.sort_by_key(|(vote, _)| (std::cmp::Reverse(vote.weight), vote.error_ns, vote.source.clone()));
    // Of HTTP servers a single one's local time is no more than that.
    let http = votes.iter().filter(|(vote, _)| vote.source.0 == ReferenceKind::Http).count();
    if http == 1 {
        let local = |vote: &Vote, first| {
            vote.source.0 == ReferenceKind::Http && vote.weight < METADATA && is_zone(world, vote, first)
        };
        let local = votes.extract_if(.., |(vote, first)| local(vote, first));
        zones.extend(local.map(|(vote, _)| (vote.source, vote.ahead_ns)));
    }
    let votes: Vec<Vote> = votes.into_iter().map(|(vote, _)| vote).collect();
    let group =
        |with: &Vote| -> Vec<Vote> { votes.iter().filter(|vote| vote.agrees(with)).cloned().collect() };
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
    let all = |is: &dyn Fn(&Vote) -> bool| best.iter().all(is);
    let ground = if all(&|vote| vote.source.0 == ReferenceKind::Rtc && !vote.leapt && !vote.drifts) {
        Ground::HardwareAlone
    } else if all(&|vote| vote.source.0 == ReferenceKind::Http) {
        Ground::HttpAlone
    } else {
        Ground::Firm
    };
    Some(Verdict {
        ahead_ns: first.ahead_ns,
        error_ns: first.error_ns,
        source: first.source.clone(),
        others: best[1..].iter().map(|vote| vote.source.clone()).collect(),
        confidence,
        ground,
        against: against.into_iter().map(|vote| vote.source.clone()).collect(),
        zones,
        leap: leap.cloned(),
        said: best.iter().map(|vote| (vote.source.clone(), vote.ahead_ns, vote.error_ns)).collect(),
    })
}

/// What a clock says, and what it said first; `None` if that counts for nothing.
fn voice<'a>(
    world: &World,
    now_ns: u64,
    source: &Source,
    readings: &'a VecDeque<Reading>,
    after: Option<After>,
) -> Option<(Vote, &'a Reading)> {
    let (references, offset_ns) = (world.references(), world.offset_ns());
    let (first, last) = (readings.front()?, readings.back()?);
    let leapt = references.leap().is_some_and(|leap| leap.source == *source);
    let agrees = offset_ns.abs_diff(last.utc_ns) <= last.error_ns.saturating_add(AGREE_NS);
    let said = match after {
        // What was written says what was written to it.
        None => (leapt || references.written(source).is_none()).then_some(last)?,
        Some(after) => {
            let before = readings.iter().rfind(|reading| reading.boot_ns < after.began_ns);
            match source.0 {
                ReferenceKind::Kernel if after.by_daemon => return None,
                ReferenceKind::Kernel => before?,
                ReferenceKind::Rtc if leapt => last,
                // One that is first heard after the step and agrees may have been written.
                ReferenceKind::Rtc => before.or((!agrees).then_some(last))?,
                _ => match before {
                    Some(before) if followed(before, readings) => before,
                    None if source.0 == ReferenceKind::Http && agrees => return None,
                    _ => last,
                },
            }
        }
    };
    let age_ns = now_ns.saturating_sub(said.boot_ns);
    let lifetime_ns = if std::ptr::eq(said, last) { source.0.lifetime_ns() } else { REMEMBERED_NS };
    let gained_ns = gained_ns(world, source.0, said, now_ns);
    let ahead_ns = offset_ns.saturating_sub(said.utc_ns).saturating_add(gained_ns);
    let weight = weight(said, readings.iter(), leapt, references.is_metadata(source));
    if weight == 0 || age_ns > lifetime_ns {
        return None;
    }
    let since_first = said.utc_ns.abs_diff(first.utc_ns);
    let drifts = references.written(source).is_none()
        && since_first > DRIFTED_NS.max(first.error_ns.saturating_add(said.error_ns));
    let error_ns =
        said.error_ns.saturating_add(age_ns / DRIFT).saturating_add(gained_ns.unsigned_abs() / RATE);
    Some((Vote { source: source.clone(), ahead_ns, error_ns, weight, leapt, drifts }, first))
}

/// What the wall clock has gained on another clock since that was read, by a tick that makes it run wrong: BOOTTIME, by
/// which the reading was dated, runs wrong with it. The kernel's own account is of the same clock.
fn gained_ns(world: &World, kind: ReferenceKind, said: &Reading, now_ns: u64) -> i64 {
    let Some(tick) = world.wrong_tick().filter(|_| kind != ReferenceKind::Kernel) else { return 0 };
    let passed_ns = now_ns.saturating_sub(said.boot_ns.max(tick.since_ns));
    let rate = tick.ppm() / 1e6;
    // A cast stays within bounds.
    (passed_ns as f64 * rate / (1.0 + rate)).round() as i64
}

/// Whether a clock said something else at once, and not only after the wall clock was slewed (which BOOTTIME, by which
/// readings are kept, is with it): it is set with the wall clock.
fn followed(before: &Reading, readings: &VecDeque<Reading>) -> bool {
    readings.iter().find(|reading| reading.boot_ns > before.boot_ns).is_some_and(|first| {
        let unsure = before.error_ns.saturating_add(first.error_ns).saturating_add(AGREE_NS);
        first.boot_ns.saturating_sub(before.boot_ns) <= AT_ONCE_NS
            && before.utc_ns.abs_diff(first.utc_ns) > unsure
    })
}

/// Two readings of a server that is asked every 64 s are no further apart than this.
const AT_ONCE_NS: u64 = 130 * SECOND_NS;
/// What a clock said before a step counts for this long.
const REMEMBERED_NS: u64 = 3600 * SECOND_NS;
/// A hardware clock that has come to differ by this much without being written is evidence of a clock that runs wrong.
const DRIFTED_NS: u64 = 5 * SECOND_NS;
/// Weight of a clock that was made to be asked.
const ASKED: u32 = 8;
/// Weight of the cloud's own metadata service.
const METADATA: u32 = 4;
/// What HTTP servers weigh together at most.
const HTTP_MOST: u32 = 6;

fn together(group: &[Vote]) -> u32 {
    let (http, clocks): (Vec<&Vote>, Vec<&Vote>) =
        group.iter().partition(|vote| vote.source.0 == ReferenceKind::Http);
    let mut machines: Vec<(Option<IpAddr>, u32)> = Vec::new();
    for vote in http {
        let machine = machine(&vote.source.1);
        match machines.iter_mut().find(|(known, _)| *known == machine) {
            Some((_, weight)) => *weight = vote.weight.max(*weight),
            None => machines.push((machine, vote.weight)),
        }
    }
    let http = machines.iter().map(|(_, weight)| weight).sum::<u32>().min(HTTP_MOST);
    http + clocks.iter().map(|vote| vote.weight).sum::<u32>()
}

/// Whose server that is: its address, of IPv6 the /64, in which one host may have any number.
fn machine(name: &str) -> Option<IpAddr> {
    let address = name.parse::<std::net::SocketAddr>().ok()?.ip();
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    })
}

fn weight<'a>(
    last: &Reading,
    readings: impl Iterator<Item = &'a Reading>,
    leapt: bool,
    metadata: bool,
) -> u32 {
    match last.kind {
        ReferenceKind::Rtc if leapt => 6,
        // One whose date does not go on with time hands out an old answer.
        ReferenceKind::Http if !goes_on(last, readings) => 0,
        ReferenceKind::Http if metadata => METADATA,
        kind => kind.weight(),
    }
}

/// The last two readings, a while apart, say the same of UTC.
fn goes_on<'a>(last: &Reading, readings: impl Iterator<Item = &'a Reading>) -> bool {
    const APART_NS: u64 = 2 * SECOND_NS;
    readings
        .filter(|earlier| last.boot_ns.saturating_sub(earlier.boot_ns) >= APART_NS)
        .last()
        .is_some_and(|earlier| earlier.utc_ns.abs_diff(last.utc_ns) < APART_NS)
}

/// Whether a clock is off by as much as local time may be, and was from the first look on: what became so by a step
/// of an hour is no time zone.
fn is_zone(world: &World, vote: &Vote, first: &Reading) -> bool {
    let at_first_ns = world.offset_at(first.boot_ns).saturating_sub(first.utc_ns);
    let unsure = vote.error_ns.saturating_add(first.error_ns).saturating_add(AGREE_NS);
    is_time_zone(vote.ahead_ns.unsigned_abs(), vote.error_ns) && at_first_ns.abs_diff(vote.ahead_ns) <= unsure
}

#[cfg(test)]
mod tests;
