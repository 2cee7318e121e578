//! The connections of a process, as they are now.

use std::{fs, path::PathBuf};

use ebpf_probes::abi::Netns;

use super::take;
use crate::{
    known::{context::Watched, request::ProcessRef},
    namespaces,
    time::boot_ns,
};

/// Looks at them, within a second. Of a process that is gone there are none.
pub fn connections(process: u32) -> Watched {
    let comm = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let place = PathBuf::from(format!("/proc/{process}/ns/net"));
    let netns = namespaces::identify(vec![place]).first().map_or_else(Netns::default, |(_, netns)| *netns);
    let snapshot = take(ProcessRef { process, thread: 0, cookie: 0 }, boot_ns());
    Watched::of(&snapshot, comm.trim_end().to_owned(), netns)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_connections_that_a_process_made_are_seen_and_those_made_to_it_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("bound");
        let near = TcpStream::connect(at).expect("it listens");
        let (far, _) = listener.accept().expect("it connected");
        let own = near.local_addr().expect("connected");
        let seen = connections(std::process::id());
        let to = |local| seen.connections.iter().any(|connection| connection.socket.local == local);
        assert!(to(own), "{:?}", seen.connections);
        assert!(!to(far.local_addr().expect("connected")), "{:?}", seen.connections);
    }
}
