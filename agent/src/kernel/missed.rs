//! Runs of programs that the kernel left out: it runs a tracing program at most once at a time on a processor.
//!
//! Whatever begins there while the program runs is not seen by it: what an interrupt does (every kernel), and what
//! another task does where tracepoints may be preempted (measured on Linux 7.2). No program sees it; the kernel
//! counts it for each program from 5.12 on (`recursion_misses` of `struct bpf_prog_info`, include/uapi/linux/bpf.h).

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// As many bytes of `struct bpf_prog_info` as are read here; it only ever grows.
const LEN: usize = 216;
/// Where the counter is in it.
const MISSES: usize = 208;

/// How many runs of a program were left out so far; nothing where the kernel does not count them.
pub(super) fn runs(program: impl AsFd) -> Option<u64> {
    /// `BPF_OBJ_GET_INFO_BY_FD` of include/uapi/linux/bpf.h, and what it takes.
    const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    #[repr(C)]
    struct Attributes {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = [0u8; LEN];
    let mut attributes = Attributes {
        fd: program.as_fd().as_raw_fd().unsigned_abs(),
        len: LEN as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, and both outlive the call.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<Attributes>())
    };
    // An older kernel has a shorter structure and says how much of it it wrote.
    (done == 0 && attributes.len as usize >= LEN)
        .then(|| u64::from_ne_bytes(*info[MISSES..].first_chunk().expect("within LEN")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_has_missed_nothing() {
        let file = std::fs::File::open("/dev/null").expect("/dev/null");
        assert_eq!(runs(&file), None);
    }
}
