//! Connects of all kinds, and the thread that made them.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{Netns, deadline};

/// Process and thread id of the caller.
pub fn me() -> (u32, u32) {
    (std::process::id(), rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
}

/// A blocking connect inside, and the thread that made it.
pub fn connect(netns: &Netns, to: SocketAddr) -> (io::Result<TcpStream>, (u32, u32)) {
    netns.enter(move || (TcpStream::connect(to), me()))
}

/// A connect that is under way inside, and the thread that began it.
pub fn begin_connect(netns: &Netns, to: SocketAddr) -> (Socket, (u32, u32)) {
    netns.enter(move || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("our own socket");
        let error = socket.connect(&to.into()).expect_err("no answer comes at once");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
        (socket, me())
    })
}

/// An unanswered connect from the calling thread, given up after `patience`. Another thread may just be starting a
/// program, which holds a copy of every descriptor until it is executed: only when every copy of the socket is
/// closed has the connect ended.
pub fn give_up_connecting(to: SocketAddr, patience: Duration) {
    TcpStream::connect_timeout(&to, patience).expect_err("no answer comes");
    let table = if to.is_ipv4() { "/proc/thread-self/net/tcp" } else { "/proc/thread-self/net/tcp6" };
    let port = format!(":{:04X} 02 ", to.port());
    let deadline = deadline();
    while std::fs::read_to_string(table).expect("proc").contains(&port) {
        assert!(Instant::now() < deadline, "{to}: still connecting long after it was given up");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A listener inside, on an address of its own.
pub fn listen(netns: &Netns, at: SocketAddr) -> TcpListener {
    netns.enter(move || TcpListener::bind(at).unwrap_or_else(|error| panic!("{at}: {error}")))
}

/// A listener inside that accepts every client and hangs up, for as long as the test process lives.
pub fn listen_and_accept(netns: &Netns, at: SocketAddr) {
    let listener = listen(netns, at);
    std::thread::spawn(move || while listener.accept().is_ok() {});
}

/// A listener on the loopback inside, and where it is.
pub fn listen_on_loopback(netns: &Netns) -> (TcpListener, SocketAddr) {
    let at = SocketAddr::new(netns.loopback(), super::port());
    (listen(netns, at), at)
}
