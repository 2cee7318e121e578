//! Looks at the live system for what an event mentions and is not
//! known yet, and says it as [`Context`]s. Everything is best effort: a process may be gone already.

mod cgroup_path;
mod cgroups;
mod executable;
mod faked;
mod listeners;
mod names;
pub mod pods;
mod proc;
mod process;
mod resolvers;
mod target;
mod verdicts;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use ebpf_probes::abi::{Owner, executable::Executable};
pub use listeners::listening_at;
pub use proc::{is_zombie, named, parent_and_start, pids, with_descendants};
pub use target::{Target, chosen, processes};

use self::{cgroup_path::Identity, cgroups::Cgroups};
use crate::{
    domains::{Event, Record},
    known::{
        bounded::Bounded,
        context::{Context, ProcessContext},
    },
    records,
};

/// Processes remembered at most; one forgotten is looked up again.
const PROCESSES: usize = 8192;
/// Processes at most whose place is remembered when they are gone and nothing else says it.
const PLACES: usize = 1024;

/// What the user asked to see, as far as only `/proc` can shows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only processes that have a thread of one of these names, and their children.
    pub comms: Vec<String>,
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
    /// Only some containers or pods are wanted.
    pub fn by_container(&self) -> bool {
        self.container.is_some() || self.pod.is_some() || self.namespace.is_some()
    }

    /// A process is in the container, the pod and the namespace that are wanted.
    pub fn has_container(&self, process: &ProcessContext) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        let container = self.container.as_ref().is_none_or(|wanted| {
            process.container.as_ref() == Some(wanted)
                || process.container_id.as_ref().is_some_and(|id| id.starts_with(wanted.as_str()))
        });
        container && same(&self.pod, &process.pod) && same(&self.namespace, &process.namespace)
    }

    /// One of a process's cgroups is the one that is wanted, or below it.
    pub fn has_cgroup<'a>(&self, cgroups: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(wanted) = &self.cgroup else { return true };
        cgroups.into_iter().any(|path| Path::new(path).starts_with(wanted))
    }

    /// Some filter needs to know whose an event is.
    pub fn by_owner(&self) -> bool {
        !self.comms.is_empty() || self.cgroup.is_some() || self.by_container() || !self.processes.is_empty()
    }
}

/// Looks things up once.
pub struct Observer {
    wanted: Wanted,
    followed: Bounded<u32, bool>,
    /// Processes looked up, by name and whether the kernel vouched for them.
    seen: Bounded<u32, ([u8; 16], bool)>,
    names: names::Names,
    listeners_at_ns: Option<u64>,
    pods: pods::Pods,
    verdicts: verdicts::Verdicts,
    cgroups: Cgroups,
    /// What the kernel noted that a process runs.
    noted: executable::Noted,
    /// Where processes were when they were last there: their cgroup's number, when, and the rest.
    places: Bounded<u32, (u64, Instant, Identity)>,
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
            names: names::Names::default(),
            listeners_at_ns: None,
            pods: pods::Pods::default(),
            verdicts: verdicts::Verdicts::default(),
            cgroups: Cgroups::new(cgroup_root),
            noted: Box::new(|_| None),
            places: Bounded::new(PLACES),
        }
    }

    /// Asks here what a process ran that is gone.
    pub fn with_executables(self, noted: impl Fn(u32) -> Option<Executable> + Send + 'static) -> Self {
        Self { noted: Box::new(noted), ..self }
    }

    /// A process that was started to be followed.
    pub fn follow(&mut self, process: u32) {
        self.wanted.processes.push(process);
        self.followed.insert(process, true);
    }

    /// What has to be known before `event` can be reported.
    pub fn before(&mut self, event: &Event, mut apply: impl FnMut(Context)) {
        self.name_late(&mut apply);
        let mentions = event.what.mentions();
        if let Some(netns) = mentions.netns {
            self.names.of(netns, &mut apply);
        }
        if mentions.listeners {
            self.listeners(event.boot_ns, &mut apply);
        }
        if matches!(event.what, Record::Tick) {
            self.names.again(&mut apply);
        }
        let acted_ns = mentions.since_ns.unwrap_or(event.boot_ns);
        for owner in mentions.owners.into_iter().flatten() {
            self.owner(owner, acted_ns, mentions.vouched, &mut apply);
        }
    }

    fn owner(&mut self, owner: &Owner, acted_ns: u64, vouched: bool, apply: &mut impl FnMut(Context)) {
        self.names.of(owner.netns, apply);
        let known = self.seen.get(&owner.process);
        if owner.process == 0 || known.is_some_and(|(comm, sure)| *comm == owner.comm && (*sure || !vouched))
        {
            return;
        }
        self.seen.insert(owner.process, (owner.comm, vouched));
        let context =
            self.process(owner.process, &records::comm(&owner.comm), (acted_ns, owner.cgroup), vouched);
        apply(Context::Process(context));
    }

    /// A process acted that no event has named.
    pub fn introduce(&mut self, owner: &Owner, acted_ns: u64, mut apply: impl FnMut(Context)) {
        self.owner(owner, acted_ns, false, &mut apply);
    }

    /// What was found out since the last call about the containers and pods of cgroups, by id: whether they are
    /// wanted.
    pub fn verdicts(&mut self) -> Vec<(u64, bool)> {
        self.verdicts.take()
    }

    /// What people should know of a filter by container before they wait: that it is decided late here, and that
    /// no process is in such a container now, with the name that comes closest.
    pub fn caveats(&mut self) -> Vec<String> {
        if !self.wanted.by_container() {
            return vec![];
        }
        let mut caveats = Vec::new();
        if !self.verdicts.one_hierarchy() {
            caveats.push(
                "containers may share a cgroup on this machine (cgroup version 1 or both): what others do is sorted \
                 out after it has crossed the ring"
                    .to_owned(),
            );
        }
        caveats.extend(self.none_yet());
        caveats
    }

    /// What is known of a process that no event has named.
    pub fn look_up(&mut self, pid: u32, comm: &str) -> ProcessContext {
        self.process(pid, comm, (0, 0), false)
    }
}
