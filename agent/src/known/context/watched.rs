//! The connections of a process that was asked for, looked at again and again: on which the peer is next, and which
//! thread waits for it.

use ebpf_probes::abi::{Netns, Owner};
use serde::{Deserialize, Serialize};

use super::{Posture, SeenSocket, SeenThread, Snapshot};
use crate::records;

/// The established connections a process made, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The process.
    pub process: u32,
    /// Its name.
    pub comm: String,
    /// Its network namespace.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// Its connections; empty once it is gone.
    pub connections: Vec<WatchedConnection>,
    /// Not all of them could be looked at.
    pub cut: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchedConnection {
    /// The kernel's own account of it.
    #[serde(flatten)]
    pub socket: SeenSocket,
    /// The thread that waits on it.
    pub thread: Option<SeenThread>,
    /// How many other connections that thread waits on.
    #[serde(default)]
    pub others: u32,
    /// No thread was seen to; an event loop of the process may.
    pub event_loop: bool,
}

impl Watched {
    /// What a look at a process shows of it.
    pub fn of(snapshot: &Snapshot, comm: String, netns: Netns) -> Self {
        let made = |socket: &&SeenSocket| socket.is_established() && socket.inbound != Some(true);
        let loops = snapshot.threads.iter().any(|thread| thread.posture == Posture::EventLoop);
        let connection = |socket: &SeenSocket| {
            let waits = |thread: &&SeenThread| thread.awaits(socket);
            let thread = snapshot.threads.iter().find(waits).cloned();
            let held = snapshot.threads.iter().any(|thread| thread.sockets.contains(&socket.cookie));
            let waits_on = |other: &&SeenSocket| {
                other.cookie != socket.cookie
                    && thread.as_ref().is_some_and(|thread| thread.sockets.contains(&other.cookie))
            };
            let others = snapshot.sockets.iter().filter(waits_on).count() as u32;
            WatchedConnection { socket: socket.clone(), event_loop: loops && !held, others, thread }
        };
        Self {
            boot_ns: snapshot.boot_ns,
            process: snapshot.process,
            comm,
            netns,
            connections: snapshot.sockets.iter().filter(made).map(connection).collect(),
            cut: snapshot.sockets_cut || snapshot.unfinished,
        }
    }

    /// The process, as records name one.
    pub fn owner(&self) -> Owner {
        Owner {
            process: self.process,
            thread: self.process,
            comm: records::comm_bytes(&self.comm),
            netns: self.netns,
            ..Owner::default()
        }
    }
}
