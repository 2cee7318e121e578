//! A process's threads: what each is doing, and what its system call waits on; the most telling ones first, so that
//! the one that holds the answer is not cut off.

use std::{fs, path::Path};

use super::{
    ProcessRef,
    call::{Call, memory, stack},
    local::{self, Looked},
    mounts::Mounts,
    sockets::{Descriptor, Sockets},
};
use crate::{
    fact::Thread,
    known::context::{Posture, SeenThread},
};

/// Threads looked at, at most; the one asked about always is.
const THREADS: usize = 256;
/// Threads kept, at most.
const KEPT: usize = 32;
/// Descriptors of one poll or select described, at most.
const DESCRIPTORS: usize = 8;

/// The threads, the one asked about first, and how many were left out.
pub(super) fn look(proc: &Path, request: ProcessRef, sockets: &Sockets) -> (Vec<SeenThread>, u32) {
    let Ok(entries) = fs::read_dir(proc.join("task")) else { return (vec![], 0) };
    let mut tids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    tids.sort_by_key(|&tid| (tid != request.thread, tid));
    let all = tids.len();
    tids.truncate(THREADS);
    let mounts = Mounts::of(proc);
    let look = |tid| thread(proc, request, tid, sockets, &mounts);
    let mut looked: Vec<Looked> = tids.into_iter().filter_map(look).collect();
    local::name_ends(proc, request.process, &mut looked);
    let gone = all.min(THREADS) - looked.len();
    let mut threads: Vec<SeenThread> = looked.into_iter().map(|looked| looked.seen).collect();
    threads.sort_by_key(|seen| (seen.shown.tid != request.thread, dullness(seen), seen.shown.tid));
    threads.truncate(KEPT);
    let left_out = all - gone - threads.len();
    (threads, u32::try_from(left_out).unwrap_or(u32::MAX))
}

/// How little a thread shows of why its process does not go on.
fn dullness(seen: &SeenThread) -> u8 {
    match seen.posture {
        _ if seen.local.is_some() => 0,
        Posture::Disk | Posture::Stopped | Posture::Frozen => 1,
        Posture::Descriptors if seen.accepts => 6,
        Posture::Descriptors | Posture::Processes | Posture::Other => 2,
        Posture::Running | Posture::Unknown => 3,
        Posture::Sleep => 4,
        Posture::EventLoop => 5,
        Posture::Threads => 7,
    }
}

fn thread(proc: &Path, request: ProcessRef, tid: u32, sockets: &Sockets, mounts: &Mounts) -> Option<Looked> {
    let task = proc.join("task").join(tid.to_string());
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let comm = fs::read_to_string(task.join("comm")).unwrap_or_default().trim_end().to_owned();
    let wchan = fs::read_to_string(task.join("wchan")).ok().filter(|name| !name.is_empty() && name != "0");
    // The compiler's clones of a function are that function.
    let wchan = wchan.map(|name| name.split('.').next().unwrap_or(&name).to_owned());
    let call = fs::read_to_string(task.join("syscall")).ok().and_then(|text| Call::parse(&text));
    let mut seen = SeenThread {
        shown: Thread {
            tid,
            comm,
            state: state.to_string(),
            wchan,
            syscall: call.as_ref().map(|call| call.name.to_owned()),
            ..Thread::default()
        },
        ..SeenThread::default()
    };
    if tid == request.thread || tid == request.process {
        seen.shown.stack = stack(&task);
    }
    let fds = call.as_ref().map(|call| waits(&mut seen, call, request.process, sockets)).unwrap_or_default();
    seen.posture = match state {
        'R' => Posture::Running,
        'D' if !seen.shown.wchan.as_deref().is_some_and(is_freezer) => Posture::Disk,
        'T' | 't' => Posture::Stopped,
        _ if seen.shown.wchan.as_deref().is_some_and(is_freezer) => Posture::Frozen,
        _ => seen.posture,
    };
    let process = local::Process { proc, id: request.process, sockets, mounts };
    // One that runs waits for nothing.
    let asks = (state != 'R').then(|| process.asks(&task, call.as_ref(), &fds, &mut seen)).flatten();
    Some(Looked { seen, asks })
}

/// Where the tasks of a frozen control group sleep: version 2, and version 1.
fn is_freezer(wchan: &str) -> bool {
    matches!(wchan, "do_freezer_trap" | "__refrigerator")
}

/// What a call waits for; the descriptors that are waited on.
fn waits(seen: &mut SeenThread, call: &Call, process: u32, sockets: &Sockets) -> Vec<u32> {
    let [first, second, third, ..] = call.args;
    let one = vec![first as u32];
    let fds: Vec<u32> = match call.name {
        "read" | "readv" | "recvfrom" | "recvmsg" | "recvmmsg" | "write" | "writev" | "sendto"
        | "sendmsg" | "connect" | "accept" | "accept4" | "sendfile" | "splice" => {
            seen.posture = Posture::Descriptors;
            one
        }
        "poll" | "ppoll" => {
            seen.posture = Posture::Descriptors;
            polled(process, first, second)
        }
        "select" | "pselect6" => {
            seen.posture = Posture::Descriptors;
            selected(process, first, [second, third])
        }
        "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "io_uring_enter" | "io_getevents" => {
            seen.posture = Posture::EventLoop;
            return vec![];
        }
        "futex" | "futex_wait" | "futex_waitv" => {
            seen.posture = Posture::Threads;
            return vec![];
        }
        "wait4" | "waitid" => {
            seen.posture = Posture::Processes;
            let pid = i32::try_from(first as i64).unwrap_or(-1);
            if call.name == "wait4" && pid > 0 {
                seen.shown.waits_on.push(format!("process {pid}"));
            }
            return vec![];
        }
        "nanosleep" | "clock_nanosleep" | "pause" | "restart_syscall" => {
            seen.posture = Posture::Sleep;
            return vec![];
        }
        _ => {
            seen.posture = Posture::Other;
            return vec![];
        }
    };
    // poll() and select() without descriptors are a way to sleep.
    if fds.is_empty() {
        seen.posture = Posture::Sleep;
    }
    for &fd in &fds {
        let what = sockets.descriptor(fd);
        match &what {
            Descriptor::Socket(socket) if socket.listens() => seen.accepts = true,
            Descriptor::Socket(socket) if socket.cookie != 0 => seen.sockets.push(socket.cookie),
            Descriptor::Pipe => seen.posture = Posture::Processes,
            Descriptor::EventFd => seen.posture = Posture::Threads,
            _ => {}
        }
        seen.shown.waits_on.push(what.to_string());
    }
    if !seen.sockets.is_empty() {
        seen.posture = Posture::Descriptors;
    }
    fds
}

/// Descriptors of a `struct pollfd` array that are waited for.
fn polled(process: u32, array: u64, count: u64) -> Vec<u32> {
    let count = usize::try_from(count).unwrap_or(0).min(DESCRIPTORS);
    let bytes = memory(process, array, count * 8);
    bytes
        .chunks_exact(8)
        .filter_map(|pollfd| u32::try_from(i32::from_ne_bytes(*pollfd.first_chunk()?)).ok())
        .collect()
}

/// Descriptors of the read and write sets of a select.
fn selected(process: u32, highest: u64, sets: [u64; 2]) -> Vec<u32> {
    let bytes = usize::try_from(highest).unwrap_or(0).min(1024).div_ceil(64) * 8;
    let mut fds: Vec<u32> = sets
        .into_iter()
        .filter(|&set| set != 0)
        .flat_map(|set| memory(process, set, bytes))
        .enumerate()
        .flat_map(|(at, byte)| {
            let at = (at % bytes.max(1)) as u32;
            (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at * 8 + bit)
        })
        .collect();
    fds.sort_unstable();
    fds.dedup();
    fds.truncate(DESCRIPTORS);
    fds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_poll_and_select_are_found_in_memory() {
        let me = std::process::id();
        let pollfds: [[i32; 2]; 3] = [[5, 1], [-1, 1], [9, 1]];
        assert_eq!(polled(me, pollfds.as_ptr() as u64, 3), [5, 9]);
        let set: [u64; 2] = [1 << 3 | 1 << 63, 1];
        assert_eq!(selected(me, 65, [set.as_ptr() as u64, 0]), [3, 63, 64]);
        assert_eq!(polled(me, 8, 3), [0u32; 0]);
    }
}
