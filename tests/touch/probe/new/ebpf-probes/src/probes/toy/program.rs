//! The program of the toy probe.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::ToyRecord;
use crate::{
    abi::{Kind, Netns, ProbeId},
    bpf::{
        owner::current,
        ring::{emit, header},
    },
};

/// Reports each program that is executed. Runs once per execve().
#[btf_tracepoint(function = "sched_process_exec")]
pub fn toy_executed(_ctx: BtfTracePointContext) -> i32 {
    emit::<ToyRecord>(ProbeId::TOY, |record| {
        // SAFETY: the reserved record; every byte of it is written.
        unsafe { record.write(ToyRecord { header: header::<ToyRecord>(Kind::TOY_EXECUTED), owner: current(Netns::default()) }) };
        Some(())
    });
    0
}
