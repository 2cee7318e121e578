//! The kernel's tables of TCP and UDP sockets (`/proc/PID/net`): which socket of this machine is at the other end.

use std::{
    cell::OnceCell,
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::observe;

/// Bytes of a table read at most.
const TABLE: usize = 1 << 22;

/// Network namespaces looked through, at most, and how long that may take.
const NAMESPACES: usize = 64;
const PATIENCE: Duration = Duration::from_millis(200);

/// The network namespace of a process.
pub(super) fn namespace(process: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

/// The network namespace of a process, and a process of each other one, looked for when it is asked.
pub(super) struct Namespaces {
    process: u32,
    others: OnceCell<Vec<u32>>,
    began: Instant,
}

impl Namespaces {
    pub(super) fn beside(process: u32) -> Self {
        Self { process, others: OnceCell::new(), began: Instant::now() }
    }

    /// The first process of each, in order of their ids.
    fn others(&self) -> &[u32] {
        self.others.get_or_init(|| {
            let mut known: HashSet<PathBuf> = namespace(self.process).into_iter().collect();
            let first = |pid: &u32| namespace(*pid).is_some_and(|netns| known.insert(netns));
            observe::pids().take_while(|_| self.is_in_time()).filter(first).take(NAMESPACES).collect()
        })
    }

    fn is_in_time(&self) -> bool {
        self.began.elapsed() < PATIENCE
    }
}

/// The inode of the socket at the other end of a TCP connection; of one that waits to be accepted that of its listener.
/// Where both ends have the same addresses, nothing translates them: another namespace of this machine may have it.
pub(super) fn other_end(of: &Namespaces, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let in_own = other_end_in(of.process, local, remote);
    let others = || of.others().iter().take_while(|_| of.is_in_time());
    in_own.or_else(|| others().find_map(|process| other_end_in(*process, local, remote)))
}

fn other_end_in(process: u32, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let rows = rows(process, "tcp");
    let there = rows.iter().find(|row| row.local == remote && row.remote == local)?;
    if there.inode != 0 {
        return Some(there.inode);
    }
    let listens = |row: &&Row| {
        row.listens
            && row.local.port() == remote.port()
            && (row.local.ip() == remote.ip() || row.local.ip().is_unspecified())
    };
    rows.iter().find(listens).map(|row| row.inode)
}

/// The inode of the socket that receives datagrams sent to an address, in the network namespace of a process.
pub(super) fn receiver(process: u32, to: SocketAddr) -> Option<u64> {
    let is_there = |row: &&Row| {
        row.local.port() == to.port() && (row.local.ip() == to.ip() || row.local.ip().is_unspecified())
    };
    rows(process, "udp").iter().find(is_there).map(|row| row.inode)
}

/// A row of `/proc/net/tcp` or `/proc/net/udp`.
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
    inode: u64,
}

fn rows(process: u32, table: &str) -> Vec<Row> {
    let text = |name: String| {
        let mut text = fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap_or_default();
        text.truncate(text.floor_char_boundary(TABLE));
        text
    };
    let both = [text(table.to_owned()), text(format!("{table}6"))];
    both.iter().flat_map(|text| text.lines().skip(1)).filter_map(row).collect()
}

/// Columns: slot, local, remote, state (0A: listening), …, inode (tenth).
fn row(line: &str) -> Option<Row> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    Some(Row {
        local: address(columns.get(1)?)?,
        remote: address(columns.get(2)?)?,
        listens: *columns.get(3)? == "0A",
        inode: columns.get(9)?.parse().ok()?,
    })
}

/// `0100007F:0035`: words of the machine's own byte order, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (hex, port) = text.rsplit_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match hex.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_other_end_of_a_connection_is_found_accepted_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (local, remote) = (near.local_addr().expect("bound"), near.peer_addr().expect("connected"));
        let me = Namespaces::beside(std::process::id());
        let queued = other_end(&me, local, remote).expect("its listener");
        let (_far, _) = listener.accept().expect("it connected");
        let accepted = other_end(&me, local, remote).expect("its other end");
        assert_ne!(queued, accepted);
        assert_eq!(other_end(&me, remote, SocketAddr::new(local.ip(), 1)), None);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(address("0100007F:0035"), Some(SocketAddr::from(([127, 0, 0, 1], 53))));
        let mapped = "0000000000000000FFFF00000100007F:01BB";
        assert_eq!(address(mapped), Some(SocketAddr::from(([127, 0, 0, 1], 443))));
        assert_eq!(address("0100007F"), None);
    }
}
