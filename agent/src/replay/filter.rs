//! The filters of a live session, over a recording: which facts are shown, and which incidents? The rules have
//! seen everything, so that a verdict is as sure as the recording makes it. What nothing matched is said at the end:
//! most likely it is a mistake. It refuses to know how anything is shown.

use std::collections::HashSet;

use crate::{
    config::Selection,
    domains::Fact,
    fact::{Probes, Process},
    known::{bounded::Bounded, context::ProcessContext},
    pipeline::incident::Incident,
};

/// Processes remembered at most.
const PROCESSES: usize = 1 << 16;

/// What of the filters by process one passes.
#[derive(Debug, Clone, Copy, Default)]
struct Passes {
    /// It is one of those asked for by number, or descends from one.
    number: bool,
    /// It has, or descends from one that has, a thread of a name asked for.
    name: bool,
    /// Its container, pod, namespace and cgroup.
    place: bool,
    started_ns: u64,
}

/// The filters, and what has passed them so far.
pub(super) struct Filter {
    selection: Selection,
    processes: Bounded<u32, Passes>,
    shown: HashSet<String>,
    /// Filters that nothing has matched yet: what was asked for, and what that is called.
    unmatched: Vec<(Asked, String)>,
    cgroups_known: bool,
    passed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Process(u32),
    Name(usize),
    Place,
    Network(usize),
    Port(u16),
}

impl Filter {
    pub(super) fn new(selection: &Selection) -> Self {
        let wanted = &selection.wanted;
        let mut unmatched: Vec<(Asked, String)> = Vec::new();
        unmatched.extend(wanted.processes.iter().map(|&pid| (Asked::Process(pid), format!("-p {pid}"))));
        let names = wanted.comms.iter().enumerate();
        unmatched.extend(names.map(|(at, name)| (Asked::Name(at), format!("--comm {name:?}"))));
        let places = [
            ("--cgroup", &wanted.cgroup),
            ("--container", &wanted.container),
            ("--pod", &wanted.pod),
            ("--namespace", &wanted.namespace),
        ];
        let place: Vec<String> = places
            .iter()
            .filter_map(|(option, value)| Some(format!("{option} {:?}", value.as_ref()?)))
            .collect();
        if !place.is_empty() {
            unmatched.push((Asked::Place, place.join(" ")));
        }
        let networks = selection.select.destinations.iter().enumerate();
        unmatched.extend(networks.map(|(at, (address, length))| {
            let text = match crate::records::address(*address) {
                std::net::IpAddr::V4(ip) => format!("--dest {ip}/{}", length.saturating_sub(96)),
                std::net::IpAddr::V6(ip) => format!("--dest {ip}/{length}"),
            };
            (Asked::Network(at), text)
        }));
        let ports = selection.select.ports.iter();
        unmatched.extend(ports.map(|&port| (Asked::Port(port), format!("--port {port}"))));
        Self {
            selection: selection.clone(),
            processes: Bounded::new(PROCESSES),
            shown: HashSet::new(),
            unmatched,
            cgroups_known: false,
            passed: 0,
        }
    }

    /// Whether there is any.
    fn is_any(&self) -> bool {
        let Selection { probes, wanted, select } = &self.selection;
        !probes.is_empty() || wanted.by_owner() || *select != crate::known::select::Select::default()
    }

    fn matched(&mut self, asked: Asked) {
        self.unmatched.retain(|(known, _)| *known != asked);
    }

    /// A process was looked up.
    pub(super) fn process(&mut self, process: &ProcessContext) {
        let wanted = self.selection.wanted.clone();
        if !wanted.by_owner() {
            return;
        }
        let before = self.processes.get(&process.pid).copied().unwrap_or_default();
        let same =
            before.started_ns == process.started_ns || before.started_ns == 0 || process.started_ns == 0;
        let before = if same { before } else { Passes::default() };
        let parents: Vec<Passes> =
            process.ancestors.iter().filter_map(|pid| self.processes.get(pid).copied()).collect();
        let known = |pid: &u32| wanted.processes.contains(pid);
        let place =
            wanted.has_container(process) && wanted.has_cgroup(process.cgroups.iter().map(String::as_str));
        let passes = Passes {
            number: before.number
                || known(&process.pid)
                || process.ancestors.iter().any(known)
                || parents.iter().any(|parent| parent.number),
            name: before.name || parents.iter().any(|parent| parent.name),
            place,
            started_ns: process.started_ns.max(before.started_ns),
        };
        self.cgroups_known |= !process.cgroups.is_empty();
        self.processes.insert(process.pid, passes);
        self.matched(Asked::Process(process.pid));
        for pid in &process.ancestors {
            self.matched(Asked::Process(*pid));
        }
        if place {
            self.matched(Asked::Place);
        }
        for name in [Some(&process.comm), process.leader.as_ref()].into_iter().flatten() {
            self.goes_by(process.pid, name);
        }
    }

    /// A thread of a process has this name.
    fn goes_by(&mut self, pid: u32, name: &str) {
        let Some(at) = self.selection.wanted.comms.iter().position(|wanted| wanted == name) else { return };
        self.matched(Asked::Name(at));
        let passes = self.processes.get(&pid).copied().unwrap_or_default();
        self.processes.insert(pid, Passes { name: true, ..passes });
    }

    /// Whether a fact is shown.
    pub(super) fn fact(&mut self, fact: &Fact) -> bool {
        let connection = fact.what.described().towards();
        if let Some((ip, port)) = connection {
            self.meets(ip, port);
        }
        if let Some(process) = &fact.process {
            self.matched(Asked::Process(process.pid));
            self.goes_by(process.pid, &process.comm);
        }
        let Selection { probes, wanted, select } = &self.selection;
        let passes = (probes.is_empty() || probes.iter().any(|probe| probe == fact.probe))
            && fact.what.is_wanted(select)
            && connection.is_none_or(|(ip, port)| select.connection(ip, port))
            && (!wanted.by_owner()
                || fact.what.described().concerns_everyone()
                || self.owned(fact.process.as_ref()));
        self.passed += u64::from(passes);
        passes
    }

    /// Whether an incident is shown; one that was once, is until its end.
    pub(super) fn incident(&mut self, incident: &Incident) -> bool {
        if !self.shown.contains(&incident.id) && !self.wants(incident) {
            return false;
        }
        self.shown.insert(incident.id.clone());
        true
    }

    /// Incidents that were shown, when they were filtered.
    pub(super) fn incidents(&self) -> Option<u64> {
        self.is_any().then_some(self.shown.len() as u64)
    }

    fn wants(&self, incident: &Incident) -> bool {
        let Selection { probes, wanted, select } = &self.selection;
        let probe = incident.kind.probe();
        if !probes.is_empty() && !probes.iter().any(|wanted| wanted == probe) {
            return false;
        }
        let details = incident.details.described();
        let (concerns, everyone) = (details.passes(select), details.concerns_everyone());
        let cause = incident.cause.as_ref().and_then(|cause| cause.process.as_ref());
        let owned = || self.owned(incident.process.as_ref()) || (cause.is_some() && self.owned(cause));
        concerns && (!wanted.by_owner() || everyone || owned())
    }

    fn owned(&self, process: Option<&Process>) -> bool {
        let Some(process) = process else { return false };
        let wanted = &self.selection.wanted;
        let passes = self.processes.get(&process.pid).copied().unwrap_or_default();
        let in_place = !wanted.by_container() && wanted.cgroup.is_none();
        (wanted.processes.is_empty() || passes.number || wanted.processes.contains(&process.pid))
            && (wanted.comms.is_empty() || passes.name)
            && (in_place || passes.place)
    }

    fn meets(&mut self, ip: std::net::IpAddr, port: u16) {
        if self.unmatched.is_empty() {
            return;
        }
        self.matched(Asked::Port(port));
        for at in 0..self.selection.select.destinations.len() {
            let one = crate::known::select::Select {
                destinations: vec![self.selection.select.destinations[at]],
                ..Default::default()
            };
            if one.network(ip) {
                self.matched(Asked::Network(at));
            }
        }
    }

    /// What people should know of the filters when all has been read.
    pub(super) fn complaints(&self, recorded: Option<&Probes>) -> Vec<String> {
        let mut complaints = Vec::new();
        for probe in &self.selection.probes {
            if recorded.is_some_and(|recorded| !recorded.attached.contains(probe)) {
                complaints.push(format!("-e {probe}: this probe was not recorded"));
            }
        }
        for (asked, said) in &self.unmatched {
            complaints.push(match asked {
                Asked::Process(_) => format!("{said}: no such process is in the recording"),
                Asked::Name(_) => format!("{said}: no thread in the recording has this name"),
                Asked::Place if self.selection.wanted.cgroup.is_some() && !self.cgroups_known => {
                    format!("{said}: this recording is older than the cgroups of processes in it: choose by -p or --comm")
                }
                Asked::Place => format!("{said}: no process in the recording is there"),
                Asked::Network(_) => format!("{said}: nothing in the recording goes there"),
                Asked::Port(_) => format!("{said}: nothing in the recording uses this port"),
            });
        }
        if self.is_any() && self.passed == 0 && self.shown.is_empty() {
            complaints.push("nothing in the recording passed the filters".into());
        }
        complaints
    }
}
