//! Who sets the wall clock, by how much, and by which call; and, written by the agent, moves that no
//! call made.
//!
//! Only CLOCK_REALTIME. Calls that read, or that change nothing but error estimates and loop parameters,
//! are dropped in the kernel: a time daemon makes a hundred of those for each that matters. 32-bit
//! processes use system calls with no such tracepoint: their steps appear as [`ClockMoved`] alone.

use crate::{
    abi::{Header, Owner, ProbeId, assert_layout, declare},
    fields,
    spec::{Attach, EXECUTES, FORKS, Field, Hook, PACKET_IN, Probe},
};

/// Which system call.
pub mod call {
    /// `clock_settime(CLOCK_REALTIME, …)`: sets. `date -s` uses it.
    pub const CLOCK_SETTIME: u32 = 1;
    /// `settimeofday(…)`: sets.
    pub const SETTIMEOFDAY: u32 = 2;
    /// `clock_adjtime(CLOCK_REALTIME, …)`: steps or slews by its modes. glibc's `adjtimex` is this.
    pub const CLOCK_ADJTIME: u32 = 3;
    /// `adjtimex(…)`: the same.
    pub const ADJTIMEX: u32 = 4;
}

/// Bits of `timex.modes`: include/uapi/linux/timex.h.
pub mod mode {
    /// `offset` is to be slewed away.
    pub const OFFSET: u32 = 0x0001;
    /// `frequency` is set.
    pub const FREQUENCY: u32 = 0x0002;
    /// `status` is set: leap seconds, synchronised or not.
    pub const STATUS: u32 = 0x0010;
    /// The TAI offset is set, to `constant`.
    pub const TAI: u32 = 0x0080;
    /// The requested time is added at once: a step.
    pub const SETOFFSET: u32 = 0x0100;
    /// The requested time is in nanoseconds (else microseconds; the record always says nanoseconds).
    pub const NANO: u32 = 0x2000;
    /// `tick` is set: a slew of up to 10 %.
    pub const TICK: u32 = 0x4000;
    /// The old `adjtime()`: `offset` microseconds are to be slewed away, and other modes mean nothing.
    pub const ADJTIME: u32 = 0x8000;
    /// With ADJTIME: only reads what is left of it.
    pub const READ_ONLY: u32 = 0x2000;
}

/// Bits of `timex.status`.
pub mod status {
    /// STA_INS: a leap second is to be inserted at the end of the day.
    pub const INSERT: i32 = 0x0010;
    /// STA_DEL: one is to be left out.
    pub const DELETE: i32 = 0x0020;
}

/// Bits of [`ClockRecord::flags`].
pub mod flag {
    /// `before_ns` and `after_ns` were taken.
    pub const OFFSETS: u32 = 1;
    /// The call set the time zone alone; the very first such call after boot may step the clock.
    pub const ZONE_ONLY: u32 = 2;
    /// The call set, or asked to set, the time at once: a step. Otherwise it slewed.
    pub const STEP: u32 = 4;
    /// The call may have changed the TAI offset: `after_ns - before_ns` contains that change.
    pub const TAI_CHANGED: u32 = 8;
    /// The caller's memory could not be read: what it asked for is unknown, and 0 here.
    pub const UNREAD: u32 = 16;
    /// The call armed a leap second: the kernel will step the clock at the end of the day.
    pub const LEAP: u32 = 32;
    /// The call set a tick that makes the clock run fast or slow.
    pub const TICK: u32 = 64;
}

/// A process set or slewed the wall clock, or was refused.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockRecord {
    /// The header; `kind` is [`crate::abi::Kind::CLOCK_SET`], `boot_ns` the call's return.
    pub header: Header,
    /// Who called.
    pub owner: Owner,
    /// CLOCK_BOOTTIME of the call, nanoseconds.
    pub entered_ns: u64,
    /// TAI − BOOTTIME before the call, nanoseconds; with OFFSETS. TAI is REALTIME plus a constant, and
    /// BOOTTIME is never set: the difference to `after_ns` is how far the wall clock moved.
    pub before_ns: i64,
    /// TAI − BOOTTIME after it, nanoseconds; with OFFSETS.
    pub after_ns: i64,
    /// The time asked for, in seconds since 1970; with SETOFFSET the seconds to add.
    pub requested_sec: i64,
    /// Nanoseconds beyond `requested_sec`, which count upwards: −1 and 500 000 000 are half a second back.
    pub requested_nsec: i64,
    /// `timex.offset` as passed: nanoseconds with NANO or the kernel's STA_NANO, else microseconds.
    pub offset: i64,
    /// `timex.freq` as passed: parts per million, times 65536.
    pub frequency: i64,
    /// `timex.tick` as passed: microseconds per tick, 10000 is straight.
    pub tick: i64,
    /// `timex.constant` as passed: the TAI offset with TAI.
    pub constant: i64,
    /// One of [`call`].
    pub call: u32,
    /// Bits of [`mode`]; 0 for the calls that only set.
    pub modes: u32,
    /// What the call returned: ≥ 0 is success (5, TIME_ERROR, says that the clock is not synchronised),
    /// −1 is EPERM. Other failures are not reported, and refusals at most once a second and process.
    pub result: i32,
    /// `timex.status` as passed.
    pub status: i32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// The caller's parent process.
    pub parent: u32,
    /// The parent's name.
    pub parent_comm: [u8; 16],
    /// Names on the path of the caller's executable within its file system, the last one first, each ended by
    /// a zero; empty ones above the root.
    pub exe: [[u8; EXE_NAME]; EXE_NAMES],
}

/// Names of a path that are taken, and how long one may be with its zero.
pub const EXE_NAMES: usize = 8;
/// See [`EXE_NAMES`].
pub const EXE_NAME: usize = 32;

/// The wall clock moved against BOOTTIME between two looks of the agent, further than a slew can take it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockMoved {
    /// The header; `kind` is [`crate::abi::Kind::CLOCK_MOVED`], `boot_ns` the look that found it.
    pub header: Header,
    /// CLOCK_BOOTTIME of the look before, nanoseconds.
    pub looked_ns: u64,
    /// REALTIME − BOOTTIME at the look before, nanoseconds.
    pub before_ns: i64,
    /// REALTIME − BOOTTIME now, nanoseconds.
    pub after_ns: i64,
    /// 1: the kernel said that the clock was set. 0: it ran at another rate, or nothing said so.
    pub was_set: u32,
    /// Unused, 0.
    pub pad: u32,
}

/// The machine slept: BOOTTIME moved against MONOTONIC between two looks of the agent.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockSuspended {
    /// The header; `kind` is [`crate::abi::Kind::CLOCK_SUSPENDED`], `boot_ns` the look that found it.
    pub header: Header,
    /// CLOCK_BOOTTIME of the look before, nanoseconds.
    pub looked_ns: u64,
    /// How long it slept, nanoseconds.
    pub slept_ns: i64,
}

assert_layout!(ClockRecord = 424, ClockMoved = 48, ClockSuspended = 32);

/// A server's `Date:` header as it passed: value of the `DATES` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpDate {
    /// When it came, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Bit [`AGED`]: a cache answered, with an `Age:` header.
    pub flags: u32,
    /// Generation of the client's network namespace, 0 when unknown: with the key's number says which it is.
    pub generation: u32,
    /// What follows `Date:`, as many bytes as there are.
    pub text: [u8; 32],
}

/// [`HttpDate::flags`]: there was an `Age:` header.
pub const AGED: u32 = 1;

/// Whose header: key of the `DATES` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct DateKey {
    /// The server.
    pub address: [u8; 16],
    /// Inode number of the client's network namespace.
    pub netns: u32,
    /// The server's port.
    pub port: u32,
}

/// A record about a server's `Date:` header, written by the agent's sweep.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DateRecord {
    /// The header; `kind` is [`crate::abi::Kind::HTTP_DATE`], `boot_ns` when the header came.
    pub header: Header,
    /// Whose.
    pub server: DateKey,
    /// What it said.
    pub date: HttpDate,
}

/// The map of what servers said last, which the agent sweeps.
pub const DATES_MAP: &str = "DATES";
/// Servers remembered at most.
pub const DATES: u32 = 256;

assert_layout!(HttpDate = 48, DateKey = 24, DateRecord = 88);

/// The array whose one word says until when sessions are reported in the mode of `run`, CLOCK_BOOTTIME in
/// nanoseconds: who sets the clock sets it, and the agent goes on from there.
pub const EXPOSURE_MAP: &str = "EXPOSURE";
/// How long sessions are reported after the clock was set, unless the agent decides otherwise, in nanoseconds.
pub const EXPOSURE_NS: u64 = 60_000_000_000;

/// The global that says whether `bpf_ktime_get_tai_ns` is there: 1, from Linux 6.1 on.
pub const HAVE_TAI: &str = "HAVE_TAI";

const OWNER: &[Field] = &[
    fields::TASK_NSPROXY,
    fields::NSPROXY_NET,
    fields::NET_INUM,
    fields::TASK_TGID,
    fields::TASK_COMM,
    fields::TASK_REAL_PARENT,
    fields::TASK_MM,
    fields::MM_EXE_FILE,
    fields::FILE_DENTRY,
    fields::DENTRY_PARENT,
    fields::DENTRY_NAME,
];

const fn enter(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Tracepoint("syscalls", tracepoint),
        gives: "who sets the clock, and to what",
        required: false,
        fields: OWNER,
    }
}

const fn exit(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Tracepoint("syscalls", tracepoint),
        gives: "whether it was set, and by how much",
        required: false,
        fields: &[],
    }
}

declare! { CLOCK = 4 {
    /// A call set or slewed the clock: [`ClockRecord`].
    CLOCK_SET = 64,
    /// The wall clock moved against the monotonic one (written by the agent).
    CLOCK_MOVED = 65,
    /// The machine slept: BOOTTIME moved against MONOTONIC (written by the agent).
    CLOCK_SUSPENDED = 66,
    /// A plaintext HTTP server said what time it is (written by the agent's sweep): [`DateRecord`].
    HTTP_DATE = 67,
} }

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::CLOCK,
    kinds: KINDS,
    name: "clock",
    about: "the wall clock: who steps or slews it, by how much; moves without a call; suspends",
    hooks: &[
        enter("enter_clock_settime", "sys_enter_clock_settime"),
        exit("exit_clock_settime", "sys_exit_clock_settime"),
        enter("enter_settimeofday", "sys_enter_settimeofday"),
        exit("exit_settimeofday", "sys_exit_settimeofday"),
        enter("enter_clock_adjtime", "sys_enter_clock_adjtime"),
        exit("exit_clock_adjtime", "sys_exit_clock_adjtime"),
        enter("enter_adjtimex", "sys_enter_adjtimex"),
        exit("exit_adjtimex", "sys_exit_adjtimex"),
        Hook { gives: "what plaintext HTTP servers take for the time", required: false, ..PACKET_IN },
        EXECUTES,
        FORKS,
    ],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod date;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod program;
