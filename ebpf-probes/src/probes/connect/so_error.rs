//! What SO_ERROR hands out of a connect that is still pending: an ICMP error that came while the socket was locked
//! stays with the socket, changes no state and is reported to no one. Who asks gets it, and usually gives up.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_probe_read_kernel},
    macros::tracepoint,
    programs::TracePointContext,
};

use crate::{
    bpf::{owner::PENDING, tcp::state},
    fields,
};

const SOL_SOCKET: u64 = 1;
const SO_ERROR: u64 = 4;

/// Runs once per getsockopt(2): two loads unless it asks for the error.
#[tracepoint(category = "syscalls", name = "sys_enter_getsockopt")]
pub fn enter_getsockopt(ctx: TracePointContext) -> u32 {
    // SAFETY: the arguments are at offsets 16, 24 and 32 on every kernel (kernel/trace/trace_syscalls.c).
    let args = unsafe { (ctx.read_at::<u64>(16), ctx.read_at::<u64>(24), ctx.read_at::<u64>(32)) };
    let (Ok(descriptor), Ok(level), Ok(option)) = args else { return 0 };
    if level as u32 == SOL_SOCKET as u32 && option as u32 == SO_ERROR as u32 {
        handed_out(descriptor as u32);
    }
    0
}

#[inline(always)]
fn handed_out(descriptor: u32) -> Option<()> {
    // SAFETY: the running task; each step is read by a helper that cannot fault, and what is found is believed only
    // when it is the cookie of a pending connect. A live map value.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let files = bpf_probe_read_kernel(fields::TASK_FILES::address(task)).ok()?;
        let table = bpf_probe_read_kernel(fields::FILES_FDT::address(files)).ok()?;
        if descriptor >= bpf_probe_read_kernel(fields::FDT_MAX::address(table)).ok()? {
            return None;
        }
        let open = bpf_probe_read_kernel(fields::FDT_FD::address(table)).ok()?.cast::<*const u8>();
        let file = bpf_probe_read_kernel(open.wrapping_add(descriptor as usize)).ok()?;
        let socket = bpf_probe_read_kernel(fields::FILE_PRIVATE::address(file)).ok()?;
        let sk = bpf_probe_read_kernel(fields::SOCKET_SK::address(socket)).ok()?;
        let cookie = bpf_probe_read_kernel(fields::SK_COOKIE::address(sk)).ok()?;
        let connect = PENDING.get_ptr_mut(&cookie)?;
        let now = bpf_probe_read_kernel(fields::SK_STATE::address(sk)).ok()?;
        let error = bpf_probe_read_kernel(fields::SK_ERR::address(sk)).ok()?;
        let soft = bpf_probe_read_kernel(fields::SK_ERR_SOFT::address(sk)).ok()?;
        if i32::from(now) == state::SYN_SENT && error == 0 && soft > 0 {
            (*connect).errno = soft;
        }
    }
    Some(())
}
