//! Who is about to talk to whom: `connect()` and datagrams of unconnected sockets, in the calling thread, io_uring's
//! workers included.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    abi::ProbeId,
    bpf::filter::enabled,
    probes::{
        connect::{calls, datagrams},
        dns::clients as dns,
    },
};

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, false);
    1
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, true);
    1
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, false);
    1
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, true);
    1
}

/// Runs once per connect; the cheapest hook that has owner, destination and cookie together.
#[inline(always)]
fn connect(ctx: &SockAddrContext, v6: bool) {
    let thread = calls::thread();
    let entry = calls::of(thread);
    if enabled(ProbeId::DNS) {
        dns::connects(ctx, v6, calls::asked_of(entry));
    }
    calls::called(ctx, v6, thread, entry);
}

/// Runs once per datagram of an unconnected UDP socket.
#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, v6: bool) {
    if enabled(ProbeId::DNS) {
        dns::sends(ctx, v6);
    }
    datagrams::sent(ctx, v6);
}
