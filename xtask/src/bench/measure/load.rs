//! `xtask bench-load`: the load, in processes of its own, so that strace can attach to them and
//! nothing of the benchmark runs inside them. A server serves until it is ended; a driver is given
//! on standard input how long to go on and answers with what it did.

mod bulk;
mod connects;
mod crowd;
mod datagrams;
mod dns;
mod echo;
mod handshakes;

use std::{
    io::{self, BufRead, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// [`connects`]
    Connects,
    /// [`handshakes`]
    Handshakes,
    /// [`bulk`]
    Bulk,
    /// [`echo`], datagrams
    EchoUdp,
    /// [`echo`], a stream
    EchoTcp,
    /// [`datagrams`]
    Datagrams,
    /// [`crowd`]
    Crowd,
    /// [`dns`]
    Dns,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    kind: Kind,
    /// Drive the server there instead of being it
    #[arg(long)]
    to: Option<SocketAddr>,
}

/// What a driver is asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Order {
    /// For so long.
    pub(crate) seconds: f64,
    /// So many operations a second, for a load that can be paced; 0 is as many as there can be. For
    /// a crowd: so many connections in all.
    pub(crate) rate: f64,
}

impl Order {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Does `once`, which is given how many went before, at the pace asked for until the time is over.
    fn repeat(&self, mut once: impl FnMut(u64) -> Result<()>) -> Result<Done> {
        let (began, mut done) = (Instant::now(), Done::default());
        loop {
            let before = began.elapsed();
            once(done.count)?;
            let now = began.elapsed();
            done.count += 1;
            done.stalls += u64::from(now - before > STALL);
            if now >= self.duration() {
                done.seconds = now.as_secs_f64();
                return Ok(done);
            }
            self.keep_pace(began, done.count);
        }
    }

    /// Waits until the next operation is due, after so many since `began`.
    fn keep_pace(&self, began: Instant, done: u64) {
        if self.rate > 0.0 {
            let due = Duration::from_secs_f64(done as f64 / self.rate);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
}

/// What a driver did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Operations, or bytes.
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    /// Operations as slow as a lost SYN.
    pub(crate) stalls: u64,
}

/// As slow as a SYN that had to be sent again (one second after the first).
const STALL: Duration = Duration::from_millis(500);

/// The end of a driver.
trait Drive {
    fn drive(&mut self, order: &Order) -> Result<Done>;
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    more_descriptors()?;
    match args.to {
        None => serve(args.kind)?,
        Some(to) => drive(args.kind, to)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// As many as this process may have: a crowd needs one for each connection.
fn more_descriptors() -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
        .context("raising the limit of descriptors")
}

fn serve(kind: Kind) -> Result<()> {
    match kind {
        Kind::Connects => connects::serve(&listener()?),
        Kind::Handshakes => handshakes::serve(&listener()?),
        Kind::Bulk => bulk::serve(&listener()?),
        Kind::EchoUdp => echo::serve_datagrams(),
        Kind::EchoTcp => echo::serve_stream(&listener()?),
        Kind::Datagrams => datagrams::serve(),
        Kind::Crowd => crowd::serve(&listener()?),
        Kind::Dns => dns::serve(),
    }
}

/// Obeys orders until there are no more.
fn drive(kind: Kind, to: SocketAddr) -> Result<()> {
    let mut driver: Box<dyn Drive> = match kind {
        Kind::Connects => Box::new(connects::Driver { to }),
        Kind::Handshakes => Box::new(handshakes::Driver::new(to)?),
        Kind::Bulk => Box::new(bulk::Driver { to }),
        Kind::EchoUdp => Box::new(echo::Datagrams { to }),
        Kind::EchoTcp => Box::new(echo::Stream { to }),
        Kind::Datagrams => Box::new(datagrams::Driver::new(to)?),
        Kind::Crowd => Box::new(crowd::Driver { to, open: Vec::new() }),
        Kind::Dns => Box::new(dns::Driver { to }),
    };
    for line in io::stdin().lock().lines() {
        let line = line.context("reading an order")?;
        let order: Order = serde_json::from_str(&line).with_context(|| format!("the order {line}"))?;
        say(&driver.drive(&order)?)?;
    }
    Ok(())
}

/// One line of JSON to the process that started us.
fn say(what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).context("answering")
}

/// Says where the server is.
fn here(at: SocketAddr) -> Result<()> {
    say(&at)
}

/// A UDP socket on the loopback.
fn udp() -> Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("making a UDP socket")
}

/// The same, for one peer; a lost datagram ends a load instead of holding it up.
fn udp_to(peer: SocketAddr, patience: Duration) -> Result<UdpSocket> {
    let socket = udp()?;
    socket.connect(peer).context("connecting a UDP socket")?;
    socket.set_read_timeout(Some(patience)).context("limiting its patience")?;
    Ok(socket)
}

/// A listener on the loopback with room for those who are not accepted at once: a full backlog
/// would drop SYNs, and measure their repeats.
fn listener() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("making a socket")?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).and_then(|()| socket.listen(4096)).context("listening on the loopback")?;
    let listener = TcpListener::from(socket);
    here(listener.local_addr().context("asking for the listener's port")?)?;
    Ok(listener)
}
