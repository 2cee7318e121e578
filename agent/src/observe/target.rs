//! Which processes a person means: by number, by name, by the port they serve, or by their pod.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{Observer, Wanted, listeners, named, pids, with_descendants};

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A process.
    Process(u32),
    /// Those with a thread of this name, or whose executable is called so.
    Name(String),
    /// Those that listen on this TCP port, in whichever network namespace.
    Port(u16),
    /// Those of a Kubernetes pod.
    Pod(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => write!(f, "process {process}"),
            Self::Name(name) => f.write_str(&crate::text::shown(name)),
            Self::Port(port) => write!(f, ":{port}"),
            Self::Pod(pod) => write!(f, "pod {}", crate::text::shown(pod)),
        }
    }
}

/// The processes that are meant, in order of their numbers; culprit's own left out. `cgroup_root`: the host's root of
/// cgroup version 2, by which pods are known.
pub fn processes(target: &Target, cgroup_root: PathBuf) -> Vec<u32> {
    let mut found: Vec<u32> = match target {
        Target::Process(process) => pids().filter(|pid| pid == process).collect(),
        Target::Name(name) => {
            let by_file = |pid: &u32| {
                let exe = fs::read_link(format!("/proc/{pid}/exe"));
                exe.is_ok_and(|exe| exe.file_name().is_some_and(|file| file == name.as_str()))
            };
            let mut found = named(std::slice::from_ref(name));
            found.extend(pids().filter(by_file));
            found
        }
        Target::Port(port) => listeners::on_port(*port),
        Target::Pod(pod) => {
            let mut observer = Observer::new(Wanted::default(), cgroup_root);
            let is_in = |pid: &u32| {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                observer.look_up(*pid, comm.trim_end()).pod.as_ref() == Some(pod)
            };
            pids().filter(is_in).collect()
        }
    };
    found.retain(|pid| *pid != std::process::id());
    found.sort_unstable();
    found.dedup();
    found
}

/// The processes that the filters ask for, in order of their numbers; culprit's own left out.
pub fn chosen(wanted: &Wanted, cgroup_root: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = if wanted.processes.is_empty() && wanted.comms.is_empty() {
        pids().collect()
    } else {
        let mut first = wanted.processes.clone();
        first.extend(named(&wanted.comms));
        with_descendants(&first).into_iter().collect()
    };
    if wanted.cgroup.is_some() || wanted.by_container() {
        let mut observer = Observer::new(Wanted::default(), cgroup_root.to_owned());
        found.retain(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let process = observer.look_up(*pid, comm.trim_end());
            wanted.has_container(&process) && wanted.has_cgroup(process.cgroups.iter().map(String::as_str))
        });
    }
    found.retain(|pid| *pid != std::process::id());
    found.sort_unstable();
    found.dedup();
    found
}
