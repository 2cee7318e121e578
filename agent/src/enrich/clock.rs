//! The wall clock: what each call did to it, and moves that no call explains.
//!
//! A move found by looking is told only as far as the calls told before do not account for it.

use ebpf_probes::probes::clock::{ClockMoved, ClockRecord, ClockSuspended, call, flag, mode};

use super::{Told, World, ms};
use crate::fact::{ClockCall, What};

/// A difference smaller than this between what calls account for and what was seen is measurement.
const UNSURE_NS: u64 = 2_000_000;

pub(super) fn set(world: &mut World, boot_ns: u64, record: &ClockRecord, told: &mut Vec<Told>) {
    let refused = record.result < 0;
    let measured = record.flags & flag::OFFSETS != 0 && record.flags & flag::TAI_CHANGED == 0;
    let delta_ns = if refused {
        Some(0)
    } else if measured {
        Some(record.after_ns.saturating_sub(record.before_ns))
    } else {
        requested_delta(world, boot_ns, record)
    };
    let call = match record.call {
        call::CLOCK_SETTIME => ClockCall::ClockSettime,
        call::SETTIMEOFDAY => ClockCall::Settimeofday,
        call::CLOCK_ADJTIME => ClockCall::ClockAdjtime,
        _ => ClockCall::Adjtimex,
    };
    let before = world.wall(boot_ns);
    if record.flags & flag::STEP != 0 {
        let delta_ns = delta_ns.unwrap_or(0);
        world.offset_ns = world.offset_ns.saturating_add(delta_ns);
        world.accounted_ns = world.accounted_ns.saturating_add(delta_ns);
        let after = world.wall(boot_ns);
        told.push(("clock", record.owner, What::ClockSet { call, before, after, delta_ns, refused }));
        return;
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
    told.push((
        "clock",
        record.owner,
        What::ClockSlewed {
            call,
            modes: record.modes,
            offset_ns,
            frequency_ppm: ppm,
            zone_only: record.flags & flag::ZONE_ONLY != 0,
            refused,
        },
    ));
}

/// What the call asked for, where the kernel could not measure what it did (before 6.1).
fn requested_delta(world: &World, boot_ns: u64, record: &ClockRecord) -> Option<i64> {
    if record.flags & flag::UNREAD != 0 {
        return None;
    }
    let requested = record.requested_sec.checked_mul(1_000_000_000)?.checked_add(record.requested_nsec)?;
    if record.modes & mode::SETOFFSET != 0 {
        return Some(requested);
    }
    let was = i64::try_from(boot_ns).ok()?.checked_add(world.offset_ns)?;
    requested.checked_sub(was)
}

pub(super) fn moved(world: &mut World, boot_ns: u64, record: &ClockMoved, told: &mut Vec<Told>) {
    let delta = record.after_ns.saturating_sub(record.before_ns);
    let unexplained = delta.saturating_sub(world.accounted_ns);
    world.accounted_ns = 0;
    world.offset_ns = record.after_ns;
    if unexplained.unsigned_abs() < UNSURE_NS {
        return;
    }
    let after = world.wall(boot_ns);
    world.offset_ns = record.after_ns.saturating_sub(unexplained);
    let before = world.wall(boot_ns);
    world.offset_ns = record.after_ns;
    let what = What::ClockMoved {
        before,
        after,
        delta_ns: unexplained,
        was_set: record.was_set != 0,
        within_ms: ms(boot_ns.saturating_sub(record.looked_ns)),
    };
    told.push(("clock", ebpf_probes::abi::Owner::default(), what));
}

pub(super) fn suspended(record: &ClockSuspended, told: &mut Vec<Told>) {
    let what = What::MachineSlept { slept_ms: ms(record.slept_ns.unsigned_abs()) };
    told.push(("clock", ebpf_probes::abi::Owner::default(), what));
}
