//! The programs behind `clock`: what a thread asks for is kept at its system call's entry, judged and
//! reported at its return. Tracepoints of four system calls that are rarely made: nothing runs otherwise.
//! (fentry on the functions behind them would catch 32-bit callers too, but not on every kernel.)

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{
            bpf_ktime_get_tai_ns, bpf_probe_read_kernel as read_kernel, bpf_probe_read_kernel_str,
            bpf_probe_read_user as read_user,
        },
    },
    macros::{map, tracepoint},
    maps::{LruHashMap, PerCpuArray},
    programs::TracePointContext,
};

use super::{ClockRecord, EXE_NAME, EXE_NAMES, EXPOSURE_NS, call, flag, mode, status};
use crate::{
    abi::{Kind, ProbeId, Stat},
    bpf::{
        counters::count,
        filter,
        netns::current_netns,
        owner::current,
        ring::{emit, header},
        time::{SECOND, now},
        verifier::{self, opaque},
    },
    fields,
};

/// The call each thread is in, by thread: the record to be. Overwritten by its next one.
#[map]
static CLOCK_CALLS: LruHashMap<u64, ClockRecord> = LruHashMap::with_max_entries(256, 0);

/// When a process was last reported to have been refused, by process: any process may try, as often as it likes.
#[map]
static REFUSED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(256, 0);

/// Where a call is noted before it is kept: too large for the stack beside what it is read from.
#[map]
static NOTE: PerCpuArray<ClockRecord> = PerCpuArray::with_max_entries(1, 0);

/// 1: `bpf_ktime_get_tai_ns` is there.
#[unsafe(no_mangle)]
static HAVE_TAI: Global<u32> = Global::new(0);

/// `CLOCK_REALTIME` of include/uapi/linux/time.h.
const REALTIME: u64 = 0;
const EPERM: i64 = 1;
/// A tick of the right length, microseconds.
const STRAIGHT: i64 = 10_000;

/// What moves the clock, changes its rate, or says whether it is right. The rest (error estimates, the
/// loop's time constant, units) changes nothing visible.
const MATTERS: u32 = mode::OFFSET | mode::FREQUENCY | mode::STATUS | mode::TAI | mode::SETOFFSET | mode::TICK;

/// The head of `struct __kernel_timex`, include/uapi/linux/timex.h, up to `tick`. The same for all
/// 64-bit processes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    freq: i64,
    maxerror: i64,
    esterror: i64,
    status: i32,
    pad2: u32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    sec: i64,
    usec: i64,
    tick: i64,
}

/// TAI − BOOTTIME. The two are read some 50 ns apart, more when interrupted between.
#[inline(always)]
fn tai_offset() -> i64 {
    // SAFETY: the helpers take nothing and cannot fail; pruned by the verifier where there is no TAI.
    unsafe { bpf_ktime_get_tai_ns().wrapping_sub(now()) as i64 }
}

/// An argument of a system call: the first is at 16 on every kernel (kernel/trace/trace_syscalls.c).
#[inline(always)]
fn argument(ctx: &TracePointContext, at: usize) -> Option<u64> {
    // SAFETY: within the tracepoint's record, read by a helper that cannot fault.
    unsafe { ctx.read_at::<u64>(16 + 8 * at).ok() }
}

/// Keeps a call for its return; `fill` says what it asks for, or that it is none of our business.
#[inline(always)]
fn entered(call: u32, fill: impl FnOnce(&mut ClockRecord) -> Option<()>) {
    let Some(note) = NOTE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's slot: these programs run in process context, and none interrupts another.
    let note = unsafe { &mut *note };
    *note = ClockRecord { call, ..ClockRecord::default() };
    if fill(note).is_none() {
        return;
    }
    note.owner = current(current_netns());
    // Who sets the clock sets it for everybody, and so does who has the kernel do it.
    if note.flags & (flag::STEP | flag::LEAP | flag::TICK) == 0
        && (filter::quiet() || !filter::caller(&note.owner))
    {
        return;
    }
    verifier::call!(whence());
    note.entered_ns = now();
    if HAVE_TAI.load() != 0 {
        note.flags |= flag::OFFSETS;
        note.before_ns = tai_offset();
    }
    let _ = CLOCK_CALLS.insert(&bpf_get_current_pid_tgid(), &*note, 0);
}

/// Notes whose child the caller is, and where its executable lies. Not inlined: once for each call that counts.
#[inline(never)]
fn whence() -> u64 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return opaque(0) };
    // SAFETY: this CPU's slot; each step is read by a helper that cannot fault.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        if let Ok(parent) = bpf_probe_read_kernel(fields::TASK_REAL_PARENT::address(task)) {
            (*note).parent = bpf_probe_read_kernel(fields::TASK_TGID::address(parent)).unwrap_or(0);
            let name = fields::TASK_COMM::address(parent);
            read_kernel((&raw mut (*note).parent_comm).cast(), 16, name.cast());
        }
        let Ok(mm) = bpf_probe_read_kernel(fields::TASK_MM::address(task)) else { return opaque(0) };
        let Ok(file) = bpf_probe_read_kernel(fields::MM_EXE_FILE::address(mm)) else { return opaque(0) };
        let Ok(entry) = bpf_probe_read_kernel(fields::FILE_DENTRY::address(file)) else { return opaque(0) };
        let mut entry = entry;
        for at in 0..EXE_NAMES {
            let Ok(above) = bpf_probe_read_kernel(fields::DENTRY_PARENT::address(entry)) else { break };
            // The root is its own parent.
            if above == entry {
                break;
            }
            let Ok(name) = bpf_probe_read_kernel(fields::DENTRY_NAME::address(entry)) else { break };
            let to = (&raw mut (*note).exe).cast::<u8>().add(at * EXE_NAME);
            bpf_probe_read_kernel_str(to.cast(), EXE_NAME as u32, name.cast());
            entry = above;
        }
    }
    opaque(0)
}

/// The two calls that set: `unit` is how many nanoseconds the second word counts.
#[inline(always)]
fn sets(note: &mut ClockRecord, time: u64, unit: i64) -> Option<()> {
    note.flags |= flag::STEP;
    // SAFETY: user memory, read by a helper that cannot fault. What fails here mostly fails there, too.
    match unsafe { bpf_probe_read_user(time as *const [i64; 2]) } {
        Ok([sec, fraction]) => {
            note.requested_sec = sec;
            note.requested_nsec = fraction.wrapping_mul(unit);
        }
        Err(_) => note.flags |= flag::UNREAD,
    }
    Some(())
}

/// The two calls that adjust.
#[inline(always)]
fn adjusts(note: &mut ClockRecord, timex: u64) -> Option<()> {
    // SAFETY: user memory, read by a helper that cannot fault.
    let Ok(modes) = (unsafe { bpf_probe_read_user(timex as *const u32) }) else {
        note.flags |= flag::UNREAD;
        return Some(());
    };
    if modes & mode::ADJTIME != 0 {
        if modes & mode::READ_ONLY != 0 {
            return None;
        }
    } else if modes & MATTERS == 0 {
        return None;
    }
    let mut asked = core::mem::MaybeUninit::<Timex>::uninit();
    // SAFETY: the helper writes the whole structure, zeros included when it fails.
    let asked = unsafe {
        if read_user(asked.as_mut_ptr().cast(), size_of::<Timex>() as u32, timex as *const _) != 0 {
            note.flags |= flag::UNREAD;
        }
        asked.assume_init()
    };
    note.modes = modes;
    note.offset = asked.offset;
    note.frequency = asked.freq;
    note.status = asked.status;
    note.tick = asked.tick;
    note.constant = asked.constant;
    if modes & mode::ADJTIME == 0 {
        if modes & mode::SETOFFSET != 0 {
            note.flags |= flag::STEP;
            note.requested_sec = asked.sec;
            let unit = if modes & mode::NANO != 0 { 1 } else { 1000 };
            note.requested_nsec = asked.usec.wrapping_mul(unit);
        }
        if modes & mode::TAI != 0 {
            note.flags |= flag::TAI_CHANGED;
        }
        if modes & mode::TICK != 0 && asked.tick != STRAIGHT {
            note.flags |= flag::TICK;
        }
        if modes & mode::STATUS != 0 && asked.status & (status::INSERT | status::DELETE) != 0 {
            note.flags |= flag::LEAP;
        }
    }
    Some(())
}

/// Reports the call this thread returns from, unless it failed for a reason of its own.
#[inline(always)]
fn left(ctx: &TracePointContext) {
    let thread = bpf_get_current_pid_tgid();
    let Some(kept) = CLOCK_CALLS.get_ptr_mut(&thread) else { return };
    let after_ns = if HAVE_TAI.load() != 0 { tai_offset() } else { 0 };
    let Some(result) = argument(ctx, 0) else { return };
    let result = result as i64;
    // SAFETY: a live map value; this thread alone writes its entry.
    let kept = unsafe { &mut *kept };
    kept.after_ns = after_ns;
    kept.result = result as i32;
    if wanted(kept, result) {
        if result >= 0 && kept.flags & flag::STEP != 0 {
            filter::expose(now().wrapping_add(EXPOSURE_NS));
        }
        emit::<ClockRecord>(ProbeId::CLOCK, |record| {
            kept.header = header::<ClockRecord>(Kind::CLOCK_SET);
            // SAFETY: a fresh reservation of the record's size, written whole.
            unsafe { core::ptr::copy_nonoverlapping(&*kept, record, 1) };
            Some(())
        });
    }
    let _ = CLOCK_CALLS.remove(&thread);
}

#[inline(always)]
fn wanted(kept: &ClockRecord, result: i64) -> bool {
    if result >= 0 {
        if kept.call > call::SETTIMEOFDAY && kept.modes == 0 {
            // Whether it read or set is what could not be read.
            count(ProbeId::CLOCK, Stat::Unreadable);
            return false;
        }
        return filter::ONLY_BAD.load() == 0 || kept.flags & (flag::STEP | flag::LEAP | flag::TICK) != 0;
    }
    if result != -EPERM || kept.flags & flag::UNREAD != 0 {
        return false;
    }
    let at = now();
    if let Some(reported) = REFUSED.get_ptr(&kept.owner.process) {
        // SAFETY: a live map value of one word.
        if at.wrapping_sub(unsafe { *reported }) < SECOND {
            return false;
        }
    }
    let _ = REFUSED.insert(&kept.owner.process, &at, 0);
    true
}

/// Runs once per clock_settime(2), of any clock.
#[tracepoint(category = "syscalls", name = "sys_enter_clock_settime")]
pub fn enter_clock_settime(ctx: TracePointContext) -> u32 {
    entered(call::CLOCK_SETTIME, |note| {
        if argument(&ctx, 0)? as u32 as u64 != REALTIME {
            return None;
        }
        sets(note, argument(&ctx, 1)?, 1)
    });
    0
}

/// Runs once per settimeofday(2).
#[tracepoint(category = "syscalls", name = "sys_enter_settimeofday")]
pub fn enter_settimeofday(ctx: TracePointContext) -> u32 {
    entered(call::SETTIMEOFDAY, |note| {
        let time = argument(&ctx, 0)?;
        if time == 0 {
            note.flags |= flag::ZONE_ONLY;
            return Some(());
        }
        sets(note, time, 1000)
    });
    0
}

/// Runs once per clock_adjtime(2), of any clock: reads, the common use, leave after one word.
#[tracepoint(category = "syscalls", name = "sys_enter_clock_adjtime")]
pub fn enter_clock_adjtime(ctx: TracePointContext) -> u32 {
    entered(call::CLOCK_ADJTIME, |note| {
        if argument(&ctx, 0)? as u32 as u64 != REALTIME {
            return None;
        }
        adjusts(note, argument(&ctx, 1)?)
    });
    0
}

/// Runs once per adjtimex(2): reads, the common use, leave after one word.
#[tracepoint(category = "syscalls", name = "sys_enter_adjtimex")]
pub fn enter_adjtimex(ctx: TracePointContext) -> u32 {
    entered(call::ADJTIMEX, |note| adjusts(note, argument(&ctx, 0)?));
    0
}

/// Runs once per clock_settime(2).
#[tracepoint(category = "syscalls", name = "sys_exit_clock_settime")]
pub fn exit_clock_settime(ctx: TracePointContext) -> u32 {
    left(&ctx);
    0
}

/// Runs once per settimeofday(2).
#[tracepoint(category = "syscalls", name = "sys_exit_settimeofday")]
pub fn exit_settimeofday(ctx: TracePointContext) -> u32 {
    left(&ctx);
    0
}

/// Runs once per clock_adjtime(2).
#[tracepoint(category = "syscalls", name = "sys_exit_clock_adjtime")]
pub fn exit_clock_adjtime(ctx: TracePointContext) -> u32 {
    left(&ctx);
    0
}

/// Runs once per adjtimex(2).
#[tracepoint(category = "syscalls", name = "sys_exit_adjtimex")]
pub fn exit_adjtimex(ctx: TracePointContext) -> u32 {
    left(&ctx);
    0
}
