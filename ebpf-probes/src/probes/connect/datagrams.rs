//! Datagrams of unconnected UDP sockets: a connect each, as far as who talks to whom is concerned.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_get_socket_cookie, macros::map, maps::LruHashMap,
    programs::SockAddrContext,
};

use super::{calls::connect_of, report::report};
use crate::{
    abi::{Kind, ProbeId},
    bpf::{
        address::destination,
        filter::{self, enabled},
        owner::SOCKETS,
    },
};

/// Unconnected UDP destinations already reported, by cookie and destination.
#[map]
static REPORTED: LruHashMap<Reported, u32> = LruHashMap::with_max_entries(1 << 13, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Reported {
    cookie: u64,
    remote: [u8; 16],
    port: u64,
}

/// Below the ports the kernel gives to clients by default: net.ipv4.ip_local_port_range.
const FIRST_EPHEMERAL: u32 = 32768;

/// Whether a datagram answers a client: from a service's port to an ephemeral one.
#[inline(always)]
fn answers(ctx: &SockAddrContext, port: u16) -> bool {
    // SAFETY: context loads, the socket's checked for null.
    unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if socket.is_null() {
            return false;
        }
        let local = (&raw const (*socket).src_port).read_volatile();
        local != 0 && local < FIRST_EPHEMERAL && u32::from(port) >= FIRST_EPHEMERAL
    }
}

/// A datagram of an unconnected UDP socket: reported once per destination, and not when a service answers its clients.
#[inline(always)]
pub(crate) fn sent(ctx: &SockAddrContext, v6: bool) {
    let (remote, port, _) = destination(ctx, v6);
    if answers(ctx, port) {
        return;
    }
    // SAFETY: the context of a cgroup sock_addr program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let reported = Reported { cookie, remote, port: u64::from(port) };
    if REPORTED.get_ptr(&reported).is_some() {
        return;
    }
    let Some(connect) = connect_of(ctx, v6) else { return };
    let _ = REPORTED.insert(&reported, &1, 0);
    let _ = SOCKETS.insert(&cookie, &connect.owner, 0);
    if enabled(ProbeId::CONNECT) && filter::beginnings() {
        report(Kind::CONNECT_START, &connect);
    }
}
