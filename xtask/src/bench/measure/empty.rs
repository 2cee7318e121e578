//! Programs that do nothing, by a few system calls: what the kernel's own accounting of a program costs, and
//! what it costs to have programs where culprit has its own. aya loads programs from object files only, and
//! these have two instructions.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use ebpf_probes::{probes::PROBES, spec::Attach};
use nix::libc;

use super::{
    proc::{self, Runs},
    tracefs,
};

/// Commands, types and instructions of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_TRACEPOINT: u32 = 5;
const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET_INGRESS: u32 = 0;
const BPF_CGROUP_INET_EGRESS: u32 = 1;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_CGROUP_INET6_CONNECT: u32 = 11;
const BPF_CGROUP_UDP4_SENDMSG: u32 = 14;
const BPF_CGROUP_UDP6_SENDMSG: u32 = 15;
/// `r0 = 1; exit`: let the packet or the call pass.
const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Of include/uapi/linux/perf_event.h.
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;

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

/// The same for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: RawFd,
    pad: u32,
}

/// The first version of `struct perf_event_attr`, PERF_ATTR_SIZE_VER0.
#[repr(C)]
#[derive(Default)]
struct PerfEvent {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    bp_addr: u64,
}

/// Two empty programs, one a direction, attached until this is dropped.
pub(crate) struct Empty {
    ingress: Attached,
    egress: Attached,
}

/// An empty program wherever culprit has one of its own, attached until this is dropped.
pub(crate) struct Everywhere {
    _attached: Vec<Attached>,
}

struct Attached {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches to a cgroup, after the programs that are there.
    pub(crate) fn attach(cgroup: &File) -> Result<Self> {
        Ok(Self {
            ingress: packets(cgroup, BPF_CGROUP_INET_INGRESS)?,
            egress: packets(cgroup, BPF_CGROUP_INET_EGRESS)?,
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

impl Everywhere {
    /// Attaches to each hook of all probes once, as `culprit run` does. What this kernel does not have is left
    /// out, as culprit leaves it out.
    pub(crate) fn attach(cgroup: &File) -> Result<Self> {
        let mut hooks: Vec<Attach> =
            PROBES.iter().flat_map(|probe| probe.hooks).map(|hook| hook.attach).collect();
        let mut seen = Vec::new();
        hooks.retain(|hook| {
            let name = named(hook);
            let new = !seen.contains(&name);
            seen.push(name);
            new
        });
        let all = hooks.len();
        let attached: Vec<_> = tracefs::with(|| {
            hooks.iter().filter_map(|hook| at(cgroup, hook).transpose()).collect::<Result<_>>()
        })?;
        ensure!(attached.len() * 2 > all, "only {} of culprit's {all} hooks are here", attached.len());
        Ok(Self { _attached: attached })
    }
}

/// One place has one name, however typed the program there is.
fn named(hook: &Attach) -> String {
    match hook {
        Attach::BtfTracepoint(name, _) | Attach::RawTracepoint(name, _) => (*name).to_owned(),
        other => format!("{other:?}"),
    }
}

/// Nothing when this kernel has no such hook.
fn at(cgroup: &File, hook: &Attach) -> Result<Option<Attached>> {
    let on_calls = |kind| on_cgroup(cgroup, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, kind).map(Some);
    match hook {
        Attach::CgroupIngress => packets(cgroup, BPF_CGROUP_INET_INGRESS).map(Some),
        Attach::CgroupEgress => packets(cgroup, BPF_CGROUP_INET_EGRESS).map(Some),
        Attach::CgroupConnect4 => on_calls(BPF_CGROUP_INET4_CONNECT),
        Attach::CgroupConnect6 => on_calls(BPF_CGROUP_INET6_CONNECT),
        Attach::CgroupSendmsg4 => on_calls(BPF_CGROUP_UDP4_SENDMSG),
        Attach::CgroupSendmsg6 => on_calls(BPF_CGROUP_UDP6_SENDMSG),
        // Both are run in the same way.
        Attach::BtfTracepoint(name, _) | Attach::RawTracepoint(name, _) => on_raw_tracepoint(name),
        Attach::Tracepoint(category, name) => on_tracepoint(category, name),
    }
}

fn packets(cgroup: &File, attach_type: u32) -> Result<Attached> {
    on_cgroup(cgroup, BPF_PROG_TYPE_CGROUP_SKB, attach_type)
}

fn on_cgroup(cgroup: &File, prog_type: u32, attach_type: u32) -> Result<Attached> {
    let program = load(prog_type, attach_type)?;
    let create =
        LinkCreate { prog_fd: program.as_raw_fd(), target_fd: cgroup.as_raw_fd(), attach_type, flags: 0 };
    // SAFETY: the structure is the kernel's and holds no pointers.
    let link = unsafe { bpf(BPF_LINK_CREATE, &create) }
        .context("attaching an empty program to the cgroup v2 root (needs Linux 5.7)")?;
    Ok(Attached { program, _link: link })
}

fn on_raw_tracepoint(name: &str) -> Result<Option<Attached>> {
    let program = load(BPF_PROG_TYPE_RAW_TRACEPOINT, 0)?;
    let c_name = std::ffi::CString::new(name)?;
    let open =
        RawTracepointOpen { name: c_name.as_ptr().addr() as u64, prog_fd: program.as_raw_fd(), pad: 0 };
    // SAFETY: the structure is the kernel's, and the name outlives the call.
    match unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &open) } {
        Ok(link) => Ok(Some(Attached { program, _link: link })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("attaching an empty program to {name}")),
    }
}

fn on_tracepoint(category: &str, name: &str) -> Result<Option<Attached>> {
    let ids = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .map(|tracefs| Path::new(tracefs).join("events").join(category).join(name).join("id"));
    let Some(id) = ids.iter().find_map(|path| fs::read_to_string(path).ok()) else { return Ok(None) };
    let event = PerfEvent {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEvent>() as u32,
        config: id.trim().parse().with_context(|| format!("the number of {category}:{name}"))?,
        ..PerfEvent::default()
    };
    let program = load(BPF_PROG_TYPE_TRACEPOINT, 0)?;
    let link = perf_event(&event)
        .and_then(|link| {
            // The program runs on all processors, whichever the event is opened for.
            control(&link, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
            control(&link, PERF_EVENT_IOC_ENABLE, 0)?;
            Ok(link)
        })
        .with_context(|| format!("attaching an empty program to {category}:{name}"))?;
    Ok(Some(Attached { program, _link: link }))
}

fn load(prog_type: u32, expected_attach_type: u32) -> Result<OwnedFd> {
    let load = ProgLoad {
        prog_type,
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
        expected_attach_type,
    };
    // SAFETY: the structure is the kernel's, and what it points to outlives the call.
    unsafe { bpf(BPF_PROG_LOAD, &load) }
        .with_context(|| format!("loading an empty program of type {prog_type}"))
}

/// `bpf(2)`, for commands that return a descriptor.
///
/// # Safety
/// `attr` must be what `command` takes, and its pointers valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: as promised by the caller; the size is the structure's own.
    owned(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) })
}

/// A tracepoint's event, of every process on one processor.
fn perf_event(event: &PerfEvent) -> io::Result<OwnedFd> {
    const EVERY_PROCESS: libc::c_int = -1;
    const NO_GROUP: libc::c_int = -1;
    // SAFETY: the structure is the kernel's and holds no pointers.
    owned(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(event),
            EVERY_PROCESS,
            0,
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        )
    })
}

fn control(event: &OwnedFd, what: libc::Ioctl, with: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests take a number.
    match unsafe { libc::ioctl(event.as_raw_fd(), what, with) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A descriptor the kernel has just returned.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
