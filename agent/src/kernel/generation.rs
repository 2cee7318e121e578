//! Which network namespace a thread is in: the same answer the programs give, so that what they report and what
//! the agent looks up itself can be put together. The inode number alone would not do: the kernel gives it to
//! the next namespace. Refuses to guess: a namespace that cannot be distinguished from its successors is unknown.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::OnceLock,
};

use aya::{
    Ebpf,
    programs::{Program, RawTracePoint},
};
use ebpf_probes::abi::generation;
use rustix::net::{AddressFamily, SocketType, socket};

/// The program that reports it where the kernel does not.
const PROGRAM: &str = "netns_here";

/// How it is reported; not set before probes are loaded.
static HOW: OnceLock<How> = OnceLock::new();

enum How {
    /// The programs do not report generations: none is needed.
    Never,
    /// `SO_NETNS_COOKIE`.
    SocketOption,
    /// By running [`PROGRAM`] in the thread.
    Program(OwnedFd),
    /// The programs report it, but there is no way to read it here; and why.
    Refused(io::Error),
}

/// Finds out how, once the object is loaded. `source`: one of [`generation`].
pub(super) fn decide(source: u32, ebpf: &mut Ebpf) {
    let how = match source {
        generation::UNKNOWN => How::Never,
        generation::COOKIE if by_socket().is_ok() => How::SocketOption,
        _ => match by_program(ebpf) {
            Ok(program) => How::Program(program),
            Err(error) => How::Refused(error),
        },
    };
    let _ = HOW.set(how);
}

/// The generation of the calling thread's network namespace, 0 where no program reports one.
///
/// # Errors
/// When there is no way to read it.
pub fn here() -> io::Result<u32> {
    match HOW.get() {
        None | Some(How::Never) => Ok(0),
        Some(How::SocketOption) => by_socket(),
        Some(How::Program(program)) => run(program, &[]),
        Some(How::Refused(error)) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

/// Whether namespaces have generations at all: if not, looking at the number is enough.
pub fn matters() -> bool {
    !matches!(HOW.get(), None | Some(How::Never))
}

fn by_socket() -> io::Result<u32> {
    /// include/uapi/asm-generic/socket.h, from Linux 5.14 on.
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as nix::libc::socklen_t;
    // SAFETY: the kernel writes at most the eight bytes `len` says.
    let failed = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // The low half, as the programs report it.
    Ok(cookie as u32)
}

fn by_program(ebpf: &mut Ebpf) -> io::Result<OwnedFd> {
    let program: &mut RawTracePoint = ebpf
        .program_mut(PROGRAM)
        .and_then(|program: &mut Program| program.try_into().ok())
        .ok_or_else(|| io::Error::other(format!("the kernel object has no program {PROGRAM}")))?;
    program.load().map_err(io::Error::other)?;
    let fd = program.fd().map_err(io::Error::other)?.as_fd().try_clone_to_owned()?;
    run(&fd, &[])?;
    Ok(fd)
}

/// Runs a raw tracepoint's program in the calling thread with these arguments, attached or not; from Linux 5.10 on. A
/// program that returns 0 has failed.
pub(super) fn run(program: &OwnedFd, arguments: &[u64]) -> io::Result<u32> {
    /// `BPF_PROG_TEST_RUN` of include/uapi/linux/bpf.h.
    const TEST_RUN: i32 = 10;
    /// `union bpf_attr`, its member `test`.
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        program: u32,
        returned: u32,
        data_size: [u32; 2],
        data: [u64; 2],
        repeat: u32,
        duration: u32,
        context_size: [u32; 2],
        context: [u64; 2],
        flags: u32,
        cpu: u32,
    }
    let program = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let mut attr = Attr {
        program,
        context_size: [size_of_val(arguments) as u32, 0],
        context: [if arguments.is_empty() { 0 } else { arguments.as_ptr() as u64 }, 0],
        ..Attr::default()
    };
    // SAFETY: the kernel reads and writes the structure, and reads the arguments it points to, which are as long as it
    // says.
    let failed =
        unsafe { nix::libc::syscall(nix::libc::SYS_bpf, TEST_RUN, &raw mut attr, size_of::<Attr>()) };
    if failed < 0 {
        return Err(io::Error::last_os_error());
    }
    if attr.returned == 0 {
        return Err(io::Error::other("the program found nothing"));
    }
    Ok(attr.returned)
}
