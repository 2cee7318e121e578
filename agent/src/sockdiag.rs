//! Has the kernel draw the cookies of connections that have none yet, by asking for each over `sock_diag(7)`: a cookie is
//! drawn when it is first asked for, and no tracing program can do so on every kernel. It says nothing else of them.

use std::{collections::BTreeMap, io, thread};

use ebpf_probes::abi::{AF_INET, Connection, IPPROTO_TCP, Netns};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::namespaces::{self, Found};

/// `SOCK_DIAG_BY_FAMILY` of include/uapi/linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST` of include/uapi/linux/netlink.h.
const REQUEST: u16 = 1;
/// `struct nlmsghdr` of include/uapi/linux/netlink.h.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2` of include/uapi/linux/inet_diag.h.
const BODY: usize = 56;

/// Connections, each with the device that its socket is bound to, 0 for none.
type Connections = Vec<(Connection, u32)>;

/// Asks for each of these connections in its network namespace. How many are still there.
///
/// # Errors
/// `/proc` cannot be read, or no thread be begun.
pub fn draw_cookies(connections: Connections) -> io::Result<usize> {
    let mut by_namespace: BTreeMap<Netns, Connections> = BTreeMap::new();
    for (connection, device) in connections {
        by_namespace.entry(connection.netns).or_default().push((connection, device));
    }
    if by_namespace.is_empty() {
        return Ok(0);
    }
    let places = namespaces::find()?;
    let visitor =
        thread::Builder::new().name("sockdiag".into()).spawn(move || visit(by_namespace, &places))?;
    visitor.join().map_err(|_| io::Error::other("the thread that visits network namespaces panicked"))
}

/// Leaves the calling thread in the namespace visited last.
fn visit(mut by_namespace: BTreeMap<Netns, Connections>, places: &BTreeMap<u32, Found>) -> usize {
    let own = namespaces::own();
    // The own one first, while the thread is there.
    let here = own.and_then(|own| by_namespace.remove(&own)).unwrap_or_default();
    let mut found = ask(&here).unwrap_or(0);
    for (netns, connections) in by_namespace {
        let Some(place) = places.get(&netns.inode) else { continue };
        // The number may be another's by now.
        let entered = namespaces::enter(&place.path, own);
        if entered.is_ok_and(|entered| netns.generation == 0 || entered == netns) {
            found += ask(&connections).unwrap_or(0);
        }
    }
    found
}

/// Asks in the calling thread's namespace.
fn ask(connections: &[(Connection, u32)]) -> io::Result<usize> {
    if connections.is_empty() {
        return Ok(0);
    }
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut found = 0;
    for (connection, device) in connections {
        socket.send(&request(connection, *device), 0)?;
        // The kernel has answered by now, with the socket or with an error.
        let (answer, _) = socket.recv_from_full()?;
        let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        found += usize::from(kind == Some(BY_FAMILY));
    }
    Ok(found)
}

/// Asks for one socket, whichever state it is in and whatever its cookie.
fn request(connection: &Connection, device: u32) -> [u8; HEADER + BODY] {
    let tuple = &connection.tuple;
    let mut bytes = [0; HEADER + BODY];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&((HEADER + BODY) as u32).to_ne_bytes());
    put(&BY_FAMILY.to_ne_bytes());
    put(&REQUEST.to_ne_bytes());
    // Sequence number and port.
    put(&[0; 8]);
    put(&[tuple.family as u8, IPPROTO_TCP as u8, 0, 0]);
    put(&u32::MAX.to_ne_bytes());
    put(&tuple.local_port.to_be_bytes());
    put(&tuple.remote_port.to_be_bytes());
    for address in [tuple.local, tuple.remote] {
        let mut field = [0; 16];
        if tuple.family == AF_INET {
            field[..4].copy_from_slice(&address[12..]);
        } else {
            field = address;
        }
        put(&field);
    }
    put(&device.to_ne_bytes());
    // INET_DIAG_NOCOOKIE, twice.
    put(&[0xff; 8]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

    use ebpf_probes::abi::{AF_INET6, Tuple};

    use super::*;

    /// As the kernel's programs write a connection.
    fn connection(local: SocketAddr, remote: SocketAddr) -> Connection {
        let bytes = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let tuple = Tuple {
            local: bytes(local.ip()),
            remote: bytes(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
        };
        Connection { tuple, netns: namespaces::own().expect("/proc") }
    }

    #[test]
    fn a_connection_is_found_by_its_ends_and_another_is_not() -> io::Result<()> {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            // IPv6 may be off.
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let near = TcpStream::connect(listener.local_addr()?)?;
            let there = connection(near.local_addr()?, near.peer_addr()?);
            assert_eq!(draw_cookies(vec![(there, 0)])?, 1, "{host}");
            let mut elsewhere = there;
            elsewhere.tuple.remote_port = 9;
            assert_eq!(draw_cookies(vec![(elsewhere, 0)])?, 0, "{host}");
        }
        Ok(())
    }
}
