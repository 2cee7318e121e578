//! What a thread waits for on this machine, beside connects, peers and other threads: who is to answer at the other
//! end of a unix socket or a pipe, which file system does not, or which DNS server is asked, whenever that began. Whom that makes the culprit is the
//! rules' business.

use serde::{Deserialize, Serialize};

use crate::text::shown;

/// What one thread waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalWait {
    /// What it is.
    pub what: LocalObject,
    /// It sends or writes, and what takes that is full; else it waits for what is sent.
    #[serde(default)]
    pub sends: bool,
    /// The processes at the other end, or the one that serves the file system, the first few; empty when none was
    /// found.
    #[serde(default)]
    pub ends: Vec<SeenProcess>,
    /// Not all processes could be looked through.
    #[serde(default)]
    pub ends_cut: bool,
}

impl LocalWait {
    /// It waits for what comes by the network.
    pub fn is_network(&self) -> bool {
        matches!(self.what, LocalObject::DnsServer { .. })
    }
}

/// What a thread may wait on without a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum LocalObject {
    /// A unix socket.
    UnixSocket {
        /// Where the other end is bound; `@name` in the abstract namespace; `None` for a pair without a name.
        path: Option<String>,
    },
    /// A pipe or a FIFO.
    Pipe,
    /// A file system that another machine or a process answers for.
    FileSystem(SeenMount),
    /// A DNS server, by a UDP socket that is connected to it: as long as there is one, a lookup is under way.
    DnsServer {
        /// Its address, as the socket has it.
        server: std::net::SocketAddr,
    },
}

/// A file system as `/proc/PID/mountinfo` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMount {
    /// Which family it is of.
    pub family: Family,
    /// Its type: `nfs4`, `fuse.sshfs`; `None` when it is not known which mount it is.
    #[serde(default)]
    pub fs_type: Option<String>,
    /// Where it is mounted.
    #[serde(default)]
    pub point: Option<String>,
    /// What is mounted there.
    #[serde(default)]
    pub source: Option<String>,
    /// The file or directory, when it is known.
    #[serde(default)]
    pub path: Option<String>,
    /// The thread was seen to sleep in this file system, not only in a call on a file of it.
    #[serde(default)]
    pub sleeps_in_it: bool,
}

/// File systems that do not answer by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// FUSE, and virtiofs, which speaks the same: a process answers.
    #[default]
    Fuse,
    /// NFS.
    Nfs,
    /// CIFS, SMB.
    Cifs,
    /// CephFS.
    Ceph,
    /// 9P.
    Plan9,
}

impl Family {
    /// As it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fuse => "FUSE",
            Self::Nfs => "NFS",
            Self::Cifs => "SMB",
            Self::Ceph => "CephFS",
            Self::Plan9 => "9P",
        }
    }
}

/// Another process, as it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenProcess {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its state as `/proc/PID/stat` writes it.
    pub state: String,
    /// It runs the program of the process that waits, and one is the other's parent: they may hand each other work.
    #[serde(default)]
    pub related: bool,
}

impl SeenProcess {
    /// As people call it: `nscd[71]`.
    pub fn called(&self) -> String {
        format!("{}[{}]", shown(&self.comm), self.pid)
    }

    /// Stopped by a signal or a debugger.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state.as_str(), "T" | "t")
    }
}

/// Descriptors of a process against its limit (`RLIMIT_NOFILE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorUse {
    /// Open descriptors of those it may have.
    pub open: u64,
    /// How many it may have: at that number `accept` fails (`EMFILE`).
    pub limit: u64,
    /// How far it may raise that itself.
    pub hard: u64,
}

/// A socket that listens, and its accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenListener {
    /// Its address.
    pub local: std::net::SocketAddr,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may.
    pub limit: u32,
}
