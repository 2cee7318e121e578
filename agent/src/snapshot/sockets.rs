//! A process's sockets, each looked at through a duplicate of its descriptor (`pidfd_getfd(2)`) that is
//! closed at once: cookie, ends, and what `TCP_INFO` says, in whatever network namespace they live.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ebpf_probes::probes::dns::PORT;
use rustix::{
    net::sockopt,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    time::{ClockId, clock_getres},
};

use super::{ports::listening, unix::UnixEnd};
use crate::{
    kernel::tcpinfo::{TcpInfo, tcp_info},
    known::context::{SeenListener, SeenSocket},
    text::shown,
};

/// Sockets looked at, at most: the youngest descriptors, where what is under way is usually found.
const SOCKETS: usize = 512;
/// Descriptors gone through, at most.
const DESCRIPTORS: usize = 65_536;
/// Sockets kept in a snapshot, at most.
const KEPT: usize = 128;
/// Listeners kept in a snapshot, at most.
const LISTENERS: usize = 64;

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const CLOSE_WAIT: u8 = 8;
const LISTENING: u8 = 10;

/// A socket, as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    pub(super) cookie: u64,
    kind: Kind,
    looked: Instant,
}

#[derive(Debug, Clone)]
enum Kind {
    Tcp { info: TcpInfo, local: SocketAddr, remote: Option<SocketAddr>, unread: u32 },
    Udp { remote: Option<SocketAddr> },
    Unix(UnixEnd),
    Other,
}

/// The sockets of a process.
pub(super) struct Sockets {
    proc: PathBuf,
    process: Option<OwnedFd>,
    by_fd: HashMap<u32, Socket>,
    /// Ports something listens on in the process's network namespace; `None` when they could not be read.
    listening: Option<HashSet<u16>>,
    /// Open descriptors, sockets or not.
    open: Vec<u32>,
    complete: bool,
}

impl Sockets {
    pub(super) fn open(pid: u32, proc: &Path) -> Self {
        Self::open_some(pid, proc, SOCKETS)
    }

    /// Of a process that may be another one: not more sockets than that.
    pub(super) fn open_some(pid: u32, proc: &Path, most: usize) -> Self {
        let process = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let listening = listening(proc);
        let mut sockets = Self {
            proc: proc.to_owned(),
            process,
            by_fd: HashMap::new(),
            listening,
            open: vec![],
            complete: true,
        };
        let Ok(entries) = fs::read_dir(proc.join("fd")) else {
            sockets.complete = false;
            return sockets;
        };
        let mut fds: Vec<u32> = entries
            .take(DESCRIPTORS)
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        sockets.complete = fds.len() < DESCRIPTORS;
        fds.sort_unstable_by(|a, b| b.cmp(a));
        for &fd in &fds {
            if !sockets.link(fd).is_some_and(|target| target.starts_with("socket:")) {
                continue;
            }
            if sockets.by_fd.len() >= most {
                sockets.complete = false;
                break;
            }
            if let Some(socket) = sockets.look(fd) {
                sockets.by_fd.insert(fd, socket);
            } else {
                sockets.complete = false;
            }
        }
        sockets.open = fds;
        sockets
    }

    /// Every socket was looked at.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// How many descriptors below this number are open, sockets or not.
    pub(super) fn open_below(&self, limit: u64) -> u64 {
        self.open.iter().filter(|fd| u64::from(**fd) < limit).count() as u64
    }

    /// One of them has this cookie.
    pub(super) fn has(&self, cookie: u64) -> bool {
        self.by_fd.values().any(|socket| socket.cookie == cookie)
    }

    /// The socket behind a descriptor.
    pub(super) fn at(&self, fd: u32) -> Option<&Socket> {
        self.by_fd.get(&fd)
    }

    /// What a descriptor is.
    pub(super) fn descriptor(&self, fd: u32) -> Descriptor<'_> {
        match self.at(fd) {
            Some(socket) => Descriptor::Socket(socket),
            None => self.link(fd).map_or(Descriptor::Unknown(fd), |link| Descriptor::of(&link)),
        }
    }

    /// TCP sockets that are connecting or connected, their ages as of the beginning of the look.
    pub(super) fn connected(&self, began: Instant) -> Vec<SeenSocket> {
        let listening = self.listening.as_ref();
        let mut seen: Vec<SeenSocket> =
            self.by_fd.iter().filter_map(|(&fd, socket)| socket.seen(fd, listening, began)).collect();
        seen.sort_by_key(|socket| std::cmp::Reverse(socket.fd));
        // Those that may be owed an answer first, should there be too many.
        seen.sort_by_key(|socket| socket.received_ms_ago <= socket.sent_ms_ago);
        seen.truncate(KEPT);
        seen
    }

    /// The sockets that listen for TCP, the first ones.
    pub(super) fn listeners(&self) -> Vec<SeenListener> {
        let mut seen: Vec<SeenListener> = self.by_fd.values().filter_map(Socket::queue).collect();
        seen.sort_by_key(|listener| (listener.local, listener.queued));
        seen.dedup_by_key(|listener| listener.local);
        seen.truncate(LISTENERS);
        seen
    }

    /// Its UDP sockets that have a peer: cookie and address.
    pub(super) fn datagrams(&self) -> Vec<(u64, SocketAddr)> {
        let peer = |socket: &Socket| match socket.kind {
            Kind::Udp { remote: Some(remote) } => Some((socket.cookie, canonical(remote))),
            _ => None,
        };
        self.by_fd.values().filter_map(peer).collect()
    }

    pub(super) fn link(&self, fd: u32) -> Option<String> {
        let target = fs::read_link(self.proc.join("fd").join(fd.to_string())).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    fn look(&self, fd: u32) -> Option<Socket> {
        let fd = i32::try_from(fd).ok()?;
        let socket = pidfd_getfd(self.process.as_ref()?, fd, PidfdGetfdFlags::empty()).ok()?;
        let (kind, looked) = (kind(&socket), Instant::now());
        Some(Socket { cookie: sockopt::socket_cookie(&socket).unwrap_or(0), kind, looked })
    }
}

/// What a descriptor is, as far as it is known.
#[derive(Debug)]
pub(super) enum Descriptor<'a> {
    /// A socket.
    Socket(&'a Socket),
    /// A pipe: the other end is another process's, or another thread's.
    Pipe,
    /// An eventfd: threads of a process wake each other by it.
    EventFd,
    /// Another object without a name, of this kind.
    Anonymous(String),
    /// A file, by its path.
    File(String),
    /// One that could not be looked at.
    Unknown(u32),
}

impl Descriptor<'_> {
    /// By what the link in `/proc/PID/fd` points to.
    fn of(link: &str) -> Self {
        if link.starts_with("pipe:") {
            return Self::Pipe;
        }
        match link.strip_prefix("anon_inode:").map(|kind| kind.trim_matches(['[', ']'])) {
            Some("eventfd") => Self::EventFd,
            Some(kind) => Self::Anonymous(kind.to_owned()),
            None => Self::File(link.to_owned()),
        }
    }
}

impl fmt::Display for Descriptor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => f.write_str(&socket.describe()),
            Self::Pipe => f.write_str("a pipe"),
            Self::EventFd => f.write_str("eventfd"),
            Self::Anonymous(kind) => f.write_str(kind),
            // The process that opens a file has named it.
            Self::File(path) => f.write_str(&shown(path)),
            Self::Unknown(fd) => write!(f, "descriptor {fd}"),
        }
    }
}

fn kind(socket: &OwnedFd) -> Kind {
    use rustix::net::{AddressFamily, SocketType, ipproto};
    let remote = || SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok();
    let family = sockopt::socket_domain(socket);
    if family == Ok(AddressFamily::UNIX) {
        return Kind::Unix(UnixEnd::of(socket));
    }
    if family != Ok(AddressFamily::INET) && family != Ok(AddressFamily::INET6) {
        return Kind::Other;
    }
    if sockopt::socket_protocol(socket) == Ok(Some(ipproto::TCP))
        && let Ok(info) = tcp_info(socket)
        && let Some(local) =
            rustix::net::getsockname(socket).ok().and_then(|local| SocketAddr::try_from(local).ok())
    {
        let unread = rustix::io::ioctl_fionread(socket.as_fd()).unwrap_or(0);
        return Kind::Tcp {
            info,
            local,
            remote: remote(),
            unread: u32::try_from(unread).unwrap_or(u32::MAX),
        };
    }
    if sockopt::socket_type(socket) == Ok(SocketType::DGRAM) {
        return Kind::Udp { remote: remote() };
    }
    Kind::Other
}

/// The age of something that the kernel gave `later` than the look began, as of its beginning. The kernel gives it by
/// the difference of two ticks, which may be a tick too much: what was sent on behalf of a hello is never older than
/// the hello.
fn age(ms_ago: u32, later: Duration, tick: Duration) -> u32 {
    ms_ago.saturating_sub(u32::try_from((later + tick).as_millis()).unwrap_or(u32::MAX))
}

/// The kernel's tick.
fn tick() -> Duration {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    Duration::new(0, u32::try_from(tick.tv_nsec).unwrap_or(0))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Socket {
    /// The DNS server that it asks: a UDP socket's, where it is connected to one.
    pub(super) fn dns_server(&self) -> Option<SocketAddr> {
        match self.kind {
            Kind::Udp { remote: Some(remote) } => Some(canonical(remote)).filter(|to| to.port() == PORT),
            _ => None,
        }
    }

    /// Whether it listens.
    pub(super) fn listens(&self) -> bool {
        matches!(&self.kind, Kind::Tcp { info, .. } if info.state == LISTENING)
    }

    /// The other end, if it is a unix socket.
    pub(super) fn unix(&self) -> Option<&UnixEnd> {
        match &self.kind {
            Kind::Unix(end) => Some(end),
            _ => None,
        }
    }

    /// Its accept queue, if it listens for TCP.
    fn queue(&self) -> Option<SeenListener> {
        match &self.kind {
            // As the kernel gives them for a listener: inet_diag and tcp_info use these fields.
            Kind::Tcp { info, local, .. } if info.state == LISTENING => {
                Some(SeenListener { local: canonical(*local), queued: info.unacked, limit: info.sacked })
            }
            _ => None,
        }
    }

    fn describe(&self) -> String {
        match &self.kind {
            Kind::Tcp { info, local, remote: None, .. } if info.state == LISTENING => {
                format!("TCP {} listening", canonical(*local))
            }
            Kind::Tcp { info, local, remote, .. } => {
                let state = match info.state {
                    ESTABLISHED => "connected",
                    SYN_SENT => "connecting",
                    CLOSE_WAIT => "closed by the peer",
                    _ => "not connected",
                };
                match remote {
                    Some(remote) => format!("TCP {} → {} {state}", canonical(*local), canonical(*remote)),
                    None => format!("TCP {} {state}", canonical(*local)),
                }
            }
            Kind::Udp { remote: Some(remote) } => format!("UDP → {}", canonical(*remote)),
            Kind::Udp { remote: None } => "UDP".into(),
            Kind::Unix(end) => end.to_string(),
            Kind::Other => "a socket".into(),
        }
    }

    fn seen(&self, fd: u32, listening: Option<&HashSet<u16>>, began: Instant) -> Option<SeenSocket> {
        let Kind::Tcp { info, local, remote, unread } = &self.kind else { return None };
        if ![ESTABLISHED, SYN_SENT, CLOSE_WAIT].contains(&info.state) {
            return None;
        }
        let later = self.looked.saturating_duration_since(began);
        let unspecified = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        Some(SeenSocket {
            cookie: self.cookie,
            fd,
            state: info.state,
            local: canonical(*local),
            // A socket that is still connecting has no peer to ask for; its connect is known otherwise.
            remote: canonical(remote.unwrap_or(unspecified)),
            acked_bytes: info.acked_bytes,
            received_bytes: info.received_bytes,
            unacked: info.unacked,
            sent_ms_ago: age(info.sent_ms_ago, later, tick()),
            received_ms_ago: age(info.received_ms_ago, later, tick()),
            unread_bytes: *unread,
            inbound: listening.map(|ports| ports.contains(&local.port())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_what_its_link_says() {
        for (link, words) in [
            ("pipe:[4711]", "a pipe"),
            ("anon_inode:[eventfd]", "eventfd"),
            ("anon_inode:inotify", "inotify"),
            ("/var/lib/a file", "\"/var/lib/a file\""),
        ] {
            assert_eq!(Descriptor::of(link).to_string(), words);
        }
        assert!(matches!(Descriptor::of("pipe:[1]"), Descriptor::Pipe));
        assert!(matches!(Descriptor::of("anon_inode:[eventfd]"), Descriptor::EventFd));
        // Files may be called anything.
        for link in ["/tmp/a pipe", "a pipe", "eventfd"] {
            assert!(matches!(Descriptor::of(link), Descriptor::File(_)), "{link}");
        }
    }

    #[test]
    fn an_age_is_as_of_the_beginning_of_the_look_and_at_most_that() {
        let ms = Duration::from_millis;
        assert_eq!(age(500, ms(60), ms(4)), 436);
        assert_eq!(age(3, ms(0), ms(4)), 0);
        assert_eq!(age(3, Duration::MAX.saturating_sub(ms(4)), ms(4)), 0);
        assert!((1..=10).contains(&tick().as_millis()), "{:?}", tick());
    }
}
