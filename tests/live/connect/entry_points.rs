//! Connects that do not go through a plain `connect(2)`, and those that fail inside it.

use std::{io::Write, net::SocketAddr, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, types};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    connect::outcomes::end_of,
    harness::{
        Culprit, Netns,
        netns::Pair,
        port,
        sockets::{connect, listen_on_loopback, me},
        soon_ms,
    },
    needs,
};

const MSG_FASTOPEN: i32 = 0x2000_0000;

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")
}

/// One connect through io_uring: its result as the kernel gives it.
fn io_uring_connect(to: SocketAddr) -> i32 {
    let mut ring = IoUring::new(4).expect("needs! has looked");
    let (socket, address) = (tcp(), SockAddr::from(to));
    let connect =
        opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len()).build();
    // SAFETY: the socket and the address outlive the operation, which is waited for below.
    unsafe { ring.submission().push(&connect).expect("an empty queue") };
    ring.submit_and_wait(1).expect("the kernel accepts it");
    ring.completion().next().expect("waited for").result()
}

#[test]
fn an_io_uring_connect_belongs_to_the_process_that_submitted_it() {
    needs!(IoUring);
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let (result, (pid, tid)) = netns.enter(move || (io_uring_connect(to), me()));
    assert_eq!(result, 0);
    let end = end_of(&culprit, to);
    assert_eq!((end.pid(), end.text("outcome"), end.within(&netns)), (pid, "established", true));
    // The submitting thread, or one of its io_uring workers: another thread of the same process.
    assert!(end.task().1 >= tid, "{end:?}");
}

#[test]
fn a_refused_io_uring_connect_is_reported_although_no_system_call_returned_the_error() {
    needs!(IoUring);
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    let (result, (pid, _)) = netns.enter(move || (io_uring_connect(to), me()));
    assert_eq!(-result, rustix::io::Errno::CONNREFUSED.raw_os_error());
    let end = end_of(&culprit, to);
    assert_eq!((end.pid(), end.text("outcome"), end.text("errno")), (pid, "refused", "ECONNREFUSED"));
}

/// Client and server use TCP Fast Open without asking each other for a cookie first.
const FASTOPEN_AT_ONCE: &str = "519";

#[test]
fn a_fast_open_connect_is_reported_once_its_first_write_sends_the_syn() {
    needs!();
    let netns = Netns::make();
    netns.sysctl("net/ipv4/tcp_fastopen", FASTOPEN_AT_ONCE);
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let mut socket = tcp();
        setsockopt(&socket, sockopt::TcpFastOpenConnect, &true).expect("Linux 4.11");
        socket.connect(&to.into()).expect("postponed");
        socket.write_all(b"hello").expect("the SYN carries it");
        me()
    });
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome")), (task, "established"));
}

#[test]
fn a_fast_open_send_without_any_connect_call_is_a_connect_too() {
    needs!();
    let netns = Netns::make();
    netns.sysctl("net/ipv4/tcp_fastopen", FASTOPEN_AT_ONCE);
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        tcp().send_to_with_flags(b"hello", &to.into(), MSG_FASTOPEN).expect("the SYN carries it");
        me()
    });
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome")), (task, "established"));
}

#[test]
fn a_multipath_connect_belongs_to_the_caller_not_to_the_kernel() {
    needs!(Mptcp);
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("needs! has looked");
        socket.connect(&to.into()).expect("a plain TCP listener will do");
        me()
    });
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome"), end.text("protocol")), (task, "established", "tcp"));
}

#[test]
fn a_prohibited_route_is_a_denial_by_this_host() {
    needs!();
    let pair = Pair::make();
    pair.client.ip("route add prohibit 198.51.100.0/24");
    let to: SocketAddr = format!("198.51.100.7:{}", port()).parse().expect("an address");
    let culprit = Culprit::trace("");
    let (failed, task) = connect(&pair.client, to);
    assert_eq!(failed.expect_err("prohibited").kind(), std::io::ErrorKind::PermissionDenied);
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "denied", "EACCES"));
    assert!(end.number("duration_ms") < soon_ms(), "{end:?}");
    assert_eq!(culprit.seen(|fact| fact.is_to("connect_started", to)).len(), 0);
}

#[test]
fn running_out_of_ports_is_reported_by_the_errors_name() {
    needs!();
    let netns = Netns::make();
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40001");
    let (_listener, to) = listen_on_loopback(&netns);
    let mut held = Vec::new();
    let culprit = Culprit::trace("");
    let (failed, task) = loop {
        match connect(&netns, to) {
            (Ok(stream), _) => held.push(stream),
            (Err(error), task) => break (error, task),
        }
        assert!(held.len() <= 2, "there are two ports");
    };
    assert_eq!(failed.kind(), std::io::ErrorKind::AddrNotAvailable);
    let end = culprit.wait_for("the failed connect", |fact| {
        fact.is_to("connect_ended", to) && fact.text("outcome") != "established"
    });
    assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "failed", "EADDRNOTAVAIL"));
}

#[test]
fn an_io_uring_connect_that_fails_inside_the_call_is_reported_although_no_call_returns_the_error() {
    needs!(IoUring);
    let netns = Netns::make();
    netns.sysctl("net/ipv4/ip_local_port_range", "40000 40001");
    let (_listener, to) = listen_on_loopback(&netns);
    let held: Vec<_> = (0..2).map(|_| connect(&netns, to).0.expect("a port is left")).collect();
    let culprit = Culprit::trace("");
    let (result, (pid, _)) = netns.enter(move || (io_uring_connect(to), me()));
    assert_eq!(-result, rustix::io::Errno::ADDRNOTAVAIL.raw_os_error());
    let end = end_of(&culprit, to);
    assert_eq!((end.pid(), end.text("outcome")), (pid, "failed"));
    assert!(end.json["errno"].is_null(), "{end:?}");
    drop(held);
}
