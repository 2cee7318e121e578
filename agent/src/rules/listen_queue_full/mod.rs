//! `listen_queue_full`: a service accepts connections slower than they come, its accept queue is at its limit, and the
//! kernel ignores new ones. A burst that it catches up with is none: the SYNs are sent again. What its process does instead of
//! accepting, a look at its threads says; what that waits for is another rule's business.

mod say;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::connect::{Connect, Overflow, place},
};

use crate::{
    domains::{Event, Record, connect},
    known::{
        bounded::{Bounded, Table},
        context::Snapshot,
    },
    pipeline::{Diagnose, ProcessRef, Request, Rule, View, incident::Kind, world::World},
};

/// Services followed at most.
const SERVICES: usize = 256;
/// Clients remembered of each, at most.
const CLIENTS: usize = 8;
/// Connects of this host remembered of each, at most.
const CONNECTS: usize = 64;
/// A burst is over within this long: the first SYNs that are sent again get in.
const BURST_NS: u64 = 1_000_000_000;
/// None was ignored for this long.
const QUIET_NS: u64 = 10_000_000_000;

pub(super) const RULE: Rule = Rule {
    kind: Kind::ListenQueueFull,
    about: "a service's accept queue is full and new connections are ignored: program, port, limit, what its threads do",
    opens: "SYNs are ignored for a full accept queue, and again a second later",
    make: || Box::new(ListenQueueFull::default()),
};

struct ListenQueueFull {
    full: Bounded<(Netns, u16), Full>,
}

impl Default for ListenQueueFull {
    fn default() -> Self {
        Self { full: Bounded::new(SERVICES) }
    }
}

/// A service that ignores SYNs.
struct Full {
    last: Overflow,
    clients: BTreeSet<[u8; 16]>,
    /// Connects of this host whose SYNs it ignored, by cookie.
    connects: BTreeSet<u64>,
    /// The process that listens was asked for.
    asked: u32,
    snapshot: Option<Snapshot>,
    /// A connect of this host has been ignored for longer than a burst: since before culprit started.
    before_start: bool,
    /// SYNs ignored when it was last reported.
    emitted: u64,
    id: Option<String>,
}

impl Diagnose for ListenQueueFull {
    fn tables(&self) -> Vec<Table> {
        vec![self.full.table("listen_queue_full")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Connect(connect::Record::Overflow(overflow)) => self.overflowed(overflow, view),
            Record::Connect(connect::Record::Connect(_, connect)) => self.ignored(connect, view),
            Record::Tick => {
                self.judge(view);
                self.quiet(view);
            }
            _ => {}
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, _view: &mut View<'_>) {
        let asked = if snapshot.asked == 0 { snapshot.process } else { snapshot.asked };
        for (_, full) in self.full.iter_mut() {
            if full.asked == asked && full.snapshot.is_none() {
                full.snapshot = Some(snapshot.clone());
            }
        }
    }
}

impl Full {
    fn new(overflow: &Overflow) -> Self {
        Self {
            last: *overflow,
            clients: BTreeSet::new(),
            connects: BTreeSet::new(),
            asked: 0,
            snapshot: None,
            before_start: false,
            emitted: 0,
            id: None,
        }
    }

    /// Whose it is, as far as that is known.
    fn listener(&self, world: &World) -> Owner {
        let mut owner = Owner { netns: self.last.netns, ..Owner::default() };
        world.known.adopt(&mut owner, &self.last.tuple);
        owner
    }

    /// It is no burst.
    fn lasts(&self) -> bool {
        self.before_start || self.last.last_ns.saturating_sub(self.last.since_ns) >= BURST_NS
    }

    /// Whether it is to be waited for what a look at its process shows, which comes before time goes on.
    fn awaits_look(&mut self, view: &mut View<'_>) -> bool {
        let process = self.listener(view.world).process;
        let asks = self.id.is_none() && self.asked == 0 && process != 0;
        if asks {
            self.asked = process;
            view.requests.push(Request::Process(ProcessRef { process, thread: 0, cookie: 0 }));
        }
        asks
    }
}

impl ListenQueueFull {
    fn overflowed(&mut self, overflow: &Overflow, view: &mut View<'_>) {
        let key = (overflow.netns, overflow.tuple.local_port);
        if self.full.get(&key).is_none() {
            self.full.insert(key, Full::new(overflow));
        }
        let Some(full) = self.full.get_mut(&key) else { return };
        full.last = *overflow;
        if full.clients.len() < CLIENTS {
            full.clients.insert(overflow.tuple.remote);
        }
        if !full.lasts() || full.awaits_look(view) {
            return;
        }
        let Some(id) = full.id.clone() else { return };
        if overflow.ignored >= full.emitted.saturating_mul(2) {
            full.emitted = overflow.ignored;
            let report = say::report(full, false, view);
            view.store.update(view.now_ns, view.world, &id, report);
        }
        Self::explain(full, &id, view);
    }

    /// A connect of this host is among those that are ignored.
    fn ignored(&mut self, connect: &Connect, view: &mut View<'_>) {
        if connect.drop_where & place::QUEUE_FULL == 0 {
            return;
        }
        let lost = view.world.domains.connect.lost_packet(connect);
        let netns = lost.map_or(connect.owner.netns, |lost| lost.netns);
        let Some(full) = self.full.get_mut(&(netns, connect.way().remote_port)) else { return };
        if full.connects.len() < CONNECTS {
            full.connects.insert(connect.cookie);
        }
        if connect.is_adopted() && full.last.last_ns.saturating_sub(connect.started_ns) >= BURST_NS {
            full.before_start = true;
            full.awaits_look(view);
        }
    }

    /// Opens what has been looked at, or could not be.
    fn judge(&mut self, view: &mut View<'_>) {
        for (_, full) in self.full.iter_mut() {
            if !full.lasts() || !view.world.known.is_wanted(&full.listener(view.world)) {
                continue;
            }
            let id = match &full.id {
                Some(id) => id.clone(),
                None => {
                    full.emitted = full.last.ignored;
                    let report = say::report(full, false, view);
                    let id = view.store.open(view.now_ns, view.world, report);
                    full.id = Some(id.clone());
                    id
                }
            };
            Self::explain(full, &id, view);
        }
    }

    /// Whatever incidents those connects are part of point to this one.
    fn explain(full: &Full, id: &str, view: &mut View<'_>) {
        for cookie in &full.connects {
            view.store.explain(view.now_ns, view.world, *cookie, id);
        }
    }

    fn quiet(&mut self, view: &mut View<'_>) {
        let now_ns = view.now_ns;
        let is_over = |full: &Full| now_ns.saturating_sub(full.last.last_ns) >= QUIET_NS;
        let over: Vec<(Netns, u16)> =
            self.full.iter().filter(|(_, full)| is_over(full)).map(|(key, _)| *key).collect();
        for key in over {
            let Some(full) = self.full.remove(&key) else { continue };
            if let Some(id) = &full.id {
                view.store.over(full.last.last_ns, id, say::report(&full, true, view));
            }
        }
    }
}
