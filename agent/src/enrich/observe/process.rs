//! One process: its program, its ancestors, where it belongs and whether it is wanted.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Observer, PROCESSES,
    proc::{parent, parent_and_start},
};
use crate::enrich::{
    cgroup_path::{self, Place},
    context::ProcessContext,
};

/// Generations of ancestors looked up.
const GENERATIONS: usize = 4;
/// How long it is remembered where a process was: its number may be another's one day.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Observer {
    /// `cgroup`: the id of its cgroup, for when the process is gone.
    pub(super) fn process(&mut self, pid: u32, comm: &str, cgroup: u64, vouched: bool) -> ProcessContext {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let exe = fs::read_link(proc.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        let table = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        let mut paths = cgroup_path::paths(&table);
        let mut place = Place::of(paths.iter().copied());
        // Gone, or not waited for yet: version 1 forgets where such a process was, the kernel's note does not.
        let noted = (exe.is_none() && place.is_nowhere()).then(|| self.cgroups.path(cgroup)).flatten();
        if let Some(noted) = &noted {
            paths.push(noted);
            place = Place::of([noted.as_str()]);
        }
        let place = self.remembered(pid, cgroup, exe.is_some(), place);
        let mut context = ProcessContext {
            pid,
            comm: comm.to_owned(),
            exe,
            unit: place.unit,
            runtime: place.runtime,
            pod_uid: place.pod_uid,
            ..ProcessContext::default()
        };
        if let Some(id) = &place.container_id
            && let Some([pod, namespace, container]) = self.kubernetes(id)
        {
            context.pod = Some(pod);
            context.namespace = Some(namespace);
            context.container = Some(container);
        }
        context.container_id = place.container_id;
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

    /// Where a process belongs that is gone and of which nothing else tells: where it was when it was last
    /// there, if that was in the same cgroup and not long ago.
    fn remembered(&mut self, pid: u32, cgroup: u64, is_there: bool, place: Place) -> Place {
        if !place.is_nowhere() {
            if is_there && cgroup != 0 {
                self.places.insert(pid, (cgroup, Instant::now(), place.clone()));
            }
            return place;
        }
        let before = self.places.get(&pid).filter(|_| !is_there);
        let same = before.filter(|(then, at, _)| *then == cgroup && at.elapsed() < REMEMBERED);
        same.map(|(_, _, before)| before.clone()).unwrap_or_default()
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
    fn the_kubelets_log_links_name_pod_namespace_and_container() {
        let (id, names) = log_link(&format!("web-7d4_shop_nginx-{ID}.log")).expect("a log link");
        assert_eq!((id.as_str(), names), (ID, ["web-7d4".into(), "shop".into(), "nginx".into()]));
    }
}
