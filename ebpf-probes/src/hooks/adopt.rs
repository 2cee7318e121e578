//! What was under way before the programs were attached. The agent walks through all files of all tasks when it starts,
//! in every network namespace at once: whose file a socket is shows whose it is. Connections that wait to be accepted are
//! no process's file yet; they are found by their listener, and are its process's.
//!
//! Later on it walks again for connections that were noted without an owner: whose file each is.
//!
//! Why not `iter/tcp`: it sees one network namespace and no owner. Costs nothing once the agent has started; some ten
//! nanoseconds a file until then.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::map, maps::Array};

use crate::{
    abi::{AF_INET, AF_INET6, IPPROTO_TCP, ProbeId},
    bpf::{filter::enabled, tcp::state, verifier::call},
    fields,
    probes::{
        connect::{adopt as connect, unacked_program as unacked},
        tls::adopt as tls,
    },
};

/// 1: nothing is adopted any more; it is looked whose the connections are that were noted without an owner.
#[map]
static OWNERS_ONLY: Array<u32> = Array::with_max_entries(1, 0);

/// Connections looked at, at most, that wait at one listener: the oldest ones.
const QUEUED: u32 = 32;

/// `S_IFMT` and `S_IFSOCK` of include/uapi/linux/stat.h.
const TYPE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// Runs once per open file of each task, as the agent reads the iterator. Written out: the attribute macros know no
/// iterators. Its arguments are those of `bpf_iter_task_file()`: meta, task, descriptor, file (kernel/bpf/task_iter.c).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn adopt(ctx: *mut core::ffi::c_void) -> u32 {
    let args = ctx.cast::<*const u8>();
    // SAFETY: four arguments of eight bytes each.
    let (task, file) = unsafe { (args.add(1).read_volatile(), args.add(3).read_volatile()) };
    // Both are null at the end.
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: BTF-typed arguments, not null.
    if let Some(sk) = unsafe { socket_of(file) } {
        // SAFETY: a load from a live array slot.
        if OWNERS_ONLY.get_ptr(0).is_some_and(|only| unsafe { *only != 0 }) {
            call!(unacked::owned(sk, task));
        } else {
            socket(sk, task);
        }
    }
    0
}

/// The `struct sock` of a file that is a socket.
///
/// # Safety
/// `file` must be a BTF-typed `struct file`.
#[inline(always)]
unsafe fn socket_of(file: *const u8) -> Option<*const u8> {
    // SAFETY: direct loads, checked by the verifier; a helper that cannot fault.
    unsafe {
        let inode = fields::FILE_INODE::read(file);
        if inode.is_null() || fields::INODE_MODE::read(inode) & TYPE != SOCKET {
            return None;
        }
        // None of a socket's path that was opened with O_PATH.
        let socket = fields::FILE_PRIVATE::read(file);
        bpf_probe_read_kernel(fields::SOCKET_SK::address(socket)).ok()
    }
}

#[inline(always)]
fn socket(sk: *const u8, task: *const u8) {
    // SAFETY: helpers that cannot fault.
    let (family, state, protocol) = unsafe {
        (
            bpf_probe_read_kernel(fields::SK_FAMILY::address(sk)).unwrap_or(0),
            bpf_probe_read_kernel(fields::SK_STATE::address(sk)).unwrap_or(0),
            bpf_probe_read_kernel(fields::SK_PROTOCOL::address(sk)).unwrap_or(0),
        )
    };
    if (family != AF_INET && family != AF_INET6) || protocol != IPPROTO_TCP {
        return;
    }
    match i32::from(state) {
        state::SYN_SENT if enabled(ProbeId::CONNECT) || enabled(ProbeId::DNS) || enabled(ProbeId::NEIGH) => {
            call!(connect::adopt(sk, task));
        }
        now_in @ (state::ESTABLISHED | state::CLOSE_WAIT | state::FIN_WAIT1) => {
            if enabled(ProbeId::CONNECT) {
                call!(unacked::adopt(sk, task));
            }
            if now_in == state::ESTABLISHED && enabled(ProbeId::TLS) {
                call!(tls::adopt(sk, task));
            }
        }
        state::LISTEN if enabled(ProbeId::TLS) => queue(sk, task),
        _ => {}
    }
}

/// The connections that wait at a listener. The list may change meanwhile: what is read is looked at once more before
/// it is believed.
#[inline(always)]
fn queue(listener: *const u8, task: *const u8) {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let mut next = bpf_probe_read_kernel(fields::ICSK_ACCEPT_HEAD::address(listener));
        for _ in 0..QUEUED {
            let Ok(request) = next else { break };
            if request.is_null() {
                break;
            }
            if let Ok(sk) = bpf_probe_read_kernel(fields::REQ_SK::address(request))
                && !sk.is_null()
            {
                call!(tls::adopt(sk, task));
            }
            next = bpf_probe_read_kernel(fields::REQ_NEXT::address(request));
        }
    }
}
