//! The wall clock: how it stood at each moment, what each call did to it, and moves that no call explains.
//!
//! A move found by looking is reported only as far as the calls reported before do not account for it. Neither
//! slews nor drift move REALTIME against BOOTTIME, which the kernel disciplines alike: steps alone do.

use std::collections::VecDeque;

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::clock::{ClockMoved, ClockRecord, ClockSuspended, PROBE, call, flag, mode},
    spec::Probe,
};

use super::{ClockCall, LeapSecond, Record, Tick, What, leap, rate::Rate, references::References};
use crate::{
    domains::{Domain, Emitted, ms},
    fact::Degraded,
    known::{
        Known,
        bounded::{Bounded, Table},
        context::{Context, Way},
    },
    records,
};

/// A difference smaller than this between what calls account for and what was seen is measurement.
const UNSURE_NS: u64 = 2_000_000;
/// Offsets remembered at most, one for each step.
const HISTORY: usize = 256;
/// Calls remembered at most between two looks.
const CALLS: usize = 256;
/// HTTP servers whose way is remembered, at most.
const WAYS: usize = 1024;

/// Whether calls that set the clock go unseen without these hooks. Older recordings do not name the hooks: then any of
/// the probe's may be one.
fn misses_calls(degraded: &Degraded) -> bool {
    let on_calls = PROBE.hooks.iter().filter(|hook| hook.is_on_system_call());
    let mut names = on_calls.map(|hook| hook.attach.to_string());
    degraded.probe == PROBE.name
        && (degraded.hooks.is_empty() || names.any(|name| degraded.hooks.contains(&name)))
}

/// A step of the wall clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub at_ns: u64,
    /// It had not happened yet by then: the same unless it was found by looking.
    pub looked_ns: u64,
    /// REALTIME − BOOTTIME before it, nanoseconds.
    pub before_ns: i64,
    /// The same after it.
    pub after_ns: i64,
    /// Who set the clock.
    pub by: Option<Author>,
    /// How long the machine slept meanwhile, nanoseconds.
    pub slept_ns: u64,
    /// It is a leap second.
    pub leap_second: Option<LeapSecond>,
}

impl Step {
    /// By how much the clock moved, nanoseconds; forward is positive.
    pub fn delta_ns(&self) -> i64 {
        self.after_ns.saturating_sub(self.before_ns)
    }
}

/// Who set the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Author {
    /// The thread.
    pub owner: Owner,
    /// By which call.
    pub call: ClockCall,
    /// Its parent process, 0 when that could not be read.
    pub parent: u32,
    /// The parent's name.
    pub parent_comm: String,
    /// Where its executable lies within its file system; for when `/proc` could not be asked any more.
    pub exe: Option<String>,
}

/// How the wall clock stood and stands.
pub struct Memory {
    /// REALTIME − BOOTTIME by the moment from which it held, oldest first.
    history: VecDeque<(u64, i64)>,
    /// The offset culprit began with: ids stay in order whatever the clock does.
    first_ns: Option<i64>,
    /// Steps by calls since the last look: when each was made, and by how much it moved the clock.
    calls: VecDeque<(u64, i64)>,
    /// The look at which the machine was found to have slept, and how long.
    slept: Option<(u64, u64)>,
    /// What the event being reported did.
    step: Option<Step>,
    /// Reference clocks.
    pub(super) references: References,
    /// How namespaces reach HTTP servers that say what time it is.
    pub(super) ways: Bounded<(Netns, [u8; 16]), Way>,
    /// Leap seconds.
    leap: leap::Leaps,
    /// How fast it is set to run.
    rate: Rate,
    /// The kernel and the day it was built, nanoseconds since 1970.
    built: Option<(String, i64)>,
    /// Some hook on the calls that set the clock is not attached.
    degraded: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            history: VecDeque::new(),
            first_ns: None,
            calls: VecDeque::new(),
            slept: None,
            step: None,
            references: References::default(),
            ways: Bounded::new(WAYS),
            leap: leap::Leaps::default(),
            rate: Rate::default(),
            built: None,
            degraded: false,
        }
    }
}

impl Domain for Memory {
    type Record = Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn before(&mut self, _known: &Known, _now_ns: u64, _facts: &mut Vec<Emitted<What>>) {
        self.step = None;
    }

    fn record(&mut self, _known: &mut Known, boot_ns: u64, record: &Record, facts: &mut Vec<Emitted<What>>) {
        match record {
            Record::Set(record) => set(self, boot_ns, record, facts),
            Record::Moved(record) => moved(self, boot_ns, record, facts),
            Record::Suspended(record) => suspended(self, boot_ns, record, facts),
            Record::HttpDate(record) => self.date(record),
        }
    }

    fn after(&mut self, _known: &Known, _now_ns: u64, facts: &mut Vec<Emitted<What>>) {
        let compared = self.references.take_compared().into_iter();
        facts.extend(compared.map(|(boot_ns, what)| Emitted { boot_ns, owner: Owner::default(), what }));
    }

    fn context(&mut self, context: &Context) {
        match context {
            Context::Origin { probes, .. } => self.degraded = probes.degraded.iter().any(misses_calls),
            Context::Clock { boot_ns, offset_ns } => self.stands(*boot_ns, *offset_ns),
            Context::Reference(reading) => self.heard(reading),
            Context::Way { netns, generation, address, way } => {
                let netns = Netns { inode: *netns, generation: *generation };
                self.ways.insert((netns, records::address_bytes(*address)), *way);
            }
            Context::LeapState { boot_ns, armed, tai_s } => self.leap.says(*boot_ns, *armed, *tai_s),
            Context::Tick { boot_ns, tick_us } => self.rate.says(*boot_ns, *tick_us),
            Context::Built { name, utc_ns } => self.built = Some((name.clone(), *utc_ns)),
            _ => {}
        }
    }

    fn tables(&self) -> Vec<Table> {
        vec![self.ways.table("http_clocks")]
    }
}

impl Memory {
    /// Learns how the clock stands from `at_ns` on.
    fn stands(&mut self, at_ns: u64, offset_ns: i64) {
        self.first_ns.get_or_insert(offset_ns);
        // A recording may say anything: the order stays.
        let at_ns = self.history.back().map_or(at_ns, |(last, _)| at_ns.max(*last));
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((at_ns, offset_ns));
    }

    /// REALTIME − BOOTTIME now.
    pub fn offset_ns(&self) -> i64 {
        self.history.back().map_or(0, |(_, offset)| *offset)
    }

    /// When that changed last, 0 if it has not since culprit began.
    pub(super) fn stepped_ns(&self) -> u64 {
        let first = usize::from(self.history.len() < HISTORY);
        self.history.iter().skip(first).next_back().map_or(0, |(at_ns, _)| *at_ns)
    }

    /// REALTIME − BOOTTIME as it was then.
    pub fn offset_at(&self, boot_ns: u64) -> i64 {
        let held = self.history.iter().rev().find(|(from, _)| *from <= boot_ns).or(self.history.front());
        held.map_or(0, |(_, offset)| *offset)
    }
}

impl Memory {
    /// The step that the event being reported made or found.
    pub fn step(&self) -> Option<&Step> {
        self.step.as_ref()
    }

    /// Reference clocks.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// The running kernel by its release and the day it was built, and that day in nanoseconds since 1970: no
    /// clock can be right that shows an earlier time.
    pub fn built(&self) -> Option<(&str, i64)> {
        self.built.as_ref().map(|(name, built_ns)| (name.as_str(), *built_ns))
    }

    /// The tick, where it alone makes the clock run faster or slower than a time daemon's frequency does.
    pub fn wrong_tick(&self) -> Option<&Tick> {
        self.rate.wrong()
    }

    /// Whether some call that sets the clock would go unseen for want of a hook.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Milliseconds since 1970 by the clock as it stood when culprit began: later moments never come
    /// before earlier ones, whatever the clock does.
    pub fn steady_ms(&self, boot_ns: u64) -> u64 {
        let nanos = i128::from(boot_ns) + i128::from(self.first_ns.unwrap_or(0));
        u64::try_from(nanos.max(0) / 1_000_000).unwrap_or(u64::MAX)
    }
}

/// The wall clock's reading at a moment by an offset that need not have held then, RFC 3339.
pub fn reading(boot_ns: u64, offset_ns: i64) -> String {
    timestamp(boot_ns, offset_ns).map_or_else(|| format!("boot+{boot_ns}ns"), |at| format!("{at:.6}"))
}

/// The moment as an offset has it, if there is such a date.
pub fn timestamp(boot_ns: u64, offset_ns: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_nanosecond(i128::from(boot_ns) + i128::from(offset_ns)).ok()
}

fn set(memory: &mut Memory, boot_ns: u64, record: &ClockRecord, facts: &mut Vec<Emitted<What>>) {
    let refused = record.result < 0;
    let call = match record.call {
        call::CLOCK_SETTIME => ClockCall::ClockSettime,
        call::SETTIMEOFDAY => ClockCall::Settimeofday,
        call::CLOCK_ADJTIME => ClockCall::ClockAdjtime,
        _ => ClockCall::Adjtimex,
    };
    if record.flags & flag::STEP != 0 {
        let delta_ns = if refused { 0 } else { delta(memory, boot_ns, record) };
        let before_ns = memory.offset_ns();
        let after_ns = before_ns.saturating_add(delta_ns);
        let (before, after) = (reading(boot_ns, before_ns), reading(boot_ns, after_ns));
        if !refused {
            stepped(memory, boot_ns, record, call, (before_ns, after_ns));
        }
        facts.push(Emitted {
            boot_ns,
            owner: record.owner,
            what: What::ClockSet { call, before, after, delta_ns, refused },
        });
        return;
    }
    let leap_second = leap::armed(record);
    if !refused && record.modes & mode::STATUS != 0 && record.modes & mode::ADJTIME == 0 {
        memory.leap.set(boot_ns, leap_second, || author(record, call));
    }
    let tick_us = (record.modes & (mode::TICK | mode::ADJTIME) == mode::TICK
        && record.flags & flag::UNREAD == 0)
        .then_some(record.tick);
    if let Some(tick_us) = tick_us.filter(|_| !refused) {
        memory.rate.set(boot_ns, tick_us, author(record, call));
    }
    let ppm = (record.modes & (mode::FREQUENCY | mode::ADJTIME) == mode::FREQUENCY)
        .then(|| record.frequency as f64 / 65536.0);
    let offset_ns = (record.modes & mode::OFFSET != 0).then(|| {
        if record.modes & (mode::NANO | mode::ADJTIME) == mode::NANO {
            record.offset
        } else {
            record.offset.saturating_mul(1000)
        }
    });
    facts.push(Emitted {
        boot_ns,
        owner: record.owner,
        what: What::ClockSlewed {
            call,
            modes: record.modes,
            offset_ns,
            frequency_ppm: ppm,
            tick_us,
            leap_second,
            zone_only: record.flags & flag::ZONE_ONLY != 0,
            refused,
        },
    });
}

fn stepped(memory: &mut Memory, boot_ns: u64, record: &ClockRecord, call: ClockCall, offsets: (i64, i64)) {
    let (before_ns, after_ns) = offsets;
    memory.stands(boot_ns, after_ns);
    if memory.calls.len() >= CALLS {
        memory.calls.pop_front();
    }
    memory.calls.push_back((record.entered_ns, after_ns.saturating_sub(before_ns)));
    memory.step = Some(Step {
        at_ns: boot_ns,
        looked_ns: boot_ns,
        before_ns,
        after_ns,
        by: Some(author(record, call)),
        slept_ns: 0,
        leap_second: None,
    });
}

fn author(record: &ClockRecord, call: ClockCall) -> Author {
    Author {
        owner: record.owner,
        call,
        parent: record.parent,
        parent_comm: records::comm(&record.parent_comm),
        exe: executable(record),
    }
}

/// `/usr/bin/date`, of the names on its path; `…/bin/date` when there are more than were taken.
fn executable(record: &ClockRecord) -> Option<String> {
    let text = |name: &[u8]| {
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).into_owned()
    };
    let mut names: Vec<String> =
        record.exe.iter().map(|name| text(name)).take_while(|name| !name.is_empty()).collect();
    let whole = names.len() < record.exe.len();
    names.reverse();
    (!names.is_empty()).then(|| format!("{}/{}", if whole { "" } else { "…" }, names.join("/")))
}

/// By how much a call moved the clock.
fn delta(memory: &Memory, boot_ns: u64, record: &ClockRecord) -> i64 {
    if record.flags & flag::OFFSETS != 0 && record.flags & flag::TAI_CHANGED == 0 {
        return record.after_ns.saturating_sub(record.before_ns);
    }
    requested_delta(memory, boot_ns, record).unwrap_or(0)
}

/// What the call asked for, where the kernel could not measure what it did (before 6.1).
fn requested_delta(memory: &Memory, boot_ns: u64, record: &ClockRecord) -> Option<i64> {
    if record.flags & flag::UNREAD != 0 {
        return None;
    }
    let requested = record.requested_sec.checked_mul(1_000_000_000)?.checked_add(record.requested_nsec)?;
    if record.modes & mode::SETOFFSET != 0 {
        return Some(requested);
    }
    let was = i64::try_from(boot_ns).ok()?.checked_add(memory.offset_ns())?;
    requested.checked_sub(was)
}

fn moved(memory: &mut Memory, boot_ns: u64, record: &ClockMoved, facts: &mut Vec<Emitted<What>>) {
    // Calls made after the look are not in what it saw.
    let mut accounted = 0i64;
    memory.calls.retain(|(entered_ns, delta_ns)| {
        let seen = *entered_ns <= boot_ns;
        if seen {
            accounted = accounted.saturating_add(*delta_ns);
        }
        !seen
    });
    let unexplained = record.after_ns.saturating_sub(record.before_ns).saturating_sub(accounted);
    let since: i64 = memory.calls.iter().fold(0, |sum, (_, delta_ns)| sum.saturating_add(*delta_ns));
    memory.stands(boot_ns, record.after_ns.saturating_add(since));
    if unexplained.unsigned_abs() < UNSURE_NS {
        return;
    }
    let before_ns = record.after_ns.saturating_sub(unexplained);
    let slept = memory.slept.filter(|(looked_ns, _)| *looked_ns == record.looked_ns);
    let leap_second = memory.leap.second(record, before_ns, unexplained);
    if let Some(second) = &leap_second {
        let what = What::LeapSecond {
            leap_second: second.kind,
            before: reading(boot_ns, before_ns),
            after: reading(boot_ns, record.after_ns),
        };
        let owner = second.by.as_ref().map_or_else(Owner::default, |author| author.owner);
        facts.push(Emitted { boot_ns, owner, what });
    } else {
        let what = What::ClockMoved {
            before: reading(boot_ns, before_ns),
            after: reading(boot_ns, record.after_ns),
            delta_ns: unexplained,
            was_set: record.was_set != 0,
            within_ms: ms(boot_ns.saturating_sub(record.looked_ns)),
        };
        facts.push(Emitted { boot_ns, owner: Owner::default(), what });
    }
    memory.step = Some(Step {
        at_ns: boot_ns,
        looked_ns: record.looked_ns.min(boot_ns),
        before_ns,
        after_ns: record.after_ns,
        by: None,
        slept_ns: slept.map_or(0, |(_, slept_ns)| slept_ns),
        leap_second,
    });
}

fn suspended(memory: &mut Memory, boot_ns: u64, record: &ClockSuspended, facts: &mut Vec<Emitted<What>>) {
    let slept_ns = record.slept_ns.unsigned_abs();
    memory.slept = Some((record.looked_ns, slept_ns));
    facts.push(Emitted {
        boot_ns,
        owner: Owner::default(),
        what: What::Suspended { suspended_ms: ms(slept_ns) },
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_by_the_offset_that_held_then() {
        let mut clock = Memory::default();
        clock.stands(100, 1000);
        clock.stands(200, 5000);
        assert_eq!([50, 100, 199, 200, 900].map(|at| clock.offset_at(at)), [1000, 1000, 1000, 5000, 5000]);
        // Out of order, as only a broken recording has it: still in order.
        clock.stands(150, 7000);
        assert_eq!((clock.offset_ns(), clock.offset_at(199)), (7000, 1000));
    }

    #[test]
    fn a_path_is_put_together_from_its_names() {
        let mut record = ClockRecord::default();
        assert_eq!(executable(&record), None);
        record.exe[0][..4].copy_from_slice(b"date");
        record.exe[1][..3].copy_from_slice(b"bin");
        record.exe[2][..3].copy_from_slice(b"usr");
        assert_eq!(executable(&record).as_deref(), Some("/usr/bin/date"));
        for name in &mut record.exe {
            name[0] = b'x';
            name[1] = 0;
        }
        assert!(executable(&record).is_some_and(|path| path.starts_with("…/x/")));
    }
}
