//! What a process was doing at one moment: its threads, its sockets, what it has loaded and what holds it back.

use serde::{Deserialize, Serialize};

use super::local::{DescriptorUse, LocalWait, SeenListener};
use crate::fact::Thread;

/// The threads and TCP sockets of a process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The process; of a service that forks for each connection the child that holds the socket asked about.
    pub process: u32,
    /// The process that was asked about, when it is another one; else 0.
    #[serde(default)]
    pub asked: u32,
    /// Looking at it did not end in time, which may be for the reason for which it hangs; nothing is known of it.
    #[serde(default)]
    pub unfinished: bool,
    /// Its threads, the one asked about first, then the most telling; empty when the process was gone.
    pub threads: Vec<SeenThread>,
    /// Threads left out.
    pub threads_left_out: u32,
    /// Its TCP sockets that are connecting or connected, and those its threads wait on.
    pub sockets: Vec<SeenSocket>,
    /// Not all sockets could be looked at.
    pub sockets_cut: bool,
    /// The socket asked about belongs to the process: it was accepted.
    pub accepted: Option<bool>,
    /// Cookie of that socket; 0 in recordings of old.
    #[serde(default)]
    pub cookie: u64,
    /// What its program has loaded.
    #[serde(default)]
    pub loaded: Loaded,
    /// What its control group holds it to.
    #[serde(default, alias = "held")]
    pub limits: CgroupLimits,
    /// Its open descriptors against its limit.
    #[serde(default)]
    pub descriptors: Option<DescriptorUse>,
    /// Its sockets that listen for TCP.
    #[serde(default)]
    pub listeners: Vec<SeenListener>,
}

/// What a program has loaded, as `/proc/PID/maps` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The list was read to its end.
    pub known: bool,
    /// A C library is among it: a program without one carries its TLS, if it has any, inside itself.
    pub dynamic: bool,
    /// The first TLS library, by its file's name.
    pub tls: Option<String>,
    /// The runtime that runs the program.
    pub runtime: Option<Runtime>,
}

/// A language runtime, recognised by its library and not by how the program is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Runtime {
    /// .NET (`libcoreclr.so`), with its major version when the library lies in a shared framework.
    Dotnet {
        /// 8 for `…/Microsoft.NETCore.App/8.0.11/libcoreclr.so`.
        major: Option<u32>,
    },
    /// Java (`libjvm.so`).
    Java,
    /// Node (`libnode.so`, or its own executable).
    Node,
}

impl Quota {
    /// What has happened since an earlier reading of the same quota.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            periods: self.periods.saturating_sub(before.periods),
            throttled: self.throttled.saturating_sub(before.throttled),
            ..*self
        }
    }

    /// The share of periods in which it was used up, in percent.
    pub fn share(&self) -> u64 {
        self.throttled.saturating_mul(100).checked_div(self.periods).unwrap_or(0)
    }
}

impl Loaded {
    /// Whether the program can speak TLS; `None` when that is not known by what it has loaded.
    pub fn speaks_tls(&self) -> Option<bool> {
        match self {
            Self { tls: Some(_), .. } | Self { runtime: Some(_), .. } => Some(true),
            Self { known: true, dynamic: true, .. } => Some(false),
            _ => None,
        }
    }
}

/// What a process's control group holds it to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// It is frozen.
    pub frozen: bool,
    /// Its CPU quota, if it has one.
    pub quota: Option<Quota>,
    /// The group that is frozen, as a directory.
    #[serde(default)]
    pub frozen_group: Option<String>,
    /// The group whose quota that is, as a directory.
    #[serde(default)]
    pub quota_group: Option<String>,
    /// The memory above which it is slowed.
    #[serde(default)]
    pub memory: Option<MemoryHigh>,
}

/// `memory.high` of a group, and what it uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryHigh {
    /// Memory in use.
    pub current_bytes: u64,
    /// Above this its processes are slowed.
    pub high_bytes: u64,
    /// The group, as a directory.
    pub group: String,
}

impl MemoryHigh {
    /// What may still be used.
    pub fn room(&self) -> u64 {
        self.high_bytes.saturating_sub(self.current_bytes)
    }
}

/// A CPU quota (`cpu.max`, or `cpu.cfs_quota_us`) and how often it was used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// CPU time allowed in each period, microseconds.
    pub allowed_us: u64,
    /// Length of a period, microseconds.
    pub period_us: u64,
    /// Periods so far in which something ran.
    pub periods: u64,
    /// Those of them in which the quota was used up.
    pub throttled: u64,
}

/// A thread, and what it waits on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeenThread {
    /// As incidents show it.
    #[serde(flatten)]
    pub shown: Thread,
    /// What kind of waiting this is.
    pub posture: Posture,
    /// Cookies of the sockets it waits on, those that listen left out.
    #[serde(default)]
    pub sockets: Vec<u64>,
    /// It waits for connections: some socket it waits on listens.
    #[serde(default)]
    pub accepts: bool,
    /// What it waits for on this machine, beside the network and other threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalWait>,
}

impl SeenThread {
    /// What a thread was seen doing: `asleep in poll on … (do_sys_poll)`.
    pub fn words(&self) -> String {
        let seen = &self.shown;
        let mut words = match self.posture {
            Posture::Running => "running".to_owned(),
            Posture::Disk => "in uninterruptible sleep".into(),
            Posture::Stopped => "stopped".into(),
            Posture::Frozen => "frozen".into(),
            _ => "asleep".into(),
        };
        if let Some(call) = &seen.syscall {
            words.push_str(&format!(" in {call}"));
        }
        if !seen.waits_on.is_empty() {
            words.push_str(&format!(" on {}", seen.waits_on.join(", ")));
        }
        match self.posture {
            Posture::EventLoop => words.push_str(" (its event loop)"),
            Posture::Threads => words.push_str(" (waiting for another thread)"),
            _ => {}
        }
        match &seen.wchan {
            Some(wchan) if seen.syscall.is_none() => words.push_str(&format!(" in the kernel's {wchan}")),
            _ => {}
        }
        words
    }
}

/// What a thread is doing, as far as blame is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posture {
    /// It was not known.
    #[default]
    Unknown,
    /// On a CPU, or ready to be.
    Running,
    /// Uninterruptible: usually a disk.
    Disk,
    /// Stopped by a signal or a debugger.
    Stopped,
    /// Its control group is frozen.
    Frozen,
    /// In a call on particular descriptors: read, connect, poll, select.
    Descriptors,
    /// In an event loop: epoll or io_uring.
    EventLoop,
    /// For another thread: a futex, an eventfd.
    Threads,
    /// For another process: wait4, a pipe.
    Processes,
    /// For time to pass.
    Sleep,
    /// In some other call.
    Other,
}

/// A TCP socket, from the kernel's own account of it (`struct tcp_info`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenSocket {
    /// Its cookie.
    pub cookie: u64,
    /// Its descriptor.
    pub fd: u32,
    /// State as include/net/tcp_states.h numbers it: 1 established, 2 SYN sent, …
    pub state: u8,
    /// Its own address.
    pub local: std::net::SocketAddr,
    /// The peer's.
    pub remote: std::net::SocketAddr,
    /// Bytes the peer has acknowledged.
    pub acked_bytes: u64,
    /// Bytes that came from the peer.
    pub received_bytes: u64,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Time since data was last sent, milliseconds.
    pub sent_ms_ago: u32,
    /// Time since data was last received, milliseconds.
    pub received_ms_ago: u32,
    /// Bytes received that the process has not read.
    pub unread_bytes: u32,
    /// Whether the peer connected to this host, which is so when something listens on the own port; `None` when
    /// that was not looked at.
    #[serde(default)]
    pub inbound: Option<bool>,
}
