//! Answers from another address than the one that was asked: no socket takes them, and the kernel answers them with a
//! reset.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext, Global, helpers::bpf_probe_read_kernel, programs::BtfTracePointContext};

use super::{
    Connect, DropRecord,
    headers::way_of,
    packet, place,
    translated::BY_PROGRAM,
    wire::{WAYS, way},
};
use crate::{
    abi::{Kind, ProbeId, Tuple},
    bpf::{
        address::same_address,
        filter::enabled,
        netns::netns_or_unknown,
        owner::PENDING,
        ring::{emit, header},
        verifier::{call, opaque},
    },
    fields,
};

/// The number of SKB_DROP_REASON_NO_SOCKET here: the SYN was answered with a reset, not dropped.
#[unsafe(no_mangle)]
pub(super) static DROP_NO_SOCKET: Global<u32> = Global::new(u32::MAX);

/// No socket takes an answer: it came from another address than the one a pending connect of this port asked, if
/// there is such a connect here. (The kernel answers it with a reset.) Not inlined, for the stack.
#[inline(never)]
pub(super) fn refused(ctx: *mut c_void) -> u64 {
    let ctx = BtfTracePointContext::new(ctx);
    let mut way = way([0; 16], [0; 16], 0, 0);
    // SAFETY: the BTF-typed argument.
    if unsafe { way_of(ctx.arg(0), &mut way) } == packet::ANSWER {
        call!(stray(ctx.as_ptr(), &way));
    }
    opaque(0)
}

/// An answer that no socket takes. Not inlined, for the stack.
#[inline(never)]
fn stray(ctx: *mut c_void, from: &Tuple) -> u64 {
    stray_inlined(&BtfTracePointContext::new(ctx), from);
    opaque(0)
}

#[inline(always)]
fn stray_inlined(ctx: &BtfTracePointContext, from: &Tuple) {
    let asked = way(from.local, [0; 16], from.local_port, 0);
    let Some(cookie) = WAYS.get_ptr(&asked) else { return };
    let skb: *const u8 = ctx.arg(0);
    // SAFETY: live map values; direct loads of checked fields.
    unsafe {
        let cookie = *cookie;
        let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
        let dev = fields::SKB_DEV::read(skb);
        if dev.is_null()
            || (*connect).drop_where & place::STRAY != 0
            || is_asked(&*connect, from)
            || netns_or_unknown(fields::DEV_NET::read(dev)) != (*connect).owner.netns
        {
            return;
        }
        (*connect).drop_where |= place::STRAY;
        if enabled(ProbeId::CONNECT) {
            let (netns, ifindex) = ((*connect).owner.netns, fields::DEV_IFINDEX::read(dev));
            let name = fields::DEV_NAME::address(dev);
            // Field by field: a record made first would be on the stack, below two other frames.
            emit::<DropRecord>(ProbeId::CONNECT, |record| {
                (&raw mut (*record).header).write(header::<DropRecord>(Kind::CONNECT_DROP_PLACE));
                let seen = &raw mut (*record).dropped;
                (*seen).cookie = cookie;
                (*seen).location = 0;
                (*seen).netns = netns;
                (*seen).ifindex = ifindex;
                (*seen).reason = DROP_NO_SOCKET.load();
                (*seen).at = packet::ANSWER | place::STRAY | place::ARRIVED | place::ROUTED | place::LOCAL;
                (*seen).device = bpf_probe_read_kernel(name.cast::<[u8; 16]>()).unwrap_or([0; 16]);
                (*seen).frame_mac = [0; 6];
                (*seen).device_mac = [0; 6];
                (*seen).stray_port = from.remote_port;
                (*seen).pad = [0; 3];
                (*seen).stray = from.remote;
                (*seen).holder = [0; 16];
                Some(())
            });
        }
    }
}

/// Whether an answer comes from where the connect's socket sends its SYNs.
#[inline(always)]
fn is_asked(connect: &Connect, from: &Tuple) -> bool {
    let socket = if connect.translated & BY_PROGRAM == 0 { &connect.tuple } else { &connect.wire };
    socket.remote_port == from.remote_port && same_address(&socket.remote, &from.remote)
}
