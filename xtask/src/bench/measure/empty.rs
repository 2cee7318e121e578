//! A cgroup_skb program that does nothing, by two system calls: what the kernel's own accounting of
//! a program costs. aya loads programs from object files only, and this one has two instructions.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result};
use nix::libc;

use super::proc::{self, Runs};

/// Commands, types and instructions of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
const BPF_CGROUP_INET_INGRESS: u32 = 0;
const BPF_CGROUP_INET_EGRESS: u32 = 1;
/// `r0 = 1; exit`: let the packet pass.
const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest as zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The same for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: RawFd,
    target_fd: RawFd,
    attach_type: u32,
    flags: u32,
}

/// Two empty programs, one a direction, attached until this is dropped.
pub(crate) struct Empty {
    ingress: Attached,
    egress: Attached,
}

struct Attached {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches to a cgroup, after the programs that are there.
    pub(crate) fn attach(cgroup: &File) -> Result<Self> {
        Ok(Self {
            ingress: attach(cgroup, BPF_CGROUP_INET_INGRESS)?,
            egress: attach(cgroup, BPF_CGROUP_INET_EGRESS)?,
        })
    }

    /// What they did so far, inwards and outwards.
    pub(crate) fn runs(&self) -> Result<[Runs; 2]> {
        let of = |attached: &Attached| {
            let info = format!("/proc/self/fdinfo/{}", attached.program.as_raw_fd());
            let text = fs::read_to_string(&info).with_context(|| format!("reading {info}"))?;
            let (_, runs) = proc::program(&text).with_context(|| format!("{info} has no run statistics"))?;
            anyhow::Ok(runs)
        };
        Ok([of(&self.ingress)?, of(&self.egress)?])
    }
}

fn attach(cgroup: &File, attach_type: u32) -> Result<Attached> {
    let load = ProgLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_SKB,
        insn_cnt: PASS.len() as u32,
        insns: PASS.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"bench_empty\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: attach_type,
    };
    // SAFETY: the structure is the kernel's, and what it points to outlives the call.
    let program = unsafe { bpf(BPF_PROG_LOAD, &load) }.context("loading an empty cgroup_skb program")?;
    let create =
        LinkCreate { prog_fd: program.as_raw_fd(), target_fd: cgroup.as_raw_fd(), attach_type, flags: 0 };
    // SAFETY: the structure is the kernel's and holds no pointers.
    let link = unsafe { bpf(BPF_LINK_CREATE, &create) }
        .context("attaching an empty program to the cgroup v2 root (needs Linux 5.7)")?;
    Ok(Attached { program, _link: link })
}

/// `bpf(2)`, for commands that return a descriptor.
///
/// # Safety
/// `attr` must be what `command` takes, and its pointers valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: as promised by the caller; the size is the structure's own.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
