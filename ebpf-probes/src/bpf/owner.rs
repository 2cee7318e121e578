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

use super::verifier::opaque;
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

/// Levels of the cgroup hierarchy that are gone up at most.
const LEVELS: u32 = 32;

/// The process of a task that is not the calling one, and whether the wanted cgroup has it. Which of its threads it was
/// is known only where it has but one: else the thread is 0.
#[inline(always)]
pub(crate) fn of_task(task: *const u8, netns: Netns) -> Option<Owner> {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let process = bpf_probe_read_kernel(fields::TASK_TGID::address(task)).ok()?;
        let leader = bpf_probe_read_kernel(fields::TASK_LEADER::address(task)).ok()?;
        let signal = bpf_probe_read_kernel(fields::TASK_SIGNAL::address(task)).ok()?;
        let threads = bpf_probe_read_kernel(fields::SIGNAL_THREADS::address(signal)).ok()?;
        let set = bpf_probe_read_kernel(fields::TASK_CGROUPS::address(task)).ok()?;
        let cgroup = bpf_probe_read_kernel(fields::CSS_SET_CGROUP::address(set)).ok()?;
        Some(Owner {
            process,
            thread: if threads == 1 { process } else { 0 },
            netns,
            cgroup: cgroup_id(cgroup)?,
            comm: bpf_probe_read_kernel(fields::TASK_COMM::address(leader)).ok()?,
        })
    }
}

/// The same, where `to` is a map value that has the network namespace already: a step of its own, for the stack. `0`: it
/// cannot be read.
#[inline(never)]
pub(crate) fn write_of_task(task: *const u8, to: *mut Owner) -> u64 {
    // SAFETY: a live map value, as the caller promises.
    unsafe {
        let Some(owner) = of_task(task, (*to).netns) else { return opaque(0) };
        *to = owner;
    }
    opaque(1)
}

/// Whether a cgroup is asked for and a task is in none that is, or below.
#[inline(always)]
pub(crate) fn in_other_cgroup(task: *const u8, wanted: u64) -> bool {
    wanted != 0 && !below(task, wanted).unwrap_or(false)
}

#[inline(always)]
fn below(task: *const u8, wanted: u64) -> Option<bool> {
    let own = fields::CGROUP_SELF::address(core::ptr::null()) as usize;
    // SAFETY: helpers that cannot fault.
    unsafe {
        let set = bpf_probe_read_kernel(fields::TASK_CGROUPS::address(task)).ok()?;
        let mut cgroup = bpf_probe_read_kernel(fields::CSS_SET_CGROUP::address(set)).ok()?;
        for _ in 0..LEVELS {
            if cgroup_id(cgroup)? == wanted {
                return Some(true);
            }
            let parent = bpf_probe_read_kernel(fields::CGROUP_PARENT::address(cgroup)).ok()?;
            if parent.is_null() {
                break;
            }
            cgroup = parent.wrapping_sub(own);
        }
    }
    Some(false)
}

/// As `bpf_get_current_cgroup_id` counts them.
#[inline(always)]
fn cgroup_id(cgroup: *const u8) -> Option<u64> {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let node = bpf_probe_read_kernel(fields::CGROUP_NODE::address(cgroup)).ok()?;
        bpf_probe_read_kernel(fields::NODE_ID::address(node)).ok()
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
