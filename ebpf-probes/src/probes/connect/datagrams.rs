//! Datagrams of unconnected UDP sockets: a connect each, as far as who talks to whom is concerned.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock_addr, map},
    maps::LruHashMap,
    programs::SockAddrContext,
};

use super::program::{connect_of, destination, tell};
use crate::{
    abi::{Kind, ProbeId},
    filter,
    kernel::{SOCKETS, enabled},
    probes::dns::asked as dns,
};

/// Unconnected UDP destinations already told, by cookie and destination.
#[map]
static TOLD: LruHashMap<Told, u32> = LruHashMap::with_max_entries(1 << 13, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Told {
    cookie: u64,
    remote: [u8; 16],
    port: u64,
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    call_udp_send(&ctx, false);
    1
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    call_udp_send(&ctx, true);
    1
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

/// Runs once per datagram of an unconnected UDP socket; told once per destination, and not when a
/// service answers its clients.
#[inline(always)]
fn call_udp_send(ctx: &SockAddrContext, v6: bool) {
    if enabled(ProbeId::Dns) {
        dns::sends(ctx, v6);
    }
    let (remote, port, _) = destination(ctx, v6);
    if answers(ctx, port) {
        return;
    }
    // SAFETY: the context of a cgroup sock_addr program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let told = Told { cookie, remote, port: u64::from(port) };
    if TOLD.get_ptr(&told).is_some() {
        return;
    }
    let Some(connect) = connect_of(ctx, v6) else { return };
    let _ = TOLD.insert(&told, &1, 0);
    let _ = SOCKETS.insert(&cookie, &connect.owner, 0);
    if enabled(ProbeId::Connect) && filter::beginnings() {
        tell(Kind::ConnectStart, &connect);
    }
}
