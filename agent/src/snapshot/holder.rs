//! Which process holds a connection: the one asked about, or, of a service that forks for each connection or
//! has several workers, a child of it or of its parent. Bounded; a process that is not looked at is not found.

use std::{fs, path::PathBuf};

use super::sockets::Sockets;
use crate::observe::parent_and_start;

/// Children looked at, at most: the youngest, for a child made for a connection is as young as that.
const CHILDREN: usize = 32;
/// Sockets of each looked at, at most.
const SOCKETS: usize = 64;

/// The sockets of the process that has the socket `cookie`, and its id; of the process asked about when
/// no process is found to have it.
pub(super) fn of(process: u32, cookie: u64) -> (u32, Sockets) {
    let own = Sockets::open(process, &PathBuf::from(format!("/proc/{process}")));
    if cookie == 0 || own.has(cookie) || !own.complete() {
        return (process, own);
    }
    let mut relatives = children(process);
    if let Some((parent, _)) = parent_and_start(process)
        && parent > 1
        && same_program(parent, process)
    {
        relatives.extend(children(parent));
    }
    relatives.retain(|&pid| pid != process && same_program(pid, process));
    relatives.sort_unstable_by(|a, b| b.cmp(a));
    relatives.dedup();
    for pid in relatives.into_iter().take(CHILDREN) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        if Sockets::open_some(pid, &proc, SOCKETS).has(cookie) {
            return (pid, Sockets::open(pid, &proc));
        }
    }
    (process, own)
}

/// Children of any thread of a process.
fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks
        .take(CHILDREN)
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Children that serve run what their parent runs, unless a super-server started them: then their standard
/// input is the connection.
fn same_program(one: u32, other: u32) -> bool {
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let input = |pid: u32| fs::read_link(format!("/proc/{pid}/fd/0")).ok();
    (exe(one).is_some() && exe(one) == exe(other))
        || input(one).is_some_and(|link| link.to_string_lossy().starts_with("socket:"))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_child_that_holds_a_connection_is_found_and_none_when_none_does() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (far, _) = listener.accept().expect("it connected");
        let cookie = rustix::net::sockopt::socket_cookie(&far).expect("a socket");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(far)))
            .spawn()
            .expect("it runs");
        let me = std::process::id();
        assert_eq!(of(me, cookie).0, child.id());
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert_eq!(of(me, cookie).0, me);
        drop(near);
    }
}
