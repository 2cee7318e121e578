//! Programs that are executed: the shortest probe there can be.

use crate::{
    abi::{Header, Owner, ProbeId, assert_layout, declare},
    spec::{Attach, Hook, Probe},
};

/// A program was executed.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToyRecord {
    /// The header; `kind` is [`crate::abi::Kind::TOY_EXECUTED`].
    pub header: Header,
    /// Who executes it.
    pub owner: Owner,
}

assert_layout!(ToyRecord = 56);

declare! { TOY = 5 {
    /// A program was executed: [`ToyRecord`].
    TOY_EXECUTED = 96,
} }

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::TOY,
    kinds: KINDS,
    name: "toy",
    about: "programs that are executed",
    hooks: &[Hook {
        program: "toy_executed",
        attach: Attach::BtfTracepoint("sched_process_exec", &["struct task_struct *"]),
        gives: "executed programs",
        required: true,
        fields: &[],
    }],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod program;
