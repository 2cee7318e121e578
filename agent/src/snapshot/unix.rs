//! The other end of a unix socket: which socket it is (`sock_diag`), or which are bound where it is sent to. Asked in
//! the network namespace of the process, by a thread that ends with it.

use std::{
    collections::HashMap,
    fmt, fs, io,
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    thread,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::sys::socket::{UnixAddr, getpeername, getsockopt, sockopt::PeerCredentials};

use crate::{namespaces, text::shown};

/// Sockets asked about, at most.
const ASKED: usize = 64;
/// Bytes of `/proc/PID/net/unix` read at most: some hundred thousand sockets.
const TABLE: u64 = 8 << 20;
/// Sockets bound at one place taken, at most.
const BOUND: usize = 8;

/// From include/uapi/linux/{netlink,sock_diag,unix_diag}.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_UNIX: u8 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
/// `struct nlmsghdr`, and `struct unix_diag_msg` after it.
const HEADER: usize = 16;
const MESSAGE: usize = 16;

/// The other end of a unix socket, as the socket itself says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnixEnd {
    /// Where it is bound; `@name` in the abstract namespace.
    pub(super) place: Option<String>,
    /// The process that listened there, or made the pair; 0 when that is not known.
    pub(super) process: u32,
}

impl UnixEnd {
    /// Of a socket that is connected; of others nothing is known.
    pub(super) fn of(socket: impl AsFd) -> Self {
        let peer = getpeername::<UnixAddr>(socket.as_fd().as_raw_fd()).ok();
        let process = getsockopt(&socket, PeerCredentials).map_or(0, |peer| peer.pid());
        Self { place: peer.and_then(|peer| place(&peer)), process: u32::try_from(process).unwrap_or(0) }
    }
}

impl fmt::Display for UnixEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "unix socket {}", shown(place)),
            None => f.write_str("a unix socket"),
        }
    }
}

fn place(address: &UnixAddr) -> Option<String> {
    if let Some(path) = address.path() {
        return Some(path.to_string_lossy().into_owned());
    }
    address.as_abstract().map(|name| format!("@{}", String::from_utf8_lossy(name)))
}

/// The place that a `struct sockaddr_un` names.
pub(super) fn place_in(address: &[u8]) -> Option<String> {
    let (family, name) = address.split_first_chunk()?;
    if u16::from_ne_bytes(*family) != u16::from(AF_UNIX) {
        return None;
    }
    if let Some((0, name)) = name.split_first() {
        return Some(format!("@{}", String::from_utf8_lossy(name)));
    }
    let path = name.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())?;
    Some(String::from_utf8_lossy(path).into_owned())
}

/// The inodes of the sockets that these, by their inodes, are connected to. What is not connected, or not accepted
/// yet, is left out.
pub(super) fn peers(proc: &Path, inodes: &[u64]) -> HashMap<u64, u64> {
    if inodes.is_empty() {
        return HashMap::new();
    }
    let namespace = proc.join("ns/net");
    let own = namespaces::own();
    let inodes: Vec<u64> = inodes.iter().copied().take(ASKED).collect();
    let look = move || -> io::Result<HashMap<u64, u64>> {
        namespaces::enter(&namespace, own)?;
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut peers = HashMap::new();
        for inode in inodes {
            let Ok(short) = u32::try_from(inode) else { continue };
            socket.send(&request(short), 0)?;
            let (answer, _) = socket.recv_from_full()?;
            if let Some(peer) = peer(&answer).filter(|peer| *peer != 0) {
                peers.insert(inode, u64::from(peer));
            }
        }
        Ok(peers)
    };
    let visitor = thread::Builder::new().name("unix sockets".into()).spawn(look);
    visitor.ok().and_then(|visitor| visitor.join().ok()).and_then(Result::ok).unwrap_or_default()
}

/// `struct nlmsghdr` and `struct unix_diag_req` for one socket.
fn request(inode: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend(40u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([AF_UNIX, 0, 0, 0]);
    // In any state, and without a cookie.
    for word in [u32::MAX, inode, UDIAG_SHOW_PEER, u32::MAX, u32::MAX] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// The peer's inode in an answer.
fn peer(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut attributes = answer.get(HEADER + MESSAGE..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == UNIX_DIAG_PEER {
            return Some(u32::from_ne_bytes(*value.first_chunk()?));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// The inodes of sockets that are bound at a place in the network namespace of a process. There may be several: of
/// files by one name in different mount namespaces.
pub(super) fn bound_at(proc: &Path, place: &str) -> Vec<u64> {
    let Ok(file) = fs::File::open(proc.join("net/unix")) else { return vec![] };
    let lines = BufReader::new(file.take(TABLE)).lines().skip(1).map_while(Result::ok);
    lines.filter_map(|line| bound(&line, place)).take(BOUND).collect()
}

/// Columns of `/proc/net/unix`: slot, references, protocol, flags, type, state, inode, and the place, which may hold
/// spaces.
fn bound(line: &str, place: &str) -> Option<u64> {
    let (mut inode, mut rest) = ("", line);
    for _ in 0..7 {
        (inode, rest) = rest.trim_start().split_once(' ')?;
    }
    (rest == place).then(|| inode.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;
    use crate::snapshot::ends;

    fn inode(socket: impl AsFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd())).expect("ours");
        ends::socket(&link.to_string_lossy()).expect("a socket")
    }

    #[test]
    fn the_peer_of_a_unix_socket_is_found_by_its_inode() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let peers = peers(Path::new("/proc/self"), &[inode(&near)]);
        // A kernel may be built without it.
        if let Some(peer) = peers.get(&inode(&near)) {
            assert_eq!(*peer, inode(&far));
        }
    }

    #[test]
    fn sockets_are_found_by_where_they_are_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("a log");
        let bound = UnixDatagram::bind(&place).expect("our own directory");
        assert_eq!(bound_at(Path::new("/proc/self"), &place.to_string_lossy()), [inode(&bound)]);
        assert_eq!(bound_at(Path::new("/proc/self"), "/nowhere"), [0u64; 0]);
    }

    #[test]
    fn a_socket_knows_where_its_peer_is_bound_and_who_listened_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("socket");
        let _listener = UnixListener::bind(&place).expect("our own directory");
        let end = UnixEnd::of(&UnixStream::connect(&place).expect("it listens"));
        let expected = Some(place.to_string_lossy().into_owned());
        assert_eq!((end.place, end.process), (expected, std::process::id()));
        assert_eq!(UnixEnd::of(&UnixDatagram::unbound().expect("a socket")), UnixEnd::default());
    }

    #[test]
    fn an_address_in_memory_names_its_place() {
        assert_eq!(place_in(b"\x01\0/dev/log\0garbage").as_deref(), Some("/dev/log"));
        assert_eq!(place_in(b"\x01\0\0bus").as_deref(), Some("@bus"));
        for other in [&b"\x02\0/dev/log"[..], b"\x01\0", b"\x01"] {
            assert_eq!(place_in(other), None);
        }
    }

    #[test]
    fn an_answer_that_breaks_off_has_no_peer() {
        let mut answer = vec![0; HEADER + MESSAGE];
        answer[4] = 20;
        answer.extend([5, 0, 1, 0, 9, 0, 0, 0]);
        answer.extend([8, 0, 2, 0, 77, 0, 0, 0]);
        assert_eq!(peer(&answer), Some(77));
        for length in 0..answer.len() {
            assert_eq!(peer(&answer[..length]), None, "{length}");
        }
        answer[4] = 2;
        assert_eq!(peer(&answer), None);
    }
}
