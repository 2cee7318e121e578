//! What a thread waits for on this machine: the unix socket, pipe or file system that its system call is about, or the
//! socket by which it asks a DNS server, and who is to answer there. Where that is not known by a link, a table or the thread's kernel function, nothing is
//! claimed.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use super::{
    call::{self, Call, memory, stack},
    ends::{self, End, Found},
    mounts::{Mount, Mounts, family_of_function},
    sockets::{Descriptor, Sockets},
    tables::receiver,
    unix::{self, UnixEnd},
};
use crate::{
    known::context::{Family, LocalObject, LocalWait, Posture, SeenMount, SeenThread},
    text::shown,
};

/// Bytes of a `struct sockaddr_un`.
const UNIX_ADDRESS: u64 = 110;
/// Characters of a process's name that the kernel keeps.
const COMM: usize = 15;

/// A thread that was looked at, and by what its other end is found.
pub(super) struct Looked {
    pub(super) seen: SeenThread,
    pub(super) asks: Option<Asks>,
}

/// By what the other end of a wait is found.
pub(super) enum Asks {
    /// A unix socket, by its own inode.
    Unix { inode: u64, end: UnixEnd },
    /// The other end of a pipe.
    Pipe(End),
    /// The socket of this machine that receives what is sent.
    Server(End),
    /// The process that serves a FUSE mount, as the mount's type calls it.
    Fuse(Option<String>),
}

/// The process whose threads are looked at.
pub(super) struct Process<'a> {
    pub(super) proc: &'a Path,
    pub(super) id: u32,
    pub(super) sockets: &'a Sockets,
    pub(super) mounts: &'a Mounts,
}

impl Process<'_> {
    /// Sets what a thread waits for locally. A call on several descriptors waits for none of them alone.
    pub(super) fn asks(
        &self,
        task: &Path,
        call: Option<&Call>,
        fds: &[u32],
        seen: &mut SeenThread,
    ) -> Option<Asks> {
        if let Some((mount, fuse)) = self.file_system(task, call, fds, seen) {
            if fds.is_empty()
                && let Some(path) = &mount.path
            {
                seen.shown.waits_on.push(shown(path).into_owned());
            }
            seen.local = Some(wait(LocalObject::FileSystem(mount), false));
            return fuse.map(Asks::Fuse);
        }
        let (call, [fd]) = (call?, fds) else { return None };
        // Who accepts waits for no process in particular.
        if call.name.starts_with("accept") {
            return None;
        }
        let sends = is_sending(call.name);
        match self.sockets.descriptor(*fd) {
            Descriptor::Socket(socket) => {
                // It exists for a lookup, and until that is over.
                if let Some(server) = socket.dns_server().filter(|_| !sends) {
                    seen.local = Some(wait(LocalObject::DnsServer { server }, sends));
                    return receiver(self.id, server).map(|inode| Asks::Server(End::Socket(inode)));
                }
                let known = socket.unix()?;
                let place = known.place.clone().or_else(|| self.sent_to(call));
                if known.place.is_none()
                    && let Some(place) = &place
                {
                    seen.shown.waits_on = vec![format!("unix socket {}", shown(place))];
                }
                let end = UnixEnd { place, process: known.process };
                seen.local = Some(wait(LocalObject::UnixSocket { path: end.place.clone() }, sends));
                let inode = ends::socket(&self.sockets.link(*fd)?)?;
                Some(Asks::Unix { inode, end })
            }
            Descriptor::Pipe => {
                let inode = ends::pipe(&self.sockets.link(*fd)?)?;
                seen.local = Some(wait(LocalObject::Pipe, sends));
                Some(Asks::Pipe(End::Pipe { inode, writes: !sends }))
            }
            _ => None,
        }
    }

    /// The file system a thread sleeps in, or that the file of its call is of; and of FUSE, what serves it.
    fn file_system(
        &self,
        task: &Path,
        call: Option<&Call>,
        fds: &[u32],
        seen: &SeenThread,
    ) -> Option<(SeenMount, Option<Option<String>>)> {
        let path = call.and_then(|call| call::path(self.proc, self.id, call, self.mounts));
        let by_fd = match fds {
            [fd] => self.mount_of(*fd),
            _ => None,
        };
        let at = by_fd.or_else(|| path.as_deref().and_then(|path| self.mounts.under(path)));
        // A stack is read where it may say more: in calls on files, and in no call at all.
        let frames = match path.is_some() || by_fd.is_some() || seen.posture == Posture::Disk {
            true if seen.shown.stack.is_empty() => stack(task),
            _ => vec![],
        };
        let functions = seen.shown.wchan.iter().chain(&seen.shown.stack).chain(&frames);
        let sleeps_in = functions.map(String::as_str).find_map(sleeping_in);
        let family = sleeps_in.or_else(|| at.and_then(Mount::family))?;
        let named = match (fds, path) {
            ([fd], _) if by_fd.is_some() => self.sockets.link(*fd),
            (_, path) => path.map(|path| path.to_string_lossy().into_owned()),
        };
        let of_family = at.filter(|mount| mount.family() == Some(family));
        let mount = of_family.or_else(|| self.mounts.only(family));
        let mut seen = match mount {
            Some(mount) => mount.seen(family, named),
            None => SeenMount { family, path: named, ..SeenMount::default() },
        };
        seen.sleeps_in_it = sleeps_in.is_some();
        let serves =
            || seen.fs_type.as_deref().and_then(|name| name.strip_prefix("fuse.")).map(str::to_owned);
        let virtual_machine = seen.fs_type.as_deref() == Some("virtiofs");
        let fuse = (family == Family::Fuse && !virtual_machine).then(serves);
        Some((seen, fuse))
    }

    /// The mount of an open file, as the kernel says it.
    fn mount_of(&self, fd: u32) -> Option<&Mount> {
        if !matches!(self.sockets.descriptor(fd), Descriptor::File(_)) {
            return None;
        }
        let text = fs::read_to_string(self.proc.join("fdinfo").join(fd.to_string())).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
        self.mounts.numbered(id)
    }

    /// Where a call on a socket that is not connected goes.
    fn sent_to(&self, call: &Call) -> Option<String> {
        let (address, len) = match call.name {
            "connect" => (call.args[1], call.args[2]),
            "sendto" => (call.args[4], call.args[5]),
            _ => return None,
        };
        if address == 0 || len > UNIX_ADDRESS {
            return None;
        }
        unix::place_in(&memory(self.id, address, usize::try_from(len).ok()?))
    }
}

/// The file system that a thread sleeping in this kernel function waits for. Who serves FUSE sleeps in `fuse_dev_…`
/// while there is nothing to do.
fn sleeping_in(function: &str) -> Option<Family> {
    family_of_function(function).filter(|_| !function.starts_with("fuse_dev_"))
}

fn wait(what: LocalObject, sends: bool) -> LocalWait {
    LocalWait { what, sends, ends: vec![], ends_cut: false }
}

fn is_sending(call: &str) -> bool {
    matches!(call, "write" | "writev" | "sendto" | "sendmsg" | "sendmmsg" | "connect" | "sendfile" | "splice")
}

/// Finds who is at the other ends, all in one pass.
pub(super) fn name_ends(proc: &Path, process: u32, threads: &mut [Looked]) {
    let unix = |looked: &Looked| match &looked.asks {
        Some(Asks::Unix { inode, .. }) => Some(*inode),
        _ => None,
    };
    let inodes: HashSet<u64> = threads.iter().filter_map(unix).collect();
    let mut inodes: Vec<u64> = inodes.into_iter().collect();
    inodes.sort_unstable();
    let peers = unix::peers(proc, &inodes);
    let mut bound: HashMap<String, Vec<u64>> = HashMap::new();
    let mut ends_of = |asks: &Asks| -> Vec<End> {
        match asks {
            Asks::Unix { inode, end } => match (peers.get(inode), &end.place) {
                (Some(peer), _) => vec![End::Socket(*peer)],
                (None, Some(place)) => {
                    let known = bound.entry(place.clone()).or_insert_with(|| unix::bound_at(proc, place));
                    known.iter().copied().map(End::Socket).collect()
                }
                (None, None) => vec![],
            },
            Asks::Pipe(end) | Asks::Server(end) => vec![end.clone()],
            Asks::Fuse(_) => vec![End::FuseDevice],
        }
    };
    let ends: Vec<Vec<End>> =
        threads.iter().map(|looked| looked.asks.as_ref().map(&mut ends_of).unwrap_or_default()).collect();
    let found = Found::look(&ends.iter().flatten().cloned().collect());
    for (looked, ends) in threads.iter_mut().zip(ends) {
        if let Some(asks) = looked.asks.take() {
            name(&mut looked.seen, process, &asks, &ends, &found);
        }
    }
}

/// Names the processes at the other end of what a thread waits for.
fn name(seen: &mut SeenThread, process: u32, asks: &Asks, ends: &[End], found: &Found) {
    let Some(local) = &mut seen.local else { return };
    let mut pids: Vec<u32> = ends.iter().flat_map(|end| found.at(end)).copied().collect();
    pids.sort_unstable();
    pids.dedup();
    if let Asks::Fuse(serves) = asks {
        let comm = serves.as_ref().map(|serves| serves.chars().take(COMM).collect::<String>());
        pids.retain(|&pid| pid != process && comm.as_ref().is_none_or(|comm| ends::is_called(pid, comm)));
        // Which of several serves this mount is not known.
        pids.truncate(if pids.len() == 1 { 1 } else { 0 });
    }
    local.ends = ends::named(&pids, process);
    local.ends_cut = found.cut;
    match asks {
        // Threads of a process wake each other by such pipes and pairs.
        Asks::Unix { .. } | Asks::Pipe(_) if local.ends.is_empty() && pids.contains(&process) => {
            seen.local = None;
            seen.posture = Posture::Threads;
        }
        Asks::Unix { end, .. } if local.ends.is_empty() && end.process > 1 && end.process != process => {
            local.ends = ends::named(&[end.process], process);
        }
        // Nothing is known of the other end: it may listen, or be a pair.
        Asks::Unix { end, .. } if local.ends.is_empty() && end.place.is_none() => seen.local = None,
        _ => {}
    }
}
