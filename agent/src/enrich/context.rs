//! What the events alone do not say: read from the live system once, kept in recordings beside the
//! events, so that a replay elsewhere knows as much as the trace did.

use serde::{Deserialize, Serialize};

use super::select::Select;
use crate::fact::Probes;

/// One thing known about the system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "context", rename_all = "snake_case")]
pub enum Context {
    /// The machine and what watches it; first.
    Origin {
        /// Version of culprit.
        version: String,
        /// Kernel release.
        kernel: String,
        /// The machine's name.
        node: String,
        /// What is attached.
        probes: Probes,
        /// Drop reasons of this kernel, by number.
        drop_reasons: Vec<(String, u32)>,
        /// The network namespace culprit runs in: the host's own.
        netns: u32,
        /// What was asked for.
        #[serde(default)]
        select: Select,
    },
    /// The wall clock's offset from CLOCK_BOOTTIME, from this moment on.
    Clock {
        /// CLOCK_BOOTTIME, nanoseconds.
        boot_ns: u64,
        /// CLOCK_REALTIME − CLOCK_BOOTTIME, nanoseconds.
        offset_ns: i64,
    },
    /// A process.
    Process(ProcessContext),
    /// The name of a network namespace.
    Netns {
        /// Its inode number.
        inode: u32,
        /// Its name below /run/netns.
        name: String,
    },
    /// The name of a network device.
    Device {
        /// Inode number of its network namespace.
        netns: u32,
        /// Its index there.
        index: u32,
        /// Its name.
        name: String,
    },
    /// Who listens on a port: for handshakes no thread has read.
    Listener {
        /// Inode number of the network namespace.
        netns: u32,
        /// Local address; unspecified (`::`) stands for any.
        address: std::net::IpAddr,
        /// Local port.
        port: u16,
        /// The process.
        process: u32,
        /// Its name.
        comm: String,
    },
}

/// A process, as `/proc` told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessContext {
    /// Process id.
    pub pid: u32,
    /// Its name when it was looked up; another name means another program.
    pub comm: String,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Container name.
    pub container: Option<String>,
    /// It passes the filters by process, name, cgroup or container.
    pub wanted: bool,
}
