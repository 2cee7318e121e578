//! Follows waits from process to process of this machine: the reader of a pipe, the daemon behind a unix socket, the
//! process that serves a file system, the service at the other end of a connection. Bounded in processes and in
//! depth; each is looked at as any other, and nothing is stopped.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{
    cgroup,
    ends::{End, Found},
    sockets::Sockets,
    tables::{self, Namespaces, other_end, receiver},
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
        let own = tables::namespace(std::process::id());
        chain.looked_at.push(Looked {
            comm: comm.trim_end().to_owned(),
            snapshot,
            datagrams,
            elsewhere: own.is_some() && tables::namespace(process) != own,
            quota: None,
        });
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
    let others = Namespaces::beside(process);
    let sockets = match snapshot.unfinished {
        true => return (links, datagrams),
        false => Sockets::open(process, &PathBuf::from(format!("/proc/{process}"))),
    };
    for thread in &snapshot.threads {
        let tid = Some(thread.shown.tid);
        if let Some(local) = thread.local.as_ref().filter(|local| !local.is_network()) {
            // Who may be the other end is one of several there: all are followed.
            let link = |end: &SeenProcess| Link { process, thread: tid, on: end.pid, by: Between::Local };
            links.extend(local.ends.iter().map(link));
        }
        if thread.awaits_children() {
            let link = |on| Link { process, thread: tid, on, by: Between::Child };
            links.extend(children(snapshot).into_iter().map(link));
        }
        let waited_for = snapshot.sockets.iter().filter(|socket| thread.awaits(socket));
        sought.extend(waited_for.filter_map(|socket| tcp(&others, tid, socket)));
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
    sought.extend(snapshot.of_event_loops().filter_map(|socket| tcp(&others, None, socket)));
    let found = Found::look(&sought.iter().map(|(.., end)| end.clone()).collect());
    for (thread, by, end) in sought {
        let others = found.at(&end).iter().filter(|holder| **holder != process);
        links.extend(others.take(1).map(|&on| Link { process, thread, on, by: by.clone() }));
    }
    (links, datagrams)
}

/// The other end of a connection, if this machine has it, in whichever network namespace.
fn tcp(of: &Namespaces, thread: Option<u32>, socket: &SeenSocket) -> Option<(Option<u32>, Between, End)> {
    let inode = other_end(of, socket.local, socket.remote)?;
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
