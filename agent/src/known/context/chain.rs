//! Who waits for whom on this machine, from the processes asked about on: as far as sockets, pipes, file systems and
//! children lead from one process to the next.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Quota, Snapshot};

/// Processes and the waits that lead from one to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Those asked about.
    pub targets: Vec<u32>,
    /// All that were looked at, those asked about first.
    pub looked_at: Vec<Looked>,
    /// Which waits lead on.
    pub links: Vec<Link>,
    /// There was more than is followed.
    pub cut: bool,
}

/// A process as it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Looked {
    /// Its name.
    pub comm: String,
    /// Its threads and sockets.
    pub snapshot: Snapshot,
    /// Its threads that wait for a datagram of one peer alone: the thread, and that peer.
    pub datagrams: Vec<(u32, SocketAddr)>,
    /// It is in another network namespace than culprit.
    #[serde(default)]
    pub elsewhere: bool,
    /// How often its CPU quota was used up while it was looked at, if it has one.
    pub quota: Option<Quota>,
}

/// A process waits for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The process that waits.
    pub process: u32,
    /// Its thread; `None`: its event loop, or whichever thread.
    pub thread: Option<u32>,
    /// The process it waits for.
    pub on: u32,
    /// What is between them.
    pub by: Between,
}

/// What is between two processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Between {
    /// What the thread waits for locally, as its snapshot says it: a unix socket, a pipe, a file system.
    Local,
    /// A TCP connection; the other process has its other end.
    Tcp(SocketAddr),
    /// Datagrams; the other process receives at this address.
    Udp(SocketAddr),
    /// The thread waits for its child to end.
    Child,
}

impl Chain {
    /// The processes, those asked about first.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.looked_at.iter().map(|looked| looked.snapshot.process)
    }

    /// A process as it was looked at.
    pub fn of(&self, process: u32) -> Option<&Looked> {
        self.looked_at.iter().find(|looked| looked.snapshot.process == process)
    }

    /// Where the waits of a thread lead; of no thread in particular with `None`.
    pub fn from(&self, process: u32, thread: Option<u32>) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| (link.process, link.thread) == (process, thread))
    }
}
