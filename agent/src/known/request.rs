//! What rules ask for: plain values, so that a request can be recorded, or answered by another process. Nothing here
//! holds a descriptor or a path; a live session reads the system and answers with [`Context`](super::context::Context).

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Serialize};

/// What a rule asks for, to be read once, now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "request", content = "of", rename_all = "snake_case")]
pub enum Request {
    /// A process: answered with a [`Snapshot`](super::context::Snapshot).
    Process(ProcessRef),
    /// The devices and gateways of a network namespace: answered with a [`Network`](super::context::Network).
    #[serde(with = "super::netns")]
    Network(Netns),
    /// The same, and the neighbour tables with their biggest users.
    #[serde(with = "super::netns")]
    Tables(Netns),
    /// Records of clients' TLS sessions, in either mode, until this moment (CLOCK_BOOTTIME in nanoseconds). Nothing
    /// answers.
    Sessions(u64),
    /// Processes that were started while the clock was wrong: answered with [`Exposed`](super::context::Exposed).
    Exposed(Exposure),
    /// Who on this machine has a neighbour's address or MACs: answered with [`Holders`](super::context::Holders).
    Holders(Sought),
    /// The reference clocks, now: answered with readings as they come.
    References,
    /// The last answers that DNS servers gave, where the kernel holds them back: they come as records.
    Answers,
    /// The route to a destination and the local ports towards it: answered with a [`Reach`](super::context::Reach).
    Reach(Target),
    /// Who listens at an address of a network namespace: answered with [`Listeners`](super::context::Listeners).
    Listeners(Place),
    /// Who answers for a neighbour, of all on its link: where questions may be sent (`--probe-neighbours`), answered a second
    /// later with [`Answered`](super::context::Answered); else by nothing.
    Ask(Sought),
}

/// An address, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The network namespace.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// The address.
    pub address: std::net::IpAddr,
}

/// A destination, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The network namespace.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// A process that lives there, 0 for none.
    pub process: u32,
    /// The address.
    pub address: std::net::IpAddr,
    /// The port.
    pub port: u16,
}

/// A neighbour whose holders are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sought {
    /// The namespace it is a neighbour in.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// The device it should be behind, by its index.
    pub ifindex: u32,
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Its MACs, as far as any are known.
    pub macs: Vec<[u8; 8]>,
}

/// Which processes are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exposure {
    /// Those that live and began between two moments of these, CLOCK_BOOTTIME in nanoseconds.
    pub windows: Vec<(u64, u64)>,
    /// Those known, of which the ones that are gone are asked for: process id, and when it began (0: not known).
    pub known: Vec<(u32, u64)>,
}

/// A process to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The process.
    pub process: u32,
    /// The thread that matters, 0 for none.
    pub thread: u32,
    /// A socket that should be the process's, 0 for none.
    pub cookie: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_survives_being_written_and_read() {
        let netns = Netns { inode: 7, generation: 2 };
        let requests = [
            Request::Process(ProcessRef { process: 1, thread: 2, cookie: u64::MAX }),
            Request::Network(netns),
            Request::Tables(Netns::numbered(7)),
            Request::Sessions(u64::MAX),
            Request::Exposed(Exposure { windows: vec![(1, 2)], known: vec![(3, 0)] }),
            Request::Holders(Sought { netns, ifindex: 1, address: [1; 16], macs: vec![[2; 8]] }),
            Request::Ask(Sought { netns, ifindex: 1, address: [1; 16], macs: vec![] }),
            Request::References,
            Request::Answers,
            Request::Reach(Target { netns, process: 0, address: [192, 0, 2, 1].into(), port: 80 }),
            Request::Listeners(Place { netns, address: [192, 0, 2, 1].into() }),
        ];
        for request in requests {
            let written = serde_json::to_string(&request).expect("written");
            assert_eq!(serde_json::from_str::<Request>(&written).expect(&written), request, "{written}");
        }
    }
}
