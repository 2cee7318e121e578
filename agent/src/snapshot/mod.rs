//! What a process is doing at this moment: its threads (state, kernel function, system call and what that call waits
//! on, with who is to answer there), its TCP sockets, and the limits it runs under. Taken once per incident, when the correlation asks for it,
//! from `/proc` and by looking through duplicates of the process's sockets: nothing is stopped, nothing
//! is attached to. A few milliseconds for a process of ordinary size, and bounded for any.

mod call;
mod cgroup;
pub mod chain;
mod descriptors;
mod ends;
mod expendable;
mod holder;
mod local;
mod mounts;
mod ports;
mod program;
mod sockets;
pub mod started;
mod tables;
mod threads;
mod unix;
mod watched;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

pub use expendable::unfinished as looks_unfinished;
pub use watched::connections;

use crate::known::{context::Snapshot, request::ProcessRef};

/// How long a look may take: it is awaited.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks, and comes back within a second. A process that is gone gives an empty snapshot; one at which looking did not
/// end in time an empty one that says so.
pub fn take(request: ProcessRef, boot_ns: u64) -> Snapshot {
    expendable::within(PATIENCE, move || look(request, boot_ns)).unwrap_or_else(|| Snapshot {
        boot_ns,
        process: request.process,
        cookie: request.cookie,
        unfinished: true,
        sockets_cut: true,
        ..Snapshot::default()
    })
}

fn look(request: ProcessRef, boot_ns: u64) -> Snapshot {
    let began = Instant::now();
    let (process, sockets) = holder::of(request.process, request.cookie);
    let proc = PathBuf::from(format!("/proc/{process}"));
    let asked = if process == request.process { 0 } else { request.process };
    let request = ProcessRef { process, ..request };
    let (threads, threads_left_out) = threads::look(&proc, request, &sockets);
    let accepted = (sockets.complete() && request.cookie != 0).then(|| sockets.has(request.cookie));
    Snapshot {
        boot_ns,
        process,
        asked,
        threads,
        threads_left_out,
        sockets_cut: !sockets.complete(),
        accepted: if sockets.has(request.cookie) { Some(true) } else { accepted },
        cookie: request.cookie,
        sockets: sockets.connected(began),
        loaded: program::look(&proc),
        limits: cgroup::look(&proc),
        descriptors: descriptors::look(&proc, &sockets),
        listeners: sockets.listeners(),
        unfinished: false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;
    use crate::known::context::{LocalObject, Posture};

    #[test]
    fn a_thread_that_reads_from_a_socket_is_seen_waiting_on_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let cookie = rustix::net::sockopt::socket_cookie(&near).expect("a socket");
        let (far, _) = listener.accept().expect("it connected");
        let (report, reported) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            report
                .send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
                .expect("the test waits");
            near.read(&mut [0; 1]).expect("the peer closes")
        });
        let request =
            ProcessRef { process: std::process::id(), thread: reported.recv().expect("it began"), cookie };
        let deadline = Instant::now() + Duration::from_secs(10);
        let seen = loop {
            let seen = take(request, 1);
            if seen.threads[0].sockets == [cookie] {
                break seen;
            }
            assert!(Instant::now() < deadline, "{seen:#?}");
        };
        assert_eq!(seen.accepted, Some(true));
        let thread = &seen.threads[0];
        assert_eq!((thread.shown.tid, thread.posture), (request.thread, Posture::Descriptors));
        assert!(thread.shown.waits_on[0].starts_with("TCP 127.0.0.1:"), "{thread:?}");
        assert!(seen.sockets.iter().any(|socket| socket.cookie == cookie && socket.state == 1));
        drop(far);
        assert_eq!(reader.join().expect("no panic"), 0);
    }

    #[test]
    fn a_thread_that_reads_from_a_pipe_is_seen_with_the_process_that_should_write() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut pipe = child.stdout.take().expect("piped");
        let (report, reported) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            report
                .send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs())
                .expect("the test waits");
            pipe.read(&mut [0; 1]).expect("the child ends")
        });
        let thread = reported.recv().expect("it began");
        let request = ProcessRef { process: std::process::id(), thread, cookie: 0 };
        let deadline = Instant::now() + Duration::from_secs(10);
        // Another test's child may hold the pipe until it runs its own program.
        let wait = loop {
            let seen = take(request, 1);
            let local = seen.threads[0].local.clone();
            match local {
                Some(wait) if wait.ends.len() == 1 => break wait,
                other => assert!(Instant::now() < deadline, "{other:#?}"),
            }
        };
        assert_eq!((&wait.what, wait.sends), (&LocalObject::Pipe, false));
        assert_eq!((wait.ends[0].pid, wait.ends[0].comm.as_str()), (child.id(), "sleep"));
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert_eq!(reader.join().expect("no panic"), 0);
    }

    #[test]
    fn the_limits_and_listeners_of_a_process_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let local = listener.local_addr().expect("bound");
        let _queued = TcpStream::connect(local).expect("it listens");
        let seen = take(ProcessRef { process: std::process::id(), thread: 0, cookie: 0 }, 1);
        let descriptors = seen.descriptors.expect("its own");
        assert!(descriptors.open > 3 && descriptors.limit >= descriptors.open, "{descriptors:?}");
        let queue = seen.listeners.iter().find(|listener| listener.local == local);
        assert!(queue.is_some_and(|queue| queue.queued == 1 && queue.limit > 1), "{:?}", seen.listeners);
    }

    #[test]
    fn a_process_that_is_gone_gives_an_empty_snapshot() {
        let mut child = std::process::Command::new("true").spawn().expect("it runs");
        child.wait().expect("our child");
        let seen = take(ProcessRef { process: child.id(), thread: 0, cookie: 1 }, 7);
        assert_eq!((seen.threads.len(), seen.sockets.len(), seen.boot_ns), (0, 0, 7));
    }
}
