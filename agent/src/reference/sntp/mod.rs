//! One question to a time server, by SNTP (RFC 4330, RFC 5905 section 14).
//!
//! The crate `sntpc` writes the question, checks the answer and computes; it is given a clock that counts
//! BOOTTIME, so that the wall clock may jump meanwhile. It begins at a random time of the years 2026 to 2043:
//! the server must echo it, and so a host that does not see the question cannot answer it; and it gives away to no one
//! what time it is here, or how long the machine is up. Its differences are good for 68 years either way,
//! across the turn of NTP's era in 2036 too.

use std::{
    cell::RefCell,
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use sntpc::{Error, KissOfDeathCode, NtpContext, NtpResult, NtpTimestampGenerator, NtpUdpSocket};

use super::{Failure, Moment, SECOND_NS, Server, boot_ns, timed};
use crate::fact::{Reading, ReferenceKind};

/// How long a server may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// 2026-01-01, seconds since 1970.
const BEGIN_SEC: u64 = 1_767_225_600;
/// Bits of the random seconds added to it: 17 years.
const RANDOM_BITS: u32 = 29;
const MICROSECOND_NS: u64 = 1_000;
/// The crate computes in microseconds: one for either look at the clock, and one for what division drops.
const ROUNDING_NS: u64 = 3 * MICROSECOND_NS;
/// The server's two times may contradict our exchange by so much, microseconds: some count in steps of 16 ms.
const SLACK_US: u64 = 20_000;

/// A server that gave no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which, and why.
    pub failure: Failure,
    /// It asked us to go away, or to ask less often (a kiss-o'-death).
    pub kiss: bool,
}

/// What was wrong.
struct Wrong {
    why: String,
    kiss: bool,
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self { why, kiss: false }
    }
}

/// Asks a server once; blocks for a second at most, and for as long as its name takes to resolve.
pub fn ask(server: &Server) -> Result<Reading, Refusal> {
    let name = server.to_string();
    exchange(server, &name).map_err(|Wrong { why, kiss }| Refusal { failure: Failure { name, why }, kiss })
}

fn exchange(server: &Server, name: &str) -> Result<Reading, Wrong> {
    let socket = Socket::open(server)?;
    let random = RandomState::new().hash_one(name) >> (u64::BITS - RANDOM_BITS);
    let clock = Clock { begin_us: (BEGIN_SEC + random) * 1_000_000, now_us: 0 };
    let (answer, at) = timed(|| sntpc::sync::get_time(socket.peer, &socket, NtpContext::new(clock)));
    let answer = answer.map_err(|error| said(error, socket.error.take()))?;
    reading(name, &answer, clock, at).map_err(Wrong::from)
}

fn reading(name: &str, answer: &NtpResult, clock: Clock, at: Moment) -> Result<Reading, String> {
    let apart_us = apart_us(answer, clock, at)?;
    // The server's time less our clock's, and that clock less BOOTTIME.
    let utc_ns = answer.offset * MICROSECOND_NS as i64 + clock.begin_us as i64 * MICROSECOND_NS as i64;
    let shown_ns = utc_ns.saturating_add_unsigned(at.boot_ns);
    let error_ns = (answer.roundtrip / 2).max(apart_us) * MICROSECOND_NS
        + short_ns(answer.root_delay) / 2
        + short_ns(answer.root_dispersion)
        + ROUNDING_NS;
    // Half the exchange is in `roundtrip` already.
    let at = Moment { half_ns: 0, ..at };
    let shown = (shown_ns.div_euclid(SECOND_NS), shown_ns.rem_euclid(SECOND_NS));
    at.reading(ReferenceKind::Ntp, name, shown, error_ns)
}

/// How far the time the server sent the answer, by its clock, is from the end of our exchange, by its clock as
/// well since we know the offset: half of the way, microseconds. The server's two times must lie within our
/// exchange; else the crate takes the way for no time, and a server that has received the question in 1900 for
/// one that is not wrong by a microsecond.
fn apart_us(answer: &NtpResult, clock: Clock, at: Moment) -> Result<u64, String> {
    let sent_us = i128::from(answer.seconds) * 1_000_000
        + i128::from(sntpc::fraction_to_microseconds(answer.seconds_fraction));
    let ended_us = i128::from(clock.begin_us) + i128::from((at.boot_ns + at.half_ns) / MICROSECOND_NS);
    let apart_us = (i128::from(answer.offset) - (sent_us - ended_us)).unsigned_abs();
    u64::try_from(apart_us)
        .ok()
        .filter(|&apart| apart <= at.half_ns / MICROSECOND_NS + SLACK_US)
        .ok_or_else(|| "its times of receiving and sending contradict each other".into())
}

/// NTP's short format, 16 bits of it fraction: nanoseconds.
fn short_ns(value: u32) -> u64 {
    (u64::from(value) * SECOND_NS.unsigned_abs()) >> 16
}

/// An error in words.
fn said(error: Error, io: Option<io::Error>) -> Wrong {
    let why = match (error, io) {
        (_, Some(error)) => return io_said(&error).into(),
        (Error::KissOfDeath(code), _) => return kiss_said(code),
        (Error::UnsynchronizedClock | Error::IncorrectStratumHeaders, _) => "it is not synchronised itself",
        (Error::IncorrectOriginTimestamp, _) => "the answer is not to our question",
        (Error::IncorrectMode, _) => "the answer is not a server's (mode)",
        (Error::IncorrectResponseVersion, _) => "the answer is of another version of NTP",
        (Error::IncorrectPayload, _) => "the answer is shorter than 48 bytes",
        (Error::InvalidTimestamp, _) => "the answer has no time of sending",
        (Error::ExcessiveRootDistance, _) => "it may itself be wrong by 16 s or more",
        (Error::BackwardReferenceTimestamp, _) => "its clock was set later than it answered",
        (other, _) => return format!("the answer is of no use: {other:?}").into(),
    };
    why.to_owned().into()
}

fn io_said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer within 1 s".into(),
        io::ErrorKind::ConnectionRefused => "nothing answers at that port".into(),
        _ => error.to_string(),
    }
}

fn kiss_said(code: KissOfDeathCode) -> Wrong {
    let (why, kiss) = match code {
        KissOfDeathCode::Deny | KissOfDeathCode::Rstr => {
            (format!("it refuses us (kiss-o'-death {})", code.as_str()), true)
        }
        KissOfDeathCode::Rate => ("it is asked too often (kiss-o'-death RATE)".into(), true),
        // Stratum 0 is also how servers begin: without a code, or with INIT or STEP.
        KissOfDeathCode::Init | KissOfDeathCode::Step | KissOfDeathCode::Experimental([0, ..]) => {
            ("it is not synchronised itself".into(), false)
        }
        _ => (format!("it gives no time (kiss-o'-death {})", code.as_str().escape_debug()), true),
    };
    Wrong { why, kiss }
}

/// Counts BOOTTIME from a random time on.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Where BOOTTIME 0 is, microseconds since 1970.
    begin_us: u64,
    /// What it shows, microseconds since 1970.
    now_us: u64,
}

impl NtpTimestampGenerator for Clock {
    fn init(&mut self) {
        self.now_us = self.begin_us + boot_ns() / MICROSECOND_NS;
    }

    fn timestamp_sec(&self) -> u64 {
        self.now_us / 1_000_000
    }

    fn timestamp_subsec_micros(&self) -> u32 {
        (self.now_us % 1_000_000) as u32
    }
}

/// A socket for one exchange: what others than the server send does not reach it.
struct Socket {
    udp: UdpSocket,
    peer: SocketAddr,
    /// What went wrong, of which the crate says nothing.
    error: RefCell<Option<io::Error>>,
}

impl Socket {
    /// To the first of the server's addresses there is a route to.
    fn open(server: &Server) -> Result<Self, String> {
        let addresses = (server.host(), server.port())
            .to_socket_addrs()
            .map_err(|error| format!("its name cannot be resolved: {error}"))?;
        let mut last = None;
        for peer in addresses {
            match Self::connect(peer) {
                Ok(udp) => return Ok(Self { udp, peer, error: RefCell::default() }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| "its name has no address".into(), |error| error.to_string()))
    }

    fn connect(peer: SocketAddr) -> io::Result<UdpSocket> {
        let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let udp = UdpSocket::bind(any)?;
        udp.set_read_timeout(Some(TIMEOUT))?;
        udp.connect(peer)?;
        Ok(udp)
    }

    fn done<T>(&self, result: io::Result<T>) -> sntpc::Result<T> {
        result.map_err(|error| {
            self.error.replace(Some(error));
            Error::Network
        })
    }
}

impl NtpUdpSocket for Socket {
    async fn send_to(&self, bytes: &[u8], _: SocketAddr) -> sntpc::Result<usize> {
        self.done(self.udp.send(bytes))
    }

    async fn recv_from(&self, bytes: &mut [u8]) -> sntpc::Result<(usize, SocketAddr)> {
        loop {
            match self.udp.recv(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return self.done(result.map(|len| (len, self.peer))),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
