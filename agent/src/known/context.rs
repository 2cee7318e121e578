//! What the events alone do not say: read from the live system once, kept in recordings beside the
//! events, so that a replay elsewhere knows as much as the trace did.

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Serialize};

use crate::{
    fact::{LeapKind, Probes, Process, Reading, Thread},
    known::{request::Target, select::Select},
};

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
        #[serde(with = "super::netns")]
        netns: Netns,
        /// What was asked for.
        #[serde(default)]
        select: Select,
        /// The machine's time zone, by its name or by its offset from UTC.
        #[serde(default)]
        time_zone: Option<String>,
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
        #[serde(with = "super::netns")]
        netns: Netns,
        /// Its index there.
        index: u32,
        /// Its name.
        name: String,
    },
    /// Who listens on a port: for handshakes no thread has read.
    Listener {
        /// The network namespace.
        #[serde(with = "super::netns")]
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

/// Whether a packet can leave for a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// What was asked.
    pub target: Target,
    /// The namespace could be entered and read.
    pub read: bool,
    /// The error (positive errno) the kernel's routes give for the address, 0 for none.
    pub route_errno: i32,
    /// The local ports, when they could be read.
    pub ports: Option<PortUse>,
}

/// Local ports in use towards a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// The first port of net.ipv4.ip_local_port_range.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Ports of the range in use towards the destination.
    pub used: u32,
    /// States of those connections as `ss` writes them, and how many are in each, the commonest first.
    pub states: Vec<(String, u32)>,
    /// The processes that hold most of them.
    pub holders: Vec<PortHolder>,
}

/// A process that holds local ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// How many.
    pub ports: u32,
}

/// The answer: devices of this machine, in whatever namespace, and how questions for the neighbour are asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Holders {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// As it was asked.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// As it was asked.
    pub ifindex: u32,
    /// As it was asked.
    pub address: [u8; 16],
    /// Devices that have the address or one of the MACs.
    #[serde(default)]
    pub devices: Vec<Holder>,
    /// Other neighbours of the namespace at these MACs.
    #[serde(default)]
    pub others: Vec<SeenNeighbour>,
    /// Addresses of the device the neighbour should be behind, with the lengths of their prefixes.
    #[serde(default)]
    pub own: Vec<(std::net::IpAddr, u8)>,
    /// Which sender address its ARP questions carry: `arp_announce`, the greater of all devices' and its own.
    #[serde(default)]
    pub arp_announce: Option<u8>,
}

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its namespace.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// Its name.
    pub device: String,
    /// Its MAC.
    pub mac: [u8; 8],
    /// It has the address that is asked for.
    pub has_address: bool,
    /// How it sits on the same device as the one that asks.
    #[serde(default)]
    pub stacked: Option<Stacked>,
}

/// Two devices of one parent, or parent and child: macvlan and the like, which keep them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stacked {
    /// How.
    pub kinship: Kinship,
    /// What kind of device the child is: `macvlan`, `macvtap`, `ipvlan` or `ipvtap`.
    pub kind: String,
    /// The child's mode: `bridge`, `private`, `vepa`, …; empty when it has none.
    pub mode: String,
}

/// How a device sits on the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kinship {
    /// It is a child of the device that asks.
    Child,
    /// The device that asks is its child.
    Parent,
    /// Both are children of one device.
    Sibling,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exposed {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Processes that began in one of the windows, the oldest first, [`STARTED`] at most.
    pub started: Vec<ProcessContext>,
    /// How many more there are.
    pub more: u64,
    /// Of those known: the ones that are gone.
    pub gone: Vec<u32>,
}

/// Processes an answer holds at most.
pub const STARTED: usize = 64;

/// The gateways of a network namespace; and, when asked for, the neighbour tables and who fills them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The namespace.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// The next hops of its default routes.
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    /// The machine's neighbour tables; empty unless asked for.
    #[serde(default)]
    pub tables: Vec<NeighbourTable>,
    /// The devices with the most neighbours, all namespaces together; empty unless asked for.
    #[serde(default)]
    pub users: Vec<NeighbourUse>,
    /// Its neighbours, when records about neighbours were lost and the tables were read again.
    #[serde(default)]
    pub neighbours: Option<Vec<SeenNeighbour>>,
}

/// A neighbour that has a MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenNeighbour {
    /// The index of its device.
    pub ifindex: u32,
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Its MAC.
    pub mac: [u8; 8],
}

/// The next hop of a default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its address.
    pub address: std::net::IpAddr,
    /// The device it is behind.
    pub device: String,
}

/// A neighbour table, which all network namespaces share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourTable {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Entries.
    pub entries: u32,
    /// Below this the garbage collector leaves the table alone.
    pub gc_thresh1: u32,
    /// Above this it collects what is older than five seconds.
    pub gc_thresh2: u32,
    /// The bound.
    pub gc_thresh3: u32,
}

/// A device's share of a neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourUse {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The device's network namespace.
    #[serde(with = "super::netns")]
    pub netns: Netns,
    /// The device.
    pub device: String,
    /// Its entries.
    pub entries: u32,
}

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
    /// Its threads, the one asked about first; empty when the process was gone.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// It is frozen.
    pub frozen: bool,
    /// Its CPU quota, if it has one.
    pub quota: Option<Quota>,
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

/// A process, as `/proc` describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessContext {
    /// Process id.
    pub pid: u32,
    /// Its name when it was looked up; another name means another program.
    pub comm: String,
    /// The name of its first thread, which is the process's.
    #[serde(default)]
    pub leader: Option<String>,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// What runs the container.
    #[serde(default)]
    pub runtime: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// UID of the pod.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// Container name.
    pub container: Option<String>,
    /// Its parent, the parent's parent and so on, as far as blame looks.
    #[serde(default)]
    pub ancestors: Vec<u32>,
    /// When it was started, CLOCK_BOOTTIME in nanoseconds (to the clock tick), 0 when it was not known.
    #[serde(default)]
    pub started_ns: u64,
    /// The servers that its `/etc/resolv.conf` has it ask: whose answers about names it may believe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<std::net::IpAddr>,
    /// The paths of its cgroups below the root, for filters in a replay; empty in recordings that are older.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// It passes the filters by process, name, cgroup or container.
    pub wanted: bool,
}

impl ProcessContext {
    /// Adds what is known to a process: its program, and where it belongs.
    pub fn identifies(&self, process: &mut Process) {
        process.exe.clone_from(&self.exe);
        process.container_id.clone_from(&self.container_id);
        process.runtime.clone_from(&self.runtime);
        process.unit.clone_from(&self.unit);
        process.namespace.clone_from(&self.namespace);
        process.pod.clone_from(&self.pod);
        process.pod_uid.clone_from(&self.pod_uid);
        process.container.clone_from(&self.container);
    }
}
