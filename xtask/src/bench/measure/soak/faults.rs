//! What happens besides the steady load, each in a thread that lives in the load's network namespace:
//! neighbours that are forgotten and asked for again, connects that are refused, and connects that nothing
//! answers: incidents.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fs_err::File;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    Time,
    network::{DROPPED, FAR, NEIGHBOURS, neighbour},
};
use crate::{bench::soak::report::Made, cmd};

/// Neighbours are forgotten so often.
const FORGET: Duration = Duration::from_secs(10);
/// So seldom that it is no incident: three within a minute would be one.
const REFUSE: Duration = Duration::from_secs(40);
/// The first incident, those after it, and how long before the end there are no more.
const FIRST: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(60);
const NO_MORE: Duration = Duration::from_secs(15);
/// A client without an answer gives up after this long: culprit says so after three seconds.
const GIVES_UP: Duration = Duration::from_secs(5);
/// Nothing listens there.
const CLOSED: u16 = 9;

/// Has this thread live in a network namespace.
fn enter(netns: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{netns}"))
        .with_context(|| format!("opening the namespace {netns}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering the namespace {netns}"))
}

/// How many were asked for.
pub(super) fn neighbours(netns: &str, time: &Time) -> Result<u64> {
    enter(netns)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("making a UDP socket")?;
    let (mut asked, mut due) = (0, Duration::ZERO);
    while time.wait(due) {
        cmd::output(Command::new("ip").args(["neigh", "flush", "dev", "eth0"]))?;
        for last in NEIGHBOURS {
            socket.send_to(&[0], (neighbour(last), CLOSED)).context("sending a datagram")?;
            asked += 1;
            thread::sleep(Duration::from_millis(50));
        }
        due += FORGET;
    }
    Ok(asked)
}

/// How many were refused.
pub(super) fn refused(netns: &str, time: &Time) -> Result<u64> {
    enter(netns)?;
    let (mut refused, mut due) = (0, REFUSE / 2);
    while time.wait(due) {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, CLOSED)) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused += 1,
            Err(error) => return Err(error).context("waiting to be refused"),
            Ok(_) => bail!("something listens on port {CLOSED} of the load's own namespace"),
        }
        due += REFUSE;
    }
    Ok(refused)
}

/// The incidents that were made.
pub(super) fn unanswered(netns: &str, time: &Time) -> Result<Vec<Made>> {
    enter(netns)?;
    let (mut made, mut due, mut port) = (Vec::new(), FIRST, DROPPED);
    while due + NO_MORE <= time.length && time.wait(due) {
        let to: SocketAddr = format!("{FAR}:{port}").parse().context("an address")?;
        let (at_s, began) = (time.now_s(), Instant::now());
        match TcpStream::connect_timeout(&to, GIVES_UP) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error).with_context(|| format!("waiting for no answer of {to}")),
            Ok(_) => bail!("{to} answered, through a firewall that drops"),
        }
        let lasted_ms = began.elapsed().as_millis() as u64;
        made.push(Made { at_s, port, lasted_ms, ..Made::default() });
        port += 1;
        due += EVERY;
    }
    // A client that ends before its time is taken to have given up.
    time.wait(Duration::MAX);
    Ok(made)
}
