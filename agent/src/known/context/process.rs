//! What is known of a process, and which began at certain times.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fact::Process;

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

/// The time of day that libfaketime gives a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FakedTime {
    /// What `FAKETIME` says in its environment, 64 bytes at most; empty where the setting stands in a file.
    pub setting: String,
    /// How far that is ahead of its host's time when it was looked at, in seconds, where it is known.
    pub ahead_s: Option<i64>,
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
    /// It lives in another time than its host: libfaketime is preloaded into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faked_time: Option<FakedTime>,
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
