//! The processes that are asked for, as they fork, take names and exit: loaded only when some are.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel_str_bytes},
    macros::{btf_tracepoint, raw_tracepoint},
    maps::HashMap,
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    abi::{ProbeId, Stat},
    bpf::{
        counters::count,
        filter::{BY_COMM, BY_PROCESS, NAMED, NAMES, PROCESSES},
    },
    fields,
};

/// Writes a process down as wanted.
#[inline(always)]
fn choose(processes: &HashMap<u32, u32>, process: u32) {
    if processes.get_ptr(&process).is_none() && processes.insert(&process, &0, 0).is_err() {
        count(ProbeId::CONNECT, Stat::MapFull);
    }
}

/// Follows the children of wanted processes. Runs once per fork; only loaded with `-p`, `--comm` or a command.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn follow_fork(ctx: BtfTracePointContext) -> i32 {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let child: *const u8 = ctx.arg(1);
    // SAFETY: a BTF-typed argument.
    let child = unsafe { fields::TASK_TGID::read(child) };
    if BY_PROCESS.load() != 0 && PROCESSES.get_ptr(&parent).is_some() {
        choose(&PROCESSES, child);
    }
    if BY_COMM.load() != 0 && NAMED.get_ptr(&parent).is_some() {
        choose(&NAMED, child);
    }
    0
}

/// Notes a process one of whose threads is given a wanted name, by exec, prctl or /proc. Runs once per naming;
/// only loaded with `--comm`. Only a process names its own threads.
#[raw_tracepoint(tracepoint = "task_rename")]
pub fn follow_name(ctx: RawTracePointContext) -> i32 {
    let mut name = [0; 16];
    let given: *const u8 = ctx.arg(1);
    // SAFETY: a string in the kernel, read by a helper that cannot fault.
    if unsafe { bpf_probe_read_kernel_str_bytes(given, &mut name) }.is_err() {
        count(ProbeId::CONNECT, Stat::Unreadable);
        return 0;
    }
    if NAMES.get_ptr(&name).is_some() {
        choose(&NAMED, (bpf_get_current_pid_tgid() >> 32) as u32);
    }
    0
}

/// Forgets a process when its last thread exits. Runs once per exit of a thread; only loaded with `-p`, `--comm` or
/// a command.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn follow_exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument and a load through it.
    unsafe {
        // Counted down just before: kernel/exit.c, do_exit().
        if fields::SIGNAL_LIVE::read(fields::TASK_SIGNAL::read(task)) == 0 {
            let gone = fields::TASK_TGID::read(task);
            let _ = PROCESSES.remove(&gone);
            let _ = NAMED.remove(&gone);
        }
    }
    0
}
