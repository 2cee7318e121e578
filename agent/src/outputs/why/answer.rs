//! What the answer is made of: the processes asked about, what each of their threads waits for, and the processes that
//! those waits lead to.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::waits::{self, Wait};
use crate::{
    config,
    known::context::{Between, Chain, Link, SeenThread},
    pipeline::{incident::Incident, remedy::Remedy},
};

/// Version of the answer's shape. Within v1 it only ever grows.
const SCHEMA: &str = "culprit.why/v1";

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'static str,
    /// What was asked about.
    pub(super) about: &'a str,
    /// Something is waited for outside the processes asked about.
    pub(super) waits: bool,
    /// The processes asked about, with what they wait for.
    pub(super) processes: Vec<Waiter>,
    /// There was more than is followed.
    pub(super) cut: bool,
    /// What to do, beside what the incidents say.
    #[serde(rename = "try", skip_serializing_if = "Vec::is_empty")]
    pub(super) remedies: Vec<Remedy>,
    /// Open incidents about any of them.
    pub(super) incidents: Vec<&'a Incident>,
}

/// A process, and what it waits for.
#[derive(Debug, Serialize)]
pub(super) struct Waiter {
    pub(super) pid: u32,
    pub(super) comm: String,
    /// It stands elsewhere in the answer, with what it waits for.
    pub(super) again: bool,
    pub(super) threads: Vec<Doing>,
    /// Threads left out.
    pub(super) threads_left_out: u32,
    /// What holds it as a whole, and what is waited for by no thread in particular.
    pub(super) waits: Vec<Wait>,
    /// The processes that no thread in particular waits for, each with what is between.
    pub(super) on: Vec<On>,
}

/// Threads that do the same.
#[derive(Debug, Serialize)]
pub(super) struct Doing {
    pub(super) tids: Vec<u32>,
    /// What they do.
    pub(super) text: String,
    /// What they wait for.
    pub(super) waits: Vec<Wait>,
    /// The processes they wait for, each with what is between.
    pub(super) on: Vec<On>,
    /// What to do about those.
    #[serde(skip)]
    pub(super) remedies: Vec<Remedy>,
}

/// A process that is waited for.
#[derive(Debug, Serialize)]
pub(super) struct On {
    /// What is between.
    pub(super) by: String,
    #[serde(flatten)]
    pub(super) process: Waiter,
}

impl<'a> Answer<'a> {
    /// `pending`: connects and lookups that wait now, by process.
    pub(super) fn new(
        asked: &'a config::Answer,
        pending: &BTreeMap<u32, Vec<Wait>>,
        incidents: Vec<&'a Incident>,
    ) -> Self {
        let mut tree = Tree { chain: &asked.chain, pending, seen: BTreeSet::new() };
        let processes: Vec<Waiter> =
            asked.chain.targets.iter().filter_map(|process| tree.process(*process)).collect();
        let mut remedies = Vec::new();
        for process in &processes {
            let explained = |pid: u32| {
                incidents.iter().any(|one| one.process.as_ref().is_some_and(|process| process.pid == pid))
            };
            process.remedies(&explained, &mut remedies);
        }
        Self {
            kind: "why",
            schema: SCHEMA,
            about: &asked.about,
            waits: !incidents.is_empty() || processes.iter().any(Waiter::is_waiting),
            processes,
            cut: asked.chain.cut,
            remedies,
            incidents,
        }
    }
}

impl Waiter {
    fn is_waiting(&self) -> bool {
        !self.waits.is_empty()
            || !self.on.is_empty()
            || self.threads.iter().any(|doing| !doing.waits.is_empty() || !doing.on.is_empty())
    }

    /// What to do about its waits and those they lead to, where no incident says it.
    fn remedies(&self, explained: &impl Fn(u32) -> bool, all: &mut Vec<Remedy>) {
        let on = self.on.iter().chain(self.threads.iter().flat_map(|doing| &doing.on));
        on.for_each(|on| on.process.remedies(explained, all));
        if explained(self.pid) {
            return;
        }
        let waits = self.waits.iter().chain(self.threads.iter().flat_map(|doing| &doing.waits));
        let on = self.threads.iter().flat_map(|doing| &doing.remedies);
        for remedy in waits.flat_map(|wait| &wait.remedies).chain(on) {
            if !all.contains(remedy) {
                all.push(remedy.clone());
            }
        }
    }
}

/// The processes of a chain, as they come to be written.
struct Tree<'a> {
    chain: &'a Chain,
    pending: &'a BTreeMap<u32, Vec<Wait>>,
    seen: BTreeSet<u32>,
}

impl Tree<'_> {
    fn process(&mut self, process: u32) -> Option<Waiter> {
        let looked = self.chain.of(process)?;
        let snapshot = &looked.snapshot;
        let mut waiter = Waiter {
            pid: process,
            comm: looked.comm.clone(),
            again: !self.seen.insert(process),
            threads: Vec::new(),
            threads_left_out: snapshot.threads_left_out,
            waits: Vec::new(),
            on: Vec::new(),
        };
        if waiter.again {
            return Some(waiter);
        }
        let pending = self.pending.get(&process).map_or(&[][..], Vec::as_slice);
        let mut placed: BTreeSet<u64> = BTreeSet::new();
        for thread in &snapshot.threads {
            let tid = thread.shown.tid;
            let is_its = |wait: &&Wait| thread.sockets.contains(&wait.cookie) || wait.thread == tid;
            let mut waits: Vec<Wait> = pending.iter().filter(is_its).cloned().collect();
            placed.extend(waits.iter().map(|wait| wait.cookie));
            let on = self.on(process, Some(thread));
            let local = thread.local.as_ref().filter(|_| !on.is_empty());
            let remedies = local.map(waits::remedies).unwrap_or_default();
            if waits.is_empty() && on.is_empty() {
                waits.extend(waits::of_thread(thread, looked));
            }
            merge(&mut waiter.threads, Doing { tids: vec![tid], text: thread.words(), waits, on, remedies });
        }
        waiter.waits = waits::of_process(looked);
        waiter.waits.extend(pending.iter().filter(|wait| !placed.contains(&wait.cookie)).cloned());
        waiter.on = self.on(process, None);
        Some(waiter)
    }

    /// The processes that a thread waits for, or that no thread in particular does.
    fn on(&mut self, process: u32, thread: Option<&SeenThread>) -> Vec<On> {
        let tid = thread.map(|thread| thread.shown.tid);
        let mut links: Vec<&Link> = self.chain.from(process, tid).collect();
        links.dedup();
        let on = |link: &Link| {
            let by = match link.by {
                Between::Tcp(to) => {
                    let sockets = self.chain.of(process).map_or(&[][..], |looked| &looked.snapshot.sockets);
                    let ours = sockets.iter().find(|socket| socket.remote == to && socket.peer_is_next());
                    match ours.filter(|socket| socket.is_established()) {
                        Some(socket) => format!("TCP {to}: {}", waits::said(socket)),
                        None => format!("TCP {to}"),
                    }
                }
                Between::Udp(to) => format!("UDP {to}"),
                Between::Child => "its child".into(),
                Between::Local => thread.and_then(|thread| thread.local.as_ref()).map(waits::object)?,
            };
            Some(On { by, process: self.process(link.on)? })
        };
        links.into_iter().filter_map(on).collect()
    }
}

/// Adds what a thread does; threads that do the same and wait for nothing stand together.
fn merge(threads: &mut Vec<Doing>, one: Doing) {
    let idle = |doing: &Doing| doing.waits.is_empty() && doing.on.is_empty();
    let like = threads.iter_mut().find(|doing| doing.text == one.text && idle(doing) && idle(&one));
    match like {
        Some(doing) => doing.tids.extend(one.tids),
        None => threads.push(one),
    }
}
