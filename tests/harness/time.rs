//! Servers that give a time, right or wrong: SNTP, and HTTP with its `Date:`. Their time follows CLOCK_MONOTONIC, so
//! that setting this machine's clock does not set theirs.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::{Netns, culprit::binary, process::run};

const SECOND: i64 = 1_000_000_000;
/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: i64 = 2_208_988_800;
/// How often a server looks whether it is to end.
const EVERY: Duration = Duration::from_millis(10);
/// How long an HTTP server listens to one client.
const PATIENCE: Duration = Duration::from_secs(1);

/// A server in a thread of its own, which ends when this is dropped.
pub struct TimeServer {
    at: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The dates an HTTP server sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dates {
    /// How far its clock is ahead, seconds.
    pub ahead_s: i64,
    /// It sends the same date for ever.
    pub stands: bool,
    /// The `Age:` of its answer, seconds.
    pub age_s: Option<u32>,
}

impl TimeServer {
    /// An SNTP server on this host's own loopback (`127.0.0.1`, `::1`), so far ahead, nanoseconds.
    pub fn ntp(loopback: IpAddr, ahead_ns: i64) -> Self {
        assert!(loopback.is_loopback());
        let socket = UdpSocket::bind((loopback, 0)).expect("a free port");
        Self::spawn(socket.local_addr().expect("bound"), |over| {
            std::thread::spawn(move || serve_ntp(&socket, Clock::ahead(ahead_ns), &over))
        })
    }

    /// The same inside a namespace.
    #[track_caller]
    pub fn ntp_inside(netns: &Netns, at: SocketAddr, ahead_ns: i64) -> Self {
        let socket = netns.enter(move || UdpSocket::bind(at).expect("a free port"));
        Self::spawn(at, |over| netns.thread(move || serve_ntp(&socket, Clock::ahead(ahead_ns), &over)))
    }

    /// An HTTP server inside a namespace.
    #[track_caller]
    pub fn http(netns: &Netns, at: SocketAddr, says: Dates) -> Self {
        let listener = netns.enter(move || TcpListener::bind(at).expect("a free port"));
        listener.set_nonblocking(true).expect("our own socket");
        Self::spawn(at, |over| netns.thread(move || serve_http(&listener, says, &over)))
    }

    fn spawn(at: SocketAddr, thread: impl FnOnce(Arc<AtomicBool>) -> JoinHandle<()>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        Self { at, over: over.clone(), thread: Some(thread(over)) }
    }

    /// Where it is.
    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.is_none_or(|ended| ended.is_ok()), "the server at {} has panicked", self.at);
        }
    }
}

/// The weight of this machine's own clocks, against those by which the wall clock is wrong.
pub fn own_weight() -> u64 {
    let listed = run(binary().args(["list", "clocks", "--format", "json"]));
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let clocks = listed["clocks"].as_array().expect("a list");
    let right = clocks.iter().filter(|clock| {
        clock["ahead_ns"].as_i64().is_some_and(|ahead_ns| ahead_ns.unsigned_abs() < 10_000_000_000)
    });
    right
        .map(|clock| match clock["kind"].as_str() {
            Some("ptp") => 8,
            Some("kernel") => 4,
            _ => 3,
        })
        .sum()
}

/// A clock that follows CLOCK_MONOTONIC.
#[derive(Clone, Copy)]
struct Clock {
    offset_ns: i64,
}

impl Clock {
    /// So far ahead of the wall clock as it is now.
    fn ahead(ahead_ns: i64) -> Self {
        let offset_ns = nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Monotonic);
        Self { offset_ns: offset_ns + ahead_ns }
    }

    fn now_ns(self) -> i64 {
        nanoseconds(ClockId::Monotonic) + self.offset_ns
    }

    /// As NTP writes it: seconds since 1900, and as many bits of a fraction.
    fn stamp(self) -> [u8; 8] {
        let now_ns = self.now_ns();
        let seconds = now_ns.div_euclid(SECOND) + NTP_TO_UNIX;
        let fraction = (now_ns.rem_euclid(SECOND) << 32) / SECOND;
        (seconds << 32 | fraction).to_be_bytes()
    }

    fn date(self) -> String {
        let now = jiff::Timestamp::from_nanosecond(self.now_ns().into()).expect("this century");
        now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * SECOND + now.tv_nsec
}

fn serve_ntp(socket: &UdpSocket, clock: Clock, over: &AtomicBool) {
    socket.set_read_timeout(Some(EVERY)).expect("our own socket");
    let mut question = [0; 512];
    while !over.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut question) else { continue };
        let received = clock.stamp();
        // Of clients alone (mode 3).
        if len < 48 || question[0] & 7 != 3 {
            continue;
        }
        let mut answer = [0; 48];
        // The question's version, a server (mode 4) of stratum 1 with a precision of a microsecond.
        answer[0] = question[0] & 0x38 | 4;
        (answer[1], answer[2], answer[3]) = (1, question[2], 0xec);
        // Root delay and dispersion of 61 µs.
        (answer[7], answer[11]) = (4, 4);
        answer[12..16].copy_from_slice(b"TEST");
        answer[16..24].copy_from_slice(&received);
        answer[24..32].copy_from_slice(&question[40..48]);
        answer[32..40].copy_from_slice(&received);
        answer[40..48].copy_from_slice(&clock.stamp());
        // A client that has gone is not missed.
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_http(listener: &TcpListener, says: Dates, over: &AtomicBool) {
    let clock = Clock::ahead(says.ahead_s * SECOND);
    let begin = clock.date();
    while !over.load(Ordering::Relaxed) {
        let Ok((mut client, _)) = listener.accept() else {
            std::thread::sleep(EVERY);
            continue;
        };
        let date = if says.stands { begin.clone() } else { clock.date() };
        let age = says.age_s.map(|age| format!("Age: {age}\r\n")).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nServer: test\r\nDate: {date}\r\n{age}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        if is_asked(&mut client) {
            let _ = client.write_all(answer.as_bytes());
        }
    }
}

/// Reads a request to its end.
fn is_asked(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(PATIENCE)).expect("our own socket");
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while request.len() < 8192 {
        match client.read(&mut chunk) {
            Ok(len @ 1..) => request.extend_from_slice(&chunk[..len]),
            _ => return false,
        }
        if request.ends_with(b"\r\n\r\n") {
            return true;
        }
    }
    false
}
