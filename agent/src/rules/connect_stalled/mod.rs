//! `connect_stalled`: unanswered TCP connects, outside any handshake that they explain. Where the silence
//! comes from (this host, a full queue, another address, the network) is what it says; a neighbour that does not
//! answer has a rule of its own. It does not ask why a process connects there.

mod groups;
mod say;
#[cfg(test)]
mod tests;

use ebpf_probes::probes::connect::{Connect, packet, place};
use groups::{Fate, Groups};

use super::{after_handshake::Finished, drops::Reason, families, neighbours};
use crate::{
    domains::{
        Event, Record,
        connect::{self, ConnectStep},
    },
    known::{
        bounded::{Bounded, Table},
        context::Snapshot,
    },
    pipeline::{Diagnose, Rule, View, incident::Kind, report::Report},
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::ConnectStalled,
    about: "TCP connects of a program are unanswered: process, destinations, SYN retries, and whether this host drops them",
    opens: "a connect is pending for 3 s (--connect-stall) and no stalled TLS handshake is explained by it",
    make: || {
        Box::new(ConnectStalled {
            groups: Groups::default(),
            closing: Bounded::new(CLOSING),
            finished: Finished::new(),
            asked: Vec::new(),
        })
    },
};

/// Incidents that ended a moment ago and may be completed, at most.
const CLOSING: usize = 256;
/// A connect to the other address family within this long of the end of a silent one is what the program fell back to.
const FALLBACK_NS: u64 = 2_000_000_000;

struct ConnectStalled {
    groups: Groups,
    /// IPv6 incidents that are over since a moment, by the process's id and the port: what an IPv4 success adds to.
    closing: Bounded<(u32, u16), Closing>,
    /// Handshakes that have just finished: for whose sake it may connect.
    finished: Finished,
    /// Connects whose process is being looked at first.
    asked: Vec<Connect>,
}

/// Connects that wait for a look at most: what comes beyond is reported without.
const ASKED: usize = 64;

struct Closing {
    id: String,
    report: Report,
    ended_ns: u64,
    netns: ebpf_probes::abi::Netns,
}

impl Diagnose for ConnectStalled {
    fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.groups.table(), self.closing.table("connect_stalled_closing")];
        tables.extend(self.finished.tables());
        tables
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        self.finished.event(event);
        if matches!(event.what, Record::Tick) {
            self.answered(view);
        }
        let Record::Connect(connect::Record::Connect(step, connect)) = &event.what else { return };
        match step {
            ConnectStep::Pending if self.asked.len() < ASKED && self.finished.wants_look(connect, view) => {
                self.asked.push(*connect);
            }
            ConnectStep::Pending => self.pending(connect, view),
            ConnectStep::End => {
                self.ended(connect, event.boot_ns, view);
                self.fell_back(connect, event.boot_ns, view);
            }
            _ => {}
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, view: &mut View<'_>) {
        self.finished.snapshot(snapshot);
        self.answered(view);
    }
}

impl ConnectStalled {
    /// The look has come, or will not.
    fn answered(&mut self, view: &mut View<'_>) {
        for connect in std::mem::take(&mut self.asked) {
            self.pending(&connect, view);
        }
    }

    fn pending(&mut self, connect: &Connect, view: &mut View<'_>) {
        let own = self.groups.of(connect.cookie);
        let is_own =
            |id: &str| own.and_then(|number| self.groups.get(number)).is_none_or(|group| group.id == id);
        if view.store.claimed(connect.cookie).is_some_and(|id| !is_own(id) || own.is_none())
            || !view.world.known.is_wanted(&connect.owner)
        {
            return;
        }
        // A neighbour that does not answer is reported as such as soon as the kernel gives up: moments from now.
        if view.world.neighbour_under(connect, view.now_ns).is_some() {
            return;
        }
        let explained_by = neighbours::explaining(connect, view);
        let fate = fate(connect, !explained_by.is_empty(), view);
        let Some((number, is_new)) = self.groups.add(connect, fate, view.world) else { return };
        let is_lead = self.groups.lead(number).is_some_and(|lead| lead.cookie == connect.cookie);
        let Some(group) = self.groups.get_mut(number) else { return };
        neighbours::merge(&mut group.explained_by, explained_by);
        let (id, total) = (group.id.clone(), group.total);
        let now_ns = view.now_ns;
        if id.is_empty() {
            let Some(report) = say::report(&self.groups, &self.finished, number, now_ns, None, view) else {
                return;
            };
            let id = view.store.open(now_ns, view.world, report);
            if let Some(group) = self.groups.get_mut(number) {
                group.id.clone_from(&id);
            }
            view.store.claim(connect.cookie, &id);
            return;
        }
        view.store.claim(connect.cookie, &id);
        // One connect more is reported when their number has doubled; the oldest one's age always is.
        if (is_lead || (is_new && total.is_power_of_two()))
            && let Some(report) = say::report(&self.groups, &self.finished, number, now_ns, None, view)
        {
            view.store.update(now_ns, view.world, &id, report);
        }
    }

    fn ended(&mut self, connect: &Connect, ended_ns: u64, view: &mut View<'_>) {
        self.asked.retain(|asked| asked.cookie != connect.cookie);
        let Some(number) = self.groups.of(connect.cookie) else { return };
        self.groups.ended(connect);
        let explained_by = neighbours::explaining(connect, view);
        if let Some(group) = self.groups.get_mut(number) {
            neighbours::merge(&mut group.explained_by, explained_by);
        }
        if self.groups.waiting(number) <= 1 {
            let id = self.groups.get(number).map(|group| group.id.clone()).unwrap_or_default();
            if let Some(report) =
                say::report(&self.groups, &self.finished, number, ended_ns, Some(connect), view)
            {
                if connect.established == 0 && families::is_v6(connect) {
                    let owner = connect.owner;
                    let closing =
                        Closing { id: id.clone(), report: report.clone(), ended_ns, netns: owner.netns };
                    self.closing.insert((owner.process, connect.tuple.remote_port), closing);
                }
                view.store.over(ended_ns, &id, report);
            }
            self.groups.end(connect.cookie);
            self.groups.close(number);
        } else {
            self.groups.end(connect.cookie);
        }
    }

    /// IPv4 answers the process a moment after IPv6 was silent for it.
    fn fell_back(&mut self, connect: &Connect, ended_ns: u64, view: &mut View<'_>) {
        if connect.established == 0 || families::is_v6(connect) {
            return;
        }
        let Some(closing) = self.closing.remove(&(connect.owner.process, connect.tuple.remote_port)) else {
            return;
        };
        if closing.netns != connect.owner.netns || ended_ns.saturating_sub(closing.ended_ns) > FALLBACK_NS {
            return;
        }
        let mut report = closing.report;
        families::answered(&mut report, connect, ended_ns, view.world);
        view.store.over(closing.ended_ns, &closing.id, report);
    }
}

/// Who swallows a connect's packets.
fn fate(connect: &Connect, neighbour: bool, view: &View<'_>) -> Fate {
    if neighbour {
        return Fate::Neighbour;
    }
    if connect.drops > 0 {
        let reason = if connect.drop_where & place::QUEUE_FULL != 0 {
            Reason::QueueFull
        } else {
            Reason::of(view.world.drop_reason(connect.drop_reason).as_deref())
        };
        return Fate::Dropped(reason, connect.drop_where & !place::STRAY & !packet::MASK);
    }
    if view.world.stray_answer(connect).is_some() { Fate::Stray } else { Fate::Silent }
}
