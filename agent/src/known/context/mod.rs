//! What the events alone do not say: read from the live system once, kept in recordings beside the
//! events, so that a replay elsewhere knows as much as the trace did.

mod answered;
mod chain;
mod clock;
mod local;
mod network;
mod own;
mod process;
mod threads;
mod waits;
mod watched;

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Serialize};

pub use answered::Answered;
pub use chain::{Between, Chain, Link, Looked};
pub use clock::ClockThresholds;
pub use local::{DescriptorUse, Family, LocalObject, LocalWait, SeenListener, SeenMount, SeenProcess};
pub use network::{
    Gateway, Holder, Holders, Kinship, NeighbourTable, NeighbourUse, Network, PortHolder, PortUse, Reach,
    SeenNeighbour, Stacked,
};
pub use own::{AddressNews, Claim, Listeners, ListensAt, OwnAddress};
pub use process::{Exposed, FakedTime, ProcessContext, STARTED};
pub use threads::{
    CgroupLimits, Loaded, MemoryHigh, Posture, Quota, Runtime, SeenSocket, SeenThread, Snapshot,
};
pub use watched::{Watched, WatchedConnection};

use super::select::Select;
use crate::fact::{LeapKind, Probes, Reading};

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
        #[serde(with = "crate::known::netns")]
        netns: Netns,
        /// What was asked for.
        #[serde(default)]
        select: Select,
        /// The machine's time zone, by its name or by its offset from UTC.
        #[serde(default)]
        time_zone: Option<String>,
        /// How long a lookup may wait before that is an incident (`--dns-stall`), milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dns_stall_ms: Option<u64>,
        /// From where on the wall clock is wrong enough.
        #[serde(default)]
        clock: ClockThresholds,
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
        /// Which of those that had this number; 0 when that is not known.
        #[serde(default, skip_serializing_if = "is_zero")]
        generation: u32,
        /// Its name below /run/netns.
        name: String,
    },
    /// A network namespace that has lost its name: it is gone, or kept by processes alone.
    NetnsUnnamed {
        /// Its inode number.
        inode: u32,
        /// Which of those that had this number; 0 when that is not known.
        #[serde(default, skip_serializing_if = "is_zero")]
        generation: u32,
        /// The name it had.
        name: String,
    },
    /// The name of a network device.
    Device {
        /// Its network namespace.
        #[serde(with = "crate::known::netns")]
        netns: Netns,
        /// Its index there.
        index: u32,
        /// Its name.
        name: String,
    },
    /// Who listens on a port: for handshakes no thread has read.
    Listener {
        /// The network namespace.
        #[serde(with = "crate::known::netns")]
        netns: Netns,
        /// Local address; unspecified (`::`) stands for any.
        address: std::net::IpAddr,
        /// Local port.
        port: u16,
        /// The process.
        process: u32,
        /// Its name.
        comm: String,
    },
    /// What a process was doing when asked for: once per incident.
    Snapshot(Box<Snapshot>),
    /// The connections of a process that was asked for, every two seconds.
    Watched(Box<Watched>),
    /// A network namespace and the machine's neighbour tables, at start and when asked for.
    Network(Box<Network>),
    /// A reference clock was read.
    Reference(Reading),
    /// How a namespace reaches an HTTP server that says what time it is.
    Way {
        /// Inode number of the network namespace.
        netns: u32,
        /// Which of those that had this number; 0 when that is not known.
        #[serde(default, skip_serializing_if = "is_zero")]
        generation: u32,
        /// The server's address.
        address: std::net::IpAddr,
        /// How.
        way: Way,
    },
    /// What the kernel says of leap seconds, when that has changed.
    LeapState {
        /// When it was asked, CLOCK_BOOTTIME in nanoseconds.
        boot_ns: u64,
        /// What is armed for the end of the day.
        armed: Option<LeapKind>,
        /// TAI − UTC as the kernel has it, seconds; 0 where it has not been set.
        tai_s: i32,
    },
    /// The length of a tick of the wall clock, when that has changed.
    Tick {
        /// When it was asked, CLOCK_BOOTTIME in nanoseconds.
        boot_ns: u64,
        /// Microseconds; 10000 is the right rate.
        tick_us: i64,
    },
    /// When the running kernel was built: no right clock shows an earlier time.
    Built {
        /// Its release and that day: `6.1.0-42-amd64 (2025-12-18)`.
        name: String,
        /// The day, nanoseconds since 1970.
        utc_ns: i64,
    },
    /// Processes that began at certain times, and those that are gone: when asked for.
    Exposed(Box<Exposed>),
    /// Whether a packet can leave for a destination: when a rule asked.
    Reach(Box<Reach>),
    /// Who on this machine has a neighbour's address or MAC: when asked for.
    Holders(Box<Holders>),
    /// An address of this host is claimed by another one, or cannot be used, or can again.
    OwnAddress(Box<OwnAddress>),
    /// Who listens at an address: when asked for.
    Listeners(Box<Listeners>),
    /// Who answers for a neighbour: when a rule asked, and questions may be sent (`--probe-neighbours`).
    Answered(Box<Answered>),
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a namespace reaches an address: whether another host may answer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The host itself has a route to it.
    Host,
    /// The namespace, which root of the host made, has a route to it and a default route: a way out.
    Out,
    /// The address is the namespace's own.
    Itself,
    /// The namespace has no way out.
    Inside,
    /// A namespace that belongs to a user who made a user namespace: all it talks to may be that user.
    Foreign,
    /// It was not known.
    Unknown,
}
