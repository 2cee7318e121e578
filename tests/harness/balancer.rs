//! A second program on `connect()` and `sendmsg()`, as socket-level balancers have: it gives sockets another
//! destination than their program asked for. Attached to the machine's cgroup root, so it looks for one address only,
//! which must be the test's own.

use std::{net::SocketAddr, process::Command};

use super::{Running, bpf::raise_memlock, deadline};

/// Attaches it; it is gone when what is returned is dropped.
#[track_caller]
pub fn balance(asked: SocketAddr, backend: SocketAddr) -> Running {
    const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/balancer.pl");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup v2 hierarchy");
    let root = root.split(' ').nth(4).expect("a mount point");
    raise_memlock();
    let mut perl = Command::new("perl");
    perl.args([PROGRAM, root]);
    for end in [asked, backend] {
        perl.args([end.ip().to_string(), end.port().to_string()]);
    }
    let running = Running::spawn(&mut perl);
    let line = running.next_line(deadline()).ok().flatten();
    assert_eq!(line.as_deref(), Some("attached"), "{}", running.stderr());
    running
}
