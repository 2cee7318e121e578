//! What a process runs, as the kernel half notes it at exec: for the agent, when `/proc` no longer says it.

use super::assert_layout;

/// The map of [`Executable`]s by process id (the kernel's tgid, in the initial pid namespace).
pub const EXECUTABLES_MAP: &str = "EXECUTABLES";
/// Processes that are remembered, the least recently used give way: more than start between an event and the
/// agent's look at it, a quarter of a second later.
pub const EXECUTABLES: u32 = 1 << 12;

/// Bytes of a path that are kept: of each name one more than it has.
pub const PATH: usize = 256;
/// Names of a path and mounts on the way to the root that are walked, together.
pub const STEPS: u32 = 32;

/// Bits of [`Executable::flags`].
pub mod flag {
    /// The path is longer than what was kept: its beginning is missing.
    pub const CUT: u32 = 1;
    /// Set by the agent: since then the kernel has left out an exec or a fork, which may have been this process's.
    pub const UNSURE: u32 = 2;
}

/// The executable of a process. Only what has a path is noted.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executable {
    /// When the process executed it, or was forked from one that had: CLOCK_BOOTTIME in nanoseconds.
    pub since_ns: u64,
    /// How many bytes of `names` there are.
    pub len: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Name of the thread that executed it, NUL-padded.
    pub comm: [u8; 16],
    /// The names on its path, the last one first, each ended by a zero; across mounts up to the root of the mount
    /// namespace, as `/proc/PID/exe` has it.
    pub names: [u8; PATH],
}

assert_layout!(Executable = 288);
