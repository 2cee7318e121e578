//! What processes run, noted as they execute it: a program that lives for some milliseconds is gone before the agent
//! can ask `/proc`. No probe's own: whatever has an owner names its executable.
//!
//! The path is that of `mm->exe_file`, walked as `d_path()` walks it for `/proc/PID/exe` (fs/d_path.c, prepend_path()):
//! of a script it is the interpreter, a symbolic link is followed, and it is never relative. What the program was
//! asked for by (`bprm->filename`, `bprm->interp`) is none of these.
//!
//! Whom a filter leaves out is noted too: a command is started before its process is asked for, and a thread may get
//! a wanted name later.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel,
        generated::bpf_probe_read_kernel_str,
    },
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{LruHashMap, PerCpuArray},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    abi::executable::{EXECUTABLES as PROCESSES, Executable, PATH, STEPS, flag},
    bpf::{time::now, verifier::opaque},
    fields,
};

/// What processes run, by process; see [`crate::abi::executable::EXECUTABLES_MAP`]. Not removed at exit: it is asked
/// for afterwards. The next process of that number takes the entry over, at fork.
#[map]
static EXECUTABLES: LruHashMap<u32, Executable> = LruHashMap::with_max_entries(PROCESSES, 0);

/// Where a path is put together: the last name may begin at the last byte that is kept, and is read whole.
#[repr(C)]
struct Draft {
    executable: Executable,
    beyond: [u8; PATH],
}

/// This processor's; only one program writes here, and none runs twice at once on a processor.
#[map]
static DRAFT: PerCpuArray<Draft> = PerCpuArray::with_max_entries(1, 0);

/// Runs once per exec that succeeded, in the process itself: it has its new memory, and no instruction of the new
/// program has run.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn note_executable(_ctx: RawTracePointContext) -> i32 {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(draft) = DRAFT.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's slot of a live map.
    let executable = unsafe { &mut (*draft).executable };
    // SAFETY: `names` is followed by as many bytes again.
    let Some((len, flags)) = (unsafe { walk((&raw mut (*draft).executable.names).cast()) }) else {
        // What it ran before it runs no more.
        let _ = EXECUTABLES.remove(&process);
        return 0;
    };
    executable.since_ns = now();
    executable.len = len;
    executable.flags = flags;
    executable.comm = bpf_get_current_comm().unwrap_or_default();
    let _ = EXECUTABLES.insert(&process, &*executable, 0);
    0
}

/// Runs once per fork, threads included, before the child runs: it has its parent's executable until it executes
/// another. What had the child's number before is forgotten.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn inherit_executable(ctx: BtfTracePointContext) -> i32 {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let child: *const u8 = ctx.arg(1);
    // SAFETY: a BTF-typed argument.
    let child = unsafe { fields::TASK_TGID::read(child) };
    if child == parent {
        return 0;
    }
    let Some(own) = EXECUTABLES.get_ptr(&parent) else {
        let _ = EXECUTABLES.remove(&child);
        return 0;
    };
    // SAFETY: live map values. No other program writes to either: the parent is here, the child does not run yet.
    unsafe {
        let _ = EXECUTABLES.insert(&child, &*own, 0);
        if let Some(copy) = EXECUTABLES.get_ptr_mut(&child) {
            (*copy).since_ns = now();
        }
    }
    0
}

/// Writes the names on the path of the current process's executable, the last one first; says how many bytes they have,
/// and [`flag::CUT`] if there were more. `None`: it has no path (a memory file, an unlinked one), or it cannot be read.
///
/// # Safety
/// There must be room for twice [`PATH`] bytes.
#[inline(always)]
unsafe fn walk(to: *mut u8) -> Option<(u32, u32)> {
    // SAFETY: the helper returns the running task; each step is read by a helper that cannot fault, and writes at most
    // PATH bytes from a place below PATH on.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let memory = bpf_probe_read_kernel(fields::TASK_MM::address(task)).ok()?;
        let file = bpf_probe_read_kernel(fields::MM_EXE_FILE::address(memory)).ok()?;
        let mut entry = bpf_probe_read_kernel(fields::FILE_DENTRY::address(file)).ok()?;
        let mut mount = mount_of(bpf_probe_read_kernel(fields::FILE_MNT::address(file)).ok()?);
        // d_unlinked().
        if bpf_probe_read_kernel(fields::DENTRY_HASHED::address(entry)).ok()?.is_null() {
            return None;
        }
        let mut len = 0;
        for _ in 0..STEPS {
            let root = bpf_probe_read_kernel(fields::MOUNT_ROOT::address(mount)).ok()?;
            if entry == root {
                let below = bpf_probe_read_kernel(fields::MOUNT_PARENT::address(mount)).ok()?;
                // The first mount of a namespace is its own parent.
                if below == mount {
                    return Some((len, 0));
                }
                entry = bpf_probe_read_kernel(fields::MOUNT_POINT::address(mount)).ok()?;
                mount = below;
                continue;
            }
            let above = bpf_probe_read_kernel(fields::DENTRY_PARENT::address(entry)).ok()?;
            // A root that is none of its mount.
            if above == entry {
                return None;
            }
            let name = bpf_probe_read_kernel(fields::DENTRY_NAME::address(entry)).ok()?;
            let at = opaque(u64::from(len)) & (PATH as u64 - 1);
            let read = bpf_probe_read_kernel_str(to.add(at as usize).cast(), PATH as u32, name.cast());
            if read <= 0 {
                return None;
            }
            let end = at + read as u64;
            if end >= PATH as u64 {
                return Some((len, flag::CUT));
            }
            len = end as u32;
            entry = above;
        }
        Some((len, flag::CUT))
    }
}

/// The `struct mount` around a `struct vfsmount`.
#[inline(always)]
fn mount_of(inner: *const u8) -> *const u8 {
    let at = fields::MOUNT_INNER::address(core::ptr::null()) as usize;
    inner.wrapping_sub(at)
}
