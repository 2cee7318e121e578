//! One process: its program, its ancestors, where it belongs and whether it is wanted.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    known::context::{Context, ProcessContext},
    observe::{
        Observer,
        cgroup_path::{self, Identity},
        executable, faked,
        pods::Waiting,
        proc::{has_thread_named, parent, parent_and_start, pids},
        resolvers,
    },
};

/// Generations of ancestors looked up.
const GENERATIONS: usize = 4;
/// Cgroups of one process that are kept: version 1 has one for each controller.
const CGROUPS: usize = 16;
/// How long it is remembered where a process was: its number may be another's one day.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Observer {
    /// `acted_ns`: when it did something; `cgroup`: the id of its cgroup, for when the process is gone.
    pub(super) fn process(
        &mut self,
        pid: u32,
        comm: &str,
        (acted_ns, cgroup): (u64, u64),
        vouched: bool,
    ) -> ProcessContext {
        let lineage = parent_and_start(pid);
        // One that was started later has only its number.
        let reused = lineage.is_some_and(|(_, started_ns)| acted_ns != 0 && started_ns > acted_ns);
        let lineage = lineage.filter(|_| !reused);
        let proc = if reused { PathBuf::from("/proc/0") } else { PathBuf::from(format!("/proc/{pid}")) };
        let exe = fs::read_link(proc.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        let is_there = exe.is_some();
        let exe = exe.or_else(|| executable::of(&(self.noted)(pid)?, acted_ns, comm));
        let table = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        let mut paths = cgroup_path::paths(&table);
        let mut place = Identity::of(paths.iter().copied());
        // Gone, or not waited for yet: version 1 forgets where such a process was, the kernel's note does not.
        let noted = (!is_there && place.is_unknown()).then(|| self.cgroups.path(cgroup)).flatten();
        if let Some(noted) = &noted {
            paths.push(noted);
            place = Identity::of([noted.as_str()]);
        }
        let place = self.remembered(pid, cgroup, is_there, place);
        let leader = fs::read_to_string(proc.join("comm")).ok().map(|name| name.trim_end().to_owned());
        let mut context = ProcessContext {
            pid,
            comm: comm.to_owned(),
            leader,
            exe,
            unit: place.unit,
            runtime: place.runtime,
            pod_uid: place.pod_uid,
            cgroups: paths.iter().take(CGROUPS).map(|path| (*path).to_owned()).collect(),
            ..ProcessContext::default()
        };
        if let Some(id) = &place.container_id
            && let Some(names) = self.pods.names(id)
        {
            name(&mut context, names);
        }
        context.container_id = place.container_id;
        if let Some((parent, started_ns)) = lineage {
            context.started_ns = started_ns;
            context.ancestors = std::iter::successors(Some(parent), |&pid| self::parent(pid))
                .take_while(|&pid| pid > 1)
                .take(GENERATIONS)
                .collect();
        }
        context.resolvers = resolvers::of(&proc);
        context.faked_time = is_there.then(|| faked::of(&proc)).flatten();
        context.wanted = self.is_wanted(&context, &paths, vouched);
        self.judge(&context, cgroup);
        if context.pod.is_none() && context.pod_uid.is_some() && context.container_id.is_some() {
            self.pods.wait(Waiting {
                context: context.clone(),
                cgroup,
                cgroups: paths.iter().map(|path| (*path).to_owned()).collect(),
                vouched,
                since: Instant::now(),
            });
        }
        context
    }

    /// Processes that were looked up before the kubelet had linked their container's log: every main process
    /// that connects at once.
    pub(super) fn name_late(&mut self, apply: &mut impl FnMut(Context)) {
        for (waiting, names) in self.pods.named_late() {
            let Waiting { mut context, cgroup, cgroups, vouched, .. } = waiting;
            name(&mut context, names);
            let cgroups: Vec<&str> = cgroups.iter().map(String::as_str).collect();
            context.wanted = self.is_wanted(&context, &cgroups, vouched);
            self.judge(&context, cgroup);
            apply(Context::Process(context));
        }
    }

    /// Where a process belongs that is gone and of which nothing else says: where it was when it was last
    /// there, if that was in the same cgroup and not long ago.
    fn remembered(&mut self, pid: u32, cgroup: u64, is_there: bool, place: Identity) -> Identity {
        if !place.is_unknown() {
            if is_there && cgroup != 0 {
                self.places.insert(pid, (cgroup, Instant::now(), place.clone()));
            }
            return place;
        }
        let before = self.places.get(&pid).filter(|_| !is_there);
        let same = before.filter(|(then, at, _)| *then == cgroup && at.elapsed() < REMEMBERED);
        same.map(|(_, _, before)| before.clone()).unwrap_or_default()
    }

    /// Whether the kernel may know what becomes of everything in this cgroup: only where all of it is in the same
    /// container, and that container's names are known.
    fn judge(&mut self, process: &ProcessContext, cgroup: u64) {
        if !self.wanted.by_container() || cgroup == 0 {
            return;
        }
        let unnamed = process.pod_uid.is_some() && process.pod.is_none();
        if unnamed && (self.wanted.container.is_none() || process.container_id.is_none()) {
            return;
        }
        let Some(path) = self.cgroups.path(cgroup) else { return };
        let place = Identity::of([path.as_str()]);
        let alone = place.container_id == process.container_id
            && (place.container_id.is_some() || self.verdicts.one_hierarchy());
        if alone {
            let wanted = self.is_in_wanted_container(process);
            self.verdicts.found(cgroup, wanted);
        }
    }

    fn is_in_wanted_container(&self, process: &ProcessContext) -> bool {
        self.wanted.has_container(process)
    }

    /// `vouched`: the kernel's own filters (process, name, cgroup) have let it pass.
    fn is_wanted(&mut self, process: &ProcessContext, cgroups: &[&str], vouched: bool) -> bool {
        if !self.is_in_wanted_container(process) {
            return false;
        }
        if vouched {
            return true;
        }
        if !self.wanted.comms.is_empty() && !goes_by(process, &self.wanted.comms) {
            return false;
        }
        if !self.wanted.has_cgroup(cgroups.iter().copied()) {
            return false;
        }
        self.wanted.processes.is_empty() || self.descends(process.pid)
    }

    /// `None` if some process is in a container that is wanted; else what there is that is called almost so.
    pub(super) fn none_yet(&mut self) -> Option<String> {
        let mut others: Vec<ProcessContext> = Vec::new();
        for pid in pids() {
            let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let place = Identity::of(cgroup_path::paths(&table));
            let Some(id) = place.container_id else { continue };
            if others.iter().any(|other| other.container_id.as_ref() == Some(&id)) {
                continue;
            }
            let mut context = ProcessContext { container_id: Some(id.clone()), ..ProcessContext::default() };
            if let Some(names) = self.pods.names(&id) {
                name(&mut context, names);
            }
            if self.is_in_wanted_container(&context) {
                return None;
            }
            others.push(context);
        }
        let asked = [
            ("--namespace", &self.wanted.namespace),
            ("--pod", &self.wanted.pod),
            ("--container", &self.wanted.container),
        ];
        let words = asked.iter().filter_map(|(option, value)| Some(format!("{option} {}", value.as_ref()?)));
        let words = words.collect::<Vec<_>>().join(" ");
        let near = asked.into_iter().enumerate().find_map(|(at, (_, value))| {
            let names = others.iter().filter_map(|other| match at {
                0 => other.namespace.as_deref(),
                1 => other.pod.as_deref(),
                _ => other.container.as_deref().or(other.container_id.as_deref()),
            });
            nearest(value.as_deref()?, names)
        });
        let near = near.map(|near| format!(" (there is {near})")).unwrap_or_default();
        Some(format!("no process is in {words} now{near}: waiting for one"))
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
}

/// The name most like the one asked for, unless it is that one or none is alike.
fn nearest<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Of strsim's measure, which is 1 for the same: `web` and `wbe` have 0.56, `web` and `web-1` 0.91.
    const ALIKE: f64 = 0.55;
    let alike = names.map(|name| (strsim::jaro_winkler(asked, name), name));
    let best = alike.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE && best.1 != asked).then_some(best.1)
}

/// Whether a process, or one it descends from, has a thread of one of these names.
fn goes_by(process: &ProcessContext, names: &[String]) -> bool {
    names.contains(&process.comm)
        || std::iter::successors(Some(process.pid), |&pid| parent(pid).filter(|&parent| parent > 1))
            .take(GENERATIONS)
            .any(|pid| has_thread_named(pid, names))
}

fn name(context: &mut ProcessContext, [pod, namespace, container]: [String; 3]) {
    context.pod = Some(pod);
    context.namespace = Some(namespace);
    context.container = Some(container);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Wanted;

    #[test]
    fn a_process_that_was_started_later_has_only_the_number() {
        let pid = std::process::id();
        let (_, started_ns) = parent_and_start(pid).expect("it is this one");
        let look = |acted_ns: u64| {
            let mut observer = Observer::new(Wanted::default(), PathBuf::from("/sys/fs/cgroup"));
            observer.process(pid, "before", (acted_ns, 0), false)
        };
        let own = look(started_ns + 1);
        assert!(own.exe.is_some() && own.leader.is_some() && own.started_ns == started_ns, "{own:?}");
        let other = look(started_ns - 1);
        let known = (other.comm.as_str(), other.leader, other.exe, other.started_ns, other.ancestors.len());
        assert_eq!(known, ("before", None, None, 0, 0));
    }
}
