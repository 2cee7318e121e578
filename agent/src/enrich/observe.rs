//! The one impure part of enrichment: looks at the live system for what an event mentions and is not
//! known yet, and says it as [`Context`]s. Everything is best effort: a process may be gone already.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ebpf_probes::{
    abi::Owner,
    probes::{
        neigh::unheard,
        tls::{SERVER, UNREAD},
    },
};

use super::{
    bounded::Bounded,
    cgroups::Cgroups,
    context::{Context, ProcessContext},
};
use crate::event::{self, Event, TlsStep, What};

/// Processes remembered at most; one forgotten is looked up again.
const PROCESSES: usize = 8192;
/// Generations of ancestors looked up.
const GENERATIONS: usize = 4;
/// The listeners of the machine are looked through at most this often, nanoseconds.
const LISTENERS_EVERY_NS: u64 = 1_000_000_000;
/// Names of network namespaces that had none are looked for again at most this often.
const NAMES_EVERY: Duration = Duration::from_millis(100);

/// What the user asked to see, as far as only `/proc` can tell.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only threads of this name.
    pub comm: Option<String>,
    /// Only this cgroup (path below the root, e.g. `/system.slice/x.service`) and those below it.
    pub cgroup: Option<String>,
    /// Only this container: id or its beginning, or its name.
    pub container: Option<String>,
    /// Only this Kubernetes pod.
    pub pod: Option<String>,
    /// Only this Kubernetes namespace.
    pub namespace: Option<String>,
    /// Only these processes and their descendants.
    pub processes: Vec<u32>,
}

impl Wanted {
    /// Some filter needs to know whose an event is.
    pub fn by_owner(&self) -> bool {
        self.comm.is_some()
            || self.cgroup.is_some()
            || self.container.is_some()
            || self.pod.is_some()
            || self.namespace.is_some()
            || !self.processes.is_empty()
    }
}

/// Looks things up once.
pub struct Observer {
    wanted: Wanted,
    followed: Bounded<u32, bool>,
    /// Processes looked up, by name and whether the kernel vouched for them.
    seen: Bounded<u32, ([u8; 16], bool)>,
    netns: HashMap<u32, bool>,
    names_read: Option<Instant>,
    listeners_at_ns: Option<u64>,
    pods: HashMap<String, [String; 3]>,
    cgroups: Cgroups,
}

impl Observer {
    /// Begins to observe; `cgroup_root` is the host's cgroup v2 root.
    pub fn new(wanted: Wanted, cgroup_root: PathBuf) -> Self {
        let mut followed = Bounded::new(PROCESSES * 4);
        for &process in &wanted.processes {
            followed.insert(process, true);
        }
        Self {
            wanted,
            followed,
            seen: Bounded::new(PROCESSES),
            netns: HashMap::new(),
            names_read: None,
            listeners_at_ns: None,
            pods: HashMap::new(),
            cgroups: Cgroups::new(cgroup_root),
        }
    }

    /// A process that was started to be followed.
    pub fn follow(&mut self, process: u32) {
        self.wanted.processes.push(process);
        self.followed.insert(process, true);
    }

    /// What has to be known before `event` can be told.
    pub fn before(&mut self, event: &Event, mut learn: impl FnMut(Context)) {
        let owners: [Option<&Owner>; 2] = match &event.what {
            What::Connect(_, connect) => [Some(&connect.owner), None],
            What::Tls(step, handshake) => {
                if *step == TlsStep::Pending
                    && handshake.role == SERVER
                    && handshake.owner.process == 0
                    && handshake.flags & UNREAD != 0
                {
                    self.listeners(event.boot_ns, &mut learn);
                }
                [Some(&handshake.owner), Some(&handshake.reader)]
            }
            What::Dns(message) => [Some(&message.owner), None],
            What::Neigh(record) => {
                self.namespace(record.netns, &mut learn);
                [Some(&record.owner), None]
            }
            What::Mac(record) => {
                self.namespace(record.netns, &mut learn);
                [None, None]
            }
            What::Claim(record) => {
                self.namespace(record.netns, &mut learn);
                [None, None]
            }
            What::Waiter(record) => {
                self.namespace(record.netns, &mut learn);
                [Some(&record.owner), None]
            }
            What::Unheard(record) => {
                self.namespace(record.netns, &mut learn);
                if record.what == unheard::SYN_ACK {
                    self.listeners(event.boot_ns, &mut learn);
                }
                [Some(&record.owner), None]
            }
            What::ClockSet(record) => [Some(&record.owner), None],
            _ => [None, None],
        };
        // Connects, handshakes and lookups of other processes were filtered out in the kernel, which also
        // knows children that are gone before we can look at them.
        let vouched = matches!(&event.what, What::Connect(..) | What::Tls(..) | What::Dns(_));
        for owner in owners.into_iter().flatten() {
            self.owner(owner, vouched, &mut learn);
        }
    }

    fn owner(&mut self, owner: &Owner, vouched: bool, learn: &mut impl FnMut(Context)) {
        self.namespace(owner.netns, learn);
        let known = self.seen.get(&owner.process);
        if owner.process == 0 || known.is_some_and(|(comm, sure)| *comm == owner.comm && (*sure || !vouched))
        {
            return;
        }
        self.seen.insert(owner.process, (owner.comm, vouched));
        let context = self.process(owner.process, &event::comm(&owner.comm), owner.cgroup, vouched);
        learn(Context::Process(context));
    }

    fn namespace(&mut self, netns: u32, learn: &mut impl FnMut(Context)) {
        let wanted = match self.netns.get(&netns) {
            _ if netns == 0 => false,
            Some(true) => false,
            // It may have been made a moment ago, and be named by now.
            Some(false) => self.names_read.is_none_or(|at| at.elapsed() >= NAMES_EVERY),
            None => self.netns.len() < 65536,
        };
        if !wanted {
            return;
        }
        self.names_read = Some(Instant::now());
        for (inode, name) in named_netns() {
            if self.netns.insert(inode, true) != Some(true) {
                learn(Context::Netns { inode, name });
            }
        }
        self.netns.entry(netns).or_insert(false);
    }

    /// What is known of a process that no event has named.
    pub fn look_up(&mut self, pid: u32, comm: &str) -> ProcessContext {
        self.process(pid, comm, 0, false)
    }

    /// `cgroup`: the id of its cgroup, for when the process is gone.
    fn process(&mut self, pid: u32, comm: &str, cgroup: u64, vouched: bool) -> ProcessContext {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let said = fs::read_to_string(proc.join("cgroup")).ok();
        let by_id = if said.is_none() { self.cgroups.path(cgroup) } else { None };
        let paths: Vec<&str> = match (&said, &by_id) {
            (Some(said), _) => said.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect(),
            (None, path) => path.iter().map(String::as_str).collect(),
        };
        let container_id = paths.iter().find_map(|path| container_id(path));
        let mut context = ProcessContext {
            pid,
            comm: comm.to_owned(),
            exe: fs::read_link(proc.join("exe")).ok().map(|path| path.to_string_lossy().into_owned()),
            unit: paths.iter().find_map(|path| unit(path)),
            ..ProcessContext::default()
        };
        if let Some(id) = &container_id
            && let Some([pod, namespace, container]) = self.kubernetes(id)
        {
            context.pod = Some(pod);
            context.namespace = Some(namespace);
            context.container = Some(container);
        }
        context.container_id = container_id;
        if let Some((parent, started_ns)) = parent_and_start(pid) {
            context.started_ns = started_ns;
            context.ancestors = std::iter::successors(Some(parent), |&pid| self::parent(pid))
                .take_while(|&pid| pid > 1)
                .take(GENERATIONS)
                .collect();
        }
        context.wanted = self.is_wanted(&context, &paths, vouched);
        context
    }

    /// `vouched`: the kernel's own filters (process, name, cgroup) have let it pass.
    fn is_wanted(&mut self, process: &ProcessContext, cgroups: &[&str], vouched: bool) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        if let Some(wanted) = &self.wanted.container
            && process.container.as_ref() != Some(wanted)
            && !process.container_id.as_ref().is_some_and(|id| id.starts_with(wanted.as_str()))
        {
            return false;
        }
        if !same(&self.wanted.pod, &process.pod) || !same(&self.wanted.namespace, &process.namespace) {
            return false;
        }
        if vouched {
            return true;
        }
        if self.wanted.comm.as_ref().is_some_and(|comm| *comm != process.comm) {
            return false;
        }
        if let Some(wanted) = &self.wanted.cgroup
            && !cgroups.iter().any(|path| Path::new(path).starts_with(wanted))
        {
            return false;
        }
        self.wanted.processes.is_empty() || self.descends(process.pid)
    }

    /// Whether a process is one of the wanted or descends from one.
    fn descends(&mut self, pid: u32) -> bool {
        let mut line = vec![pid];
        let mut answer = false;
        for _ in 0..64 {
            let at = *line.last().expect("never empty");
            if let Some(&known) = self.followed.get(&at) {
                answer = known;
                break;
            }
            match parent(at) {
                Some(parent) if parent > 1 => line.push(parent),
                _ => break,
            }
        }
        // A parent that is gone is no proof: only what was found is remembered.
        if answer {
            for pid in line {
                self.followed.insert(pid, true);
            }
        }
        answer
    }

    /// Pod, namespace and container name of a container id, from the kubelet's log links.
    fn kubernetes(&mut self, id: &str) -> Option<[String; 3]> {
        if let Some(known) = self.pods.get(id) {
            return Some(known.clone());
        }
        for place in ["/var/log/containers", "/proc/1/root/var/log/containers"] {
            let Ok(entries) = fs::read_dir(place) else { continue };
            for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
                let Some((id, names)) = log_link(&name) else { continue };
                if self.pods.len() < PROCESSES {
                    self.pods.insert(id, names);
                }
            }
        }
        self.pods.get(id).cloned()
    }

    /// Who listens where: for ClientHellos nobody has read, which therefore have no owner yet.
    fn listeners(&mut self, boot_ns: u64, learn: &mut impl FnMut(Context)) {
        if self.listeners_at_ns.is_some_and(|at| boot_ns.saturating_sub(at) < LISTENERS_EVERY_NS) {
            return;
        }
        self.listeners_at_ns = Some(boot_ns);
        let mut ports: HashMap<(u64, u64), (IpAddr, u16)> = HashMap::new();
        let mut looked: HashMap<u64, ()> = HashMap::new();
        for pid in pids() {
            let Ok(ns) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            if looked.insert(ns.ino(), ()).is_none() {
                for (address, port, inode) in listening(pid) {
                    ports.insert((ns.ino(), inode), (address, port));
                }
            }
            let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for fd in fds.flatten() {
                let Ok(target) = fs::read_link(fd.path()) else { continue };
                let Some(inode) = socket_inode(&target.to_string_lossy()) else { continue };
                let Some(&(address, port)) = ports.get(&(ns.ino(), inode)) else { continue };
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let comm = comm.trim_end().to_owned();
                learn(Context::Process(self.process(pid, &comm, 0, false)));
                let netns = u32::try_from(ns.ino()).unwrap_or(0);
                learn(Context::Listener { netns, address, port, process: pid, comm });
            }
        }
    }
}

/// Every process there is.
pub fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process and its descendants that run now.
pub fn with_descendants(processes: &[u32]) -> Vec<u32> {
    let mut all: Vec<u32> = processes.to_vec();
    let parents: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    loop {
        let before = all.len();
        for &(pid, parent) in &parents {
            if all.contains(&parent) && !all.contains(&pid) {
                all.push(pid);
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

fn parent(pid: u32) -> Option<u32> {
    parent_and_start(pid).map(|(parent, _)| parent)
}

/// Parent of a process and CLOCK_BOOTTIME of its start in nanoseconds, to the clock tick.
pub fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, more parentheses too.
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace();
    let parent = after_name.nth(1)?.parse().ok()?;
    // The 22nd column; the state was the third.
    let ticks: u64 = after_name.nth(17)?.parse().ok()?;
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    Some((parent, ticks.saturating_mul(1_000_000_000 / hertz)))
}

/// Address, port and socket inode of each TCP listener in the network namespace of `pid`.
fn listening(pid: u32) -> Vec<(IpAddr, u16, u64)> {
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listener).collect()
}

/// Columns of /proc/net/tcp: slot, local, remote, state (0A: listening), …, inode (tenth).
fn listener(line: &str) -> Option<(IpAddr, u16, u64)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if *columns.get(3)? != "0A" {
        return None;
    }
    let (address, port) = columns.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((table_address(address)?, port, columns.get(9)?.parse().ok()?))
}

/// An address as /proc/net/tcp writes it: words of the machine's own byte order, in hexadecimal.
fn table_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let address: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(event::address(address))
        }
        _ => None,
    }
}

fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Network namespaces with a name, as `ip netns` keeps them.
fn named_netns() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return vec![] };
    entries
        .flatten()
        .filter_map(|entry| {
            let inode = entry.metadata().ok()?.ino();
            Some((u32::try_from(inode).ok()?, entry.file_name().into_string().ok()?))
        })
        .collect()
}

/// The container id in a cgroup path: the last 64 hexadecimal digits of a component.
fn container_id(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|component| {
        let component = component.strip_suffix(".scope").unwrap_or(component);
        let id = component.rsplit(['-', ':']).next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

/// The systemd unit in a cgroup path: its last service or scope.
fn unit(path: &str) -> Option<String> {
    path.rsplit('/')
        .find(|component| component.ends_with(".service") || component.ends_with(".scope"))
        .map(str::to_owned)
}

/// `<pod>_<namespace>_<container>-<id>.log`, as the kubelet links every container's log.
fn log_link(name: &str) -> Option<(String, [String; 3])> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut names = names.splitn(3, '_').map(str::to_owned);
    Some((id.to_owned(), [names.next()?, names.next()?, names.next()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d";

    #[test]
    fn container_ids_are_found_under_both_cgroup_drivers() {
        for path in [
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/kubepods/besteffort/pod1/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
        ] {
            assert_eq!(container_id(&path).as_deref(), Some(ID), "{path}");
        }
        assert_eq!(container_id("/system.slice/nginx.service"), None);
    }

    #[test]
    fn the_unit_is_the_innermost_one() {
        assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx.service"));
        assert_eq!(unit("/user.slice"), None);
    }

    #[test]
    fn the_kubelets_log_links_name_pod_namespace_and_container() {
        let (id, names) = log_link(&format!("web-7d4_shop_nginx-{ID}.log")).expect("a log link");
        assert_eq!((id.as_str(), names), (ID, ["web-7d4".into(), "shop".into(), "nginx".into()]));
    }

    #[test]
    fn only_listeners_are_taken_from_the_tcp_table() {
        let line = "   0: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1";
        assert_eq!(listener(line), Some((IpAddr::from([0, 0, 0, 0]), 443, 4711)));
        assert_eq!(table_address("0100007F"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(
            table_address(&format!("{}01000000", "0".repeat(24))),
            Some("::1".parse().expect("an address"))
        );
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
