//! Follows waits from process to process of this machine: the reader of a pipe, the daemon behind a unix socket, the
//! process that serves a file system, the service at the other end of a connection. Bounded in processes and in
//! depth; each is looked at as any other, and nothing is stopped.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{
    cgroup,
    ends::{End, Found},
    sockets::Sockets,
    take,
};
use crate::known::{
    context::{Between, Chain, Link, Looked, SeenProcess, SeenSocket, SeenThread, Snapshot},
    request::ProcessRef,
};

/// Processes looked at, at most.
const PROCESSES: usize = 24;
/// Waits followed one after the other, at most.
const DEPTH: usize = 5;
/// Children followed, at most.
const CHILDREN: usize = 8;
/// No process more is looked at after that long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Three periods of most CPU quotas.
const QUOTA: Duration = Duration::from_millis(300);
/// Bytes of a table of sockets read at most.
const TABLE: usize = 1 << 22;

/// Follows the waits of these processes. Blocking: some milliseconds a process, some seconds at most.
pub fn follow(targets: &[u32], boot_ns: u64) -> Chain {
    let began = Instant::now();
    let mut chain = Chain { targets: targets.to_vec(), ..Chain::default() };
    let mut next: Vec<u32> = targets.to_vec();
    let mut known: HashSet<u32> = HashSet::from([std::process::id()]);
    for _ in 0..DEPTH {
        let found = level(&mut chain, &next, &mut known, began, boot_ns);
        next = found;
    }
    chain.cut |= next.iter().any(|process| !known.contains(process));
    if chain.looked_at.iter().any(|looked| looked.snapshot.limits.quota.is_some()) {
        thread::sleep(QUOTA.saturating_sub(began.elapsed()));
        chain.looked_at.iter_mut().for_each(look_at_quota);
    }
    chain
}

/// Looks at these processes; the ones they wait for.
fn level(
    chain: &mut Chain,
    processes: &[u32],
    known: &mut HashSet<u32>,
    began: Instant,
    boot_ns: u64,
) -> Vec<u32> {
    let mut found = Vec::new();
    for &process in processes {
        if !known.insert(process) {
            continue;
        }
        if chain.looked_at.len() >= PROCESSES || began.elapsed() > PATIENCE {
            chain.cut = true;
            break;
        }
        let snapshot = take(ProcessRef { process, thread: 0, cookie: 0 }, boot_ns);
        if snapshot.threads.is_empty() && !snapshot.unfinished {
            continue;
        }
        let (links, datagrams) = links(&snapshot);
        found.extend(links.iter().map(|link| link.on));
        chain.links.extend(links);
        let comm = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        chain.looked_at.push(Looked { comm: comm.trim_end().to_owned(), snapshot, datagrams, quota: None });
    }
    found
}

/// How often its quota was used up since the first look.
fn look_at_quota(looked: &mut Looked) {
    let before = &looked.snapshot.limits;
    let Some(quota) = before.quota else { return };
    let now = cgroup::look(&PathBuf::from(format!("/proc/{}", looked.snapshot.process)));
    if now.quota_group == before.quota_group {
        looked.quota = now.quota.map(|now| now.since(&quota));
    }
}

/// Where the threads of a process wait for another one, and which of them wait for a datagram.
fn links(snapshot: &Snapshot) -> (Vec<Link>, Vec<(u32, SocketAddr)>) {
    let process = snapshot.process;
    let (mut links, mut datagrams) = (Vec::new(), Vec::new());
    let mut sought: Vec<(Option<u32>, Between, End)> = Vec::new();
    let sockets = match snapshot.unfinished {
        true => return (links, datagrams),
        false => Sockets::open(process, &PathBuf::from(format!("/proc/{process}"))),
    };
    for thread in &snapshot.threads {
        let tid = Some(thread.shown.tid);
        if let Some(local) = &thread.local {
            // Who may be the other end is one of several there: all are followed.
            let link = |end: &SeenProcess| Link { process, thread: tid, on: end.pid, by: Between::Local };
            links.extend(local.ends.iter().map(link));
        }
        if thread.awaits_children() {
            let link = |on| Link { process, thread: tid, on, by: Between::Child };
            links.extend(children(snapshot).into_iter().map(link));
        }
        let waited_for = snapshot.sockets.iter().filter(|socket| thread.awaits(socket));
        sought.extend(waited_for.filter_map(|socket| tcp(process, tid, socket)));
        for (cookie, remote) in sockets.datagrams() {
            if !thread.sockets.contains(&cookie) {
                continue;
            }
            datagrams.push((thread.shown.tid, remote));
            if let Some(inode) = receiver(process, remote) {
                sought.push((tid, Between::Udp(remote), End::Socket(inode)));
            }
        }
    }
    sought.extend(snapshot.of_event_loops().filter_map(|socket| tcp(process, None, socket)));
    let found = Found::look(&sought.iter().map(|(.., end)| end.clone()).collect());
    for (thread, by, end) in sought {
        let others = found.at(&end).iter().filter(|holder| **holder != process);
        links.extend(others.take(1).map(|&on| Link { process, thread, on, by: by.clone() }));
    }
    (links, datagrams)
}

/// The other end of a connection, if this machine has it.
fn tcp(process: u32, thread: Option<u32>, socket: &SeenSocket) -> Option<(Option<u32>, Between, End)> {
    let inode = other_end(process, "tcp", socket.local, socket.remote)?;
    Some((thread, Between::Tcp(socket.remote), End::Socket(inode)))
}

/// The children of a process, the first few.
fn children(snapshot: &Snapshot) -> Vec<u32> {
    let list = |thread: &SeenThread| {
        let place = format!("/proc/{}/task/{}/children", snapshot.process, thread.shown.tid);
        fs::read_to_string(place).unwrap_or_default()
    };
    let lists: Vec<String> = snapshot.threads.iter().map(list).collect();
    let words = lists.iter().flat_map(|list| list.split_whitespace());
    words.filter_map(|word| word.parse().ok()).take(CHILDREN).collect()
}

/// The inode of the socket at the other end, in the network namespace of a process; of a connection that waits to be
/// accepted that of its listener.
fn other_end(process: u32, table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
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
fn receiver(process: u32, to: SocketAddr) -> Option<u64> {
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
