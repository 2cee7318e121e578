//! The kernel's tables of TCP and UDP sockets (`/proc/PID/net`): which socket of this machine is at the other end.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// Bytes of a table read at most.
const TABLE: usize = 1 << 22;

/// The inode of the socket at the other end, in the network namespace of a process; of a connection that waits to be
/// accepted that of its listener.
pub(super) fn other_end(process: u32, table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let rows = rows(process, table);
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
        let me = std::process::id();
        let queued = other_end(me, "tcp", local, remote).expect("its listener");
        let (_far, _) = listener.accept().expect("it connected");
        let accepted = other_end(me, "tcp", local, remote).expect("its other end");
        assert_ne!(queued, accepted);
        assert_eq!(other_end(me, "tcp", remote, SocketAddr::new(local.ip(), 1)), None);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(address("0100007F:0035"), Some(SocketAddr::from(([127, 0, 0, 1], 53))));
        let mapped = "0000000000000000FFFF00000100007F:01BB";
        assert_eq!(address(mapped), Some(SocketAddr::from(([127, 0, 0, 1], 443))));
        assert_eq!(address("0100007F"), None);
    }
}
