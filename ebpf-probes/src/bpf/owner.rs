//! Who did it: the calling thread, or the process known to have a socket.

use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_probe_read_kernel, generated::bpf_skb_cgroup_id,
    },
    macros::map,
    maps::{HashMap, LruHashMap},
    programs::SkBuffContext,
};

use crate::{
    abi::{Netns, Owner, connect::Connect},
    fields,
};

/// Who connected which socket, by socket cookie; for what happens on it later in other contexts.
/// Least recently used entries give way.
#[map]
pub(crate) static SOCKETS: LruHashMap<u64, Owner> = LruHashMap::with_max_entries(1 << 17, 0);

/// Connects in flight, by socket cookie. Gone when the connect ends. Kept by the `connect`
/// probe; any probe may ask whose a socket is.
#[map]
pub(crate) static PENDING: HashMap<u64, Connect> = HashMap::with_max_entries(1 << 14, 0);

/// The calling thread. Only where `current` is the thread that acts: process context.
#[inline(always)]
pub(crate) fn current(netns: Netns) -> Owner {
    let id = bpf_get_current_pid_tgid();
    Owner {
        process: (id >> 32) as u32,
        thread: id as u32,
        netns,
        // SAFETY: the helper takes nothing and cannot fail.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm: bpf_get_current_comm().unwrap_or_default(),
    }
}

/// Writes whose socket it is, as far as that is known.
///
/// # Safety
/// `to` must be a reservation or another live place.
#[inline(always)]
pub(crate) unsafe fn write_owner(cookie: u64, to: *mut Owner) {
    // SAFETY: live map values; `to` as promised by the caller.
    unsafe {
        if let Some(connect) = PENDING.get_ptr(&cookie) {
            to.write((*connect).owner);
        } else if let Some(owner) = SOCKETS.get_ptr(&cookie) {
            to.write(*owner);
        } else {
            to.write(Owner::default());
        }
    }
}

/// The thread that sends, when the socket's owner is not known: connected before culprit started.
///
/// # Safety
/// `owner` must be a live map value.
#[inline(always)]
pub(crate) unsafe fn sender(ctx: &SkBuffContext, owner: *mut Owner) {
    // SAFETY: the running task, read by a helper that cannot fault; the packet's own context.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let process = bpf_probe_read_kernel(fields::TASK_TGID::address(task)).unwrap_or(0);
        if process == 0 {
            return;
        }
        (*owner).process = process;
        (*owner).thread = bpf_probe_read_kernel(fields::TASK_PID::address(task)).unwrap_or(0);
        (*owner).comm = bpf_probe_read_kernel(fields::TASK_COMM::address(task)).unwrap_or_default();
        (*owner).cgroup = bpf_skb_cgroup_id(ctx.skb.skb);
    }
}
