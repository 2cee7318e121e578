//! The vocabulary of facts: processes, ends of connections, threads, reference clocks, and what frames a stream of
//! facts. What happened, each domain says in these words (`domains`); nothing here knows how it is shown.

mod phrase;
mod reference;
mod stream;
mod wire;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

pub use phrase::{Phrase, Tone, named, peer};
pub use reference::{LeapKind, Reading, ReferenceKind, is_time_zone};
pub use stream::{Degraded, LostBy, MissingReason, Probes, SCHEMA, Start, Summary};
pub use wire::{HostIcmp, IcmpError, TranslatedBy, Wire};

/// Of what was under way when culprit started, after how long it has taken.
pub const BEFORE_START: &str = ", since before culprit started";

/// Whether a flag of a fact or an incident is left out of its JSON.
pub fn is_false(flag: &bool) -> bool {
    !flag
}

/// A process and the thread that acted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Thread id; of what began before culprit started the process id, unless the process has but one thread.
    pub tid: u32,
    /// The thread's name; in an incident the process's, which is that of its first thread.
    pub comm: String,
    /// In an incident the thread's name, when it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// Path of the executable, when it could still be read.
    pub exe: Option<String>,
    /// Container id, when it runs in one; of LXC and systemd-nspawn the container's name.
    pub container_id: Option<String>,
    /// What runs the container, when the path of its cgroup says so: docker, containerd, cri-o, podman, lxc, nspawn.
    pub runtime: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// UID of the pod, which the path of its cgroup names; for static pods the digest of their manifest.
    pub pod_uid: Option<String>,
    /// Name of the container in the pod.
    pub container: Option<String>,
    /// Network namespace: its name, or `net:[inode]`; absent for the host's own.
    pub netns: Option<String>,
}

impl Process {
    /// The pod or container it belongs to, as text shows it before the name: `shop/cart-7d9f/cart`,
    /// `docker/3f4b1c0d3f4b`; nothing for what is in neither. Cgroups may be named by any user: nothing but what
    /// such names may hold is shown.
    pub fn belongs(&self) -> Option<String> {
        let pod = match (&self.pod, &self.pod_uid) {
            (Some(pod), _) => Some([self.namespace.clone(), Some(pod.clone())]),
            (None, Some(uid)) => Some([None, Some(format!("pod-{uid}"))]),
            (None, None) => None,
        };
        let container = self.container.clone().or_else(|| self.container_id.as_deref().map(short));
        let runtime = if pod.is_none() { self.runtime.clone() } else { None };
        let names = pod.into_iter().flatten().chain([runtime, container]);
        let shown = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let names: Vec<String> =
            names.flatten().map(|name| name.chars().take(LONGEST).map(shown).collect()).collect();
        (self.pod.is_some() || self.pod_uid.is_some() || self.container_id.is_some()).then(|| names.join("/"))
    }
}

/// Characters of a name in text, at most: as many as a pod's name may have.
const LONGEST: usize = 253;

/// An id as engines list it; names as they are.
fn short(id: &str) -> String {
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { id[..12].to_owned() } else { id.to_owned() }
}

/// An address, a port, and the name DNS gave for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// The name that a process in the same network namespace looked up and got this address for.
    pub name: Option<String>,
    /// Where packets for it really go, or, of a handshake's own end, came to; absent where that is the address itself,
    /// or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A thread at the moment it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its state as `/proc/PID/stat` writes it: R running, S sleeping, D disk, T stopped, Z dead.
    pub state: String,
    /// The kernel function it sleeps in, when the kernel says.
    pub wchan: Option<String>,
    /// The system call it is in.
    pub syscall: Option<String>,
    /// What it waits on, as far as the system call's arguments show: sockets with their peers, files, pipes.
    pub waits_on: Vec<String>,
    /// Its kernel stack, innermost first, where readable.
    pub stack: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d";

    fn belongs(set: impl FnOnce(&mut Process)) -> Option<String> {
        let mut process = Process::default();
        set(&mut process);
        process.belongs()
    }

    #[test]
    fn a_process_is_said_to_belong_to_its_pod_or_else_to_its_container() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(belongs(|process| process.unit = some("web.service")), None);
        let in_pod = |process: &mut Process| {
            process.container_id = some(ID);
            process.runtime = some("containerd");
            process.pod_uid = some("8dbc7d5a-2a91-4ba6-a2d3-2f4d0b3c7a11");
        };
        assert_eq!(belongs(in_pod), some("pod-8dbc7d5a-2a91-4ba6-a2d3-2f4d0b3c7a11/3f4b1c0d3f4b"));
        let named = |process: &mut Process| {
            in_pod(process);
            process.namespace = some("shop");
            process.pod = some("cart-7d9f");
            process.container = some("cart");
        };
        assert_eq!(belongs(named), some("shop/cart-7d9f/cart"));
        let docker = |process: &mut Process| {
            process.container_id = some(ID);
            process.runtime = some("docker");
        };
        assert_eq!(belongs(docker), some("docker/3f4b1c0d3f4b"));
        let lxc = |process: &mut Process| {
            process.container_id = some("web\u{1b}[2J;curl x|sh");
            process.runtime = some("lxc");
        };
        assert_eq!(belongs(lxc), some("lxc/web__2J_curl_x_sh"));
    }
}
