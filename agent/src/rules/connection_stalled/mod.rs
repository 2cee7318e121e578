//! `connection_stalled`: data on an established connection is sent again and again and not acknowledged. Whether large
//! segments are lost on the way, the connection was forgotten there, this host or a neighbour drops it, or the peer is
//! silent is what it says. A peer that does not read closes its window, and a link that loses some recovers: neither is
//! one. It does not know what the data was for, except that a handshake was under way.

mod finding;
mod groups;
mod say;
#[cfg(test)]
mod tests;

use ebpf_probes::probes::{
    connect::{Connect, Unacked},
    tls::{CLIENT, SERVER, stage},
};
pub(super) use finding::{Finding, idle_ns};
use groups::Groups;

use super::{neighbours, text};
use crate::{
    domains::{
        Event, Record,
        connect::{self, data_end, owner_of},
        tls::{self, TlsStep},
    },
    known::bounded::{Bounded, Table},
    pipeline::{Diagnose, Rule, View, incident::Kind},
    records,
};

/// A peer that is heard and acknowledges nothing is reported after this long.
const DEAF_NS: u64 = 2_500_000_000;
/// Handshakes remembered, for what it was that is not acknowledged.
const HANDSHAKES: usize = 1024;

pub(super) const RULE: Rule = Rule {
    kind: Kind::ConnectionStalled,
    about: "data on an established connection is sent again and not acknowledged: path MTU, a connection forgotten by NAT, a drop here, a silent peer",
    opens: "sent again after 3 timeouts, or for 3 s, while the peer's window is open",
    make: || Box::new(ConnectionStalled { groups: Groups::default(), handshakes: Bounded::new(HANDSHAKES) }),
};

struct ConnectionStalled {
    groups: Groups,
    /// Where handshakes stand that are under way: role and stage, by cookie.
    handshakes: Bounded<u64, (u32, u32)>,
}

impl Diagnose for ConnectionStalled {
    fn tables(&self) -> Vec<Table> {
        vec![self.groups.table(), self.handshakes.table("connection_stalled_handshakes")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Connect(connect::Record::Unacked(unacked)) => self.waits(unacked, view),
            Record::Connect(connect::Record::Settled(unacked)) => self.settled(unacked, event.boot_ns, view),
            Record::Tls(tls::Record::Handshake(TlsStep::Phase | TlsStep::Pending, hs)) => {
                if hs.stage >= stage::DONE {
                    self.handshakes.remove(&hs.cookie);
                } else {
                    self.handshakes.insert(hs.cookie, (hs.role, hs.stage));
                }
            }
            _ => {}
        }
    }
}

impl ConnectionStalled {
    fn waits(&mut self, unacked: &Unacked, view: &mut View<'_>) {
        let owner = owner_of(&view.world.known, unacked);
        // A stalled handshake says more.
        let other =
            view.store.live_claim(unacked.cookie).filter(|(_, kind)| *kind != Kind::ConnectionStalled);
        if (unacked.cookie != 0 && other.is_some()) || !view.world.known.is_wanted(&owner) {
            return;
        }
        let as_connect = as_connect(unacked);
        let explained_by = neighbours::explaining(&as_connect, view);
        // A neighbour that does not answer is reported as such as soon as the kernel gives up: moments from now.
        let is_known = self.groups.of(unacked).is_some();
        if !is_known
            && explained_by.is_empty()
            && view.world.neighbour_under(&as_connect, view.now_ns).is_some()
        {
            return;
        }
        let finding = Finding::of(unacked, !explained_by.is_empty());
        // A peer that is heard and does not hear may be one whose entry is wrong, which shows moments later.
        let age_ns = view.now_ns.saturating_sub(unacked.since_ns);
        if !is_known && finding == Finding::Deaf && age_ns < DEAF_NS {
            return;
        }
        let subject = subject(unacked, &owner, finding, view);
        let Some((number, is_new)) = self.groups.add(unacked, owner, &subject) else { return };
        let what = self.what(unacked);
        let Some(group) = self.groups.get_mut(number) else { return };
        if group.id.is_empty() {
            group.what = what;
        }
        neighbours::merge(&mut group.explained_by, explained_by);
        let (id, total) = (group.id.clone(), group.total);
        let is_lead = self.groups.lead(number).is_some_and(|lead| lead.unacked.tuple == unacked.tuple);
        // One connection more is reported when their number has doubled; what is new of the oldest always is.
        let is_news = is_lead || (is_new && total.is_power_of_two());
        if !id.is_empty() && !is_news {
            return claim(unacked, &id, view);
        }
        let Some(report) = say::report(self, number, view.now_ns, None, view) else { return };
        if id.is_empty() {
            let id = view.store.open(view.now_ns, view.world, report);
            if let Some(group) = self.groups.get_mut(number) {
                group.id.clone_from(&id);
            }
            return claim(unacked, &id, view);
        }
        view.store.update(view.now_ns, view.world, &id, report);
        claim(unacked, &id, view);
    }

    /// What it is that is not acknowledged.
    fn what(&self, unacked: &Unacked) -> &'static str {
        match self.handshakes.get(&unacked.cookie).filter(|_| unacked.cookie != 0) {
            Some((CLIENT, stage::HELLO_PARTIAL | stage::HELLO)) => "ClientHello",
            Some((SERVER, stage::SERVER_FLIGHT)) => "certificate flight",
            Some(_) => "TLS message",
            None => "data",
        }
    }

    fn settled(&mut self, unacked: &Unacked, ended_ns: u64, view: &mut View<'_>) {
        let Some(number) = self.groups.of(unacked) else { return };
        if self.groups.waiting(number) > 1 {
            self.groups.end(unacked);
            return;
        }
        let end = data_end(unacked);
        let report = say::report(self, number, ended_ns, Some(end), view);
        self.groups.end(unacked);
        if let (Some(group), Some(report)) = (self.groups.close(number), report) {
            view.store.over(ended_ns, &group.id, report);
        }
    }
}

/// Who asks of the connection finds this incident.
fn claim(unacked: &Unacked, id: &str, view: &mut View<'_>) {
    if unacked.cookie != 0 {
        view.store.claim(unacked.cookie, id);
    }
}

/// What one situation is about: a program and its peer, or a service and why its clients are not reached.
fn subject(unacked: &Unacked, owner: &ebpf_probes::abi::Owner, finding: Finding, view: &View<'_>) -> String {
    let (netns, program, _) = text::program_of(owner, view.world);
    let tuple = &unacked.tuple;
    if is_service(unacked, view) {
        let what = if finding.is_path_mtu() { "path_mtu" } else { "silent" };
        format!("{netns}|{program}|:{}|{what}", tuple.local_port)
    } else {
        format!("{netns}|{program}|{}|{}", records::address(tuple.remote), tuple.remote_port)
    }
}

/// Whether this host is the one that listens.
fn is_service(unacked: &Unacked, view: &View<'_>) -> bool {
    let local = records::address(unacked.tuple.local);
    view.world.known.listener_at(unacked.owner.netns, local, unacked.tuple.local_port).is_some()
}

/// The connection, as what asks about connects takes it.
fn as_connect(unacked: &Unacked) -> Connect {
    Connect {
        cookie: unacked.cookie,
        owner: unacked.owner,
        tuple: unacked.tuple,
        started_ns: unacked.since_ns,
        ..Connect::default()
    }
}
