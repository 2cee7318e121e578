//! `response_overdue`: a process that was asked for has sent something over a connection it made, the peer has
//! acknowledged it, and nothing comes. How long an answer may take cannot be known: it is for who points at a process
//! and asks what it waits for, and never for the whole machine.

mod say;
#[cfg(test)]
mod tests;
mod usual;

use usual::Usual;

use crate::{
    domains::Event,
    known::{
        bounded::{Bounded, Table},
        context::{Watched, WatchedConnection},
    },
    pipeline::{Diagnose, Rule, View, incident::Kind},
};

/// Answers awaited at a time, at most.
const AWAITED: usize = 256;
/// An answer is overdue after that long.
const OVERDUE_MS: u32 = 10_000;
/// Nor is one overdue that takes no longer than so many times the longest one seen from that peer.
const LONGER: u64 = 3;
/// What is sent this soon after something came may be a reply that is not answered, where no thread waits for it.
const REPLY_MS: u32 = 1000;

pub(super) const RULE: Rule = Rule {
    kind: Kind::ResponseOverdue,
    about: "a process you pointed at waits for the answer to what it sent, which the peer acknowledged: peer, bytes, since when, how long answers took",
    opens: "with -p, --comm, --pod and the like, -- CMD or `why`: nothing has come for 10 s, and for three times as long as answers took",
    make: || Box::new(ResponseOverdue::default()),
};

struct ResponseOverdue {
    awaited: Bounded<u64, Awaited>,
    usual: Usual,
}

impl Default for ResponseOverdue {
    fn default() -> Self {
        Self { awaited: Bounded::new(AWAITED), usual: Usual::default() }
    }
}

/// An incident that is open.
struct Awaited {
    process: u32,
    id: String,
    /// As it was seen last while it was awaited.
    last: Seen,
}

/// A connection as it was seen, and by whom.
#[derive(Clone)]
struct Seen {
    watched: Watched,
    connection: WatchedConnection,
}

impl Diagnose for ResponseOverdue {
    fn tables(&self) -> Vec<Table> {
        let [peers, counted] = self.usual.tables();
        vec![self.awaited.table("response_overdue"), peers, counted]
    }

    fn event(&mut self, _event: &Event, _view: &mut View<'_>) {}

    fn watched(&mut self, watched: &Watched, view: &mut View<'_>) {
        let owner = watched.owner();
        if !view.world.known.is_wanted(&owner) {
            return;
        }
        self.resolve(watched, view);
        for connection in &watched.connections {
            self.usual.add(connection);
            if self.awaited.get(&connection.socket.cookie).is_none() && self.is_overdue(connection) {
                self.open(watched, connection, view);
            }
        }
    }
}

impl ResponseOverdue {
    fn is_overdue(&self, connection: &WatchedConnection) -> bool {
        let socket = &connection.socket;
        let longest = self.usual.of(socket.remote).map_or(0, |usual| usual.longest_ms);
        is_awaited(connection)
            && socket.sent_ms_ago >= OVERDUE_MS
            && u64::from(socket.sent_ms_ago) > longest.saturating_mul(LONGER)
    }

    fn open(&mut self, watched: &Watched, connection: &WatchedConnection, view: &mut View<'_>) {
        let cookie = connection.socket.cookie;
        // A handshake that stalls says more; one whose ClientHello alone was sent is about to.
        let greets = connection.socket.received_bytes == 0 && view.world.offered_version(cookie).is_some();
        if greets || view.store.live_claim(cookie).is_some() {
            return;
        }
        let alone = Watched { connections: vec![], ..watched.clone() };
        let last = Seen { watched: alone, connection: connection.clone() };
        let report = say::report(&last, self.usual.of(connection.socket.remote), None, view);
        let id = view.store.open(view.now_ns, view.world, report);
        view.store.claim(cookie, &id);
        self.awaited.insert(cookie, Awaited { process: watched.process, id, last });
    }

    /// Ends those of this process whose answer has come, or that are closed.
    fn resolve(&mut self, watched: &Watched, view: &mut View<'_>) {
        let of_it = self.awaited.iter().filter(|(_, awaited)| awaited.process == watched.process);
        let cookies: Vec<u64> = of_it.map(|(cookie, _)| *cookie).collect();
        for cookie in cookies {
            let now = watched.connections.iter().find(|connection| connection.socket.cookie == cookie);
            let end = match now {
                Some(connection) if connection.socket.peer_is_next() => {
                    if let Some(awaited) = self.awaited.get_mut(&cookie) {
                        awaited.last.connection = connection.clone();
                        awaited.last.watched.boot_ns = watched.boot_ns;
                    }
                    continue;
                }
                Some(_) => End::Answered,
                None if watched.cut => continue,
                None => End::Closed,
            };
            let Some(awaited) = self.awaited.remove(&cookie) else { continue };
            let usual = self.usual.of(awaited.last.connection.socket.remote);
            let report = say::report(&awaited.last, usual, Some(end), view);
            view.store.over(watched.boot_ns, &awaited.id, report);
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Something came.
    Answered,
    /// The process closed it, or ended.
    Closed,
}

/// What was sent is acknowledged, the peer is next, and a thread waits for it, or an event loop that may.
fn is_awaited(connection: &WatchedConnection) -> bool {
    let socket = &connection.socket;
    // Many protocols end an exchange with something that is not answered: acknowledgements of their own, farewells.
    let asks_again =
        socket.received_bytes == 0 || socket.received_ms_ago.saturating_sub(socket.sent_ms_ago) >= REPLY_MS;
    socket.is_established()
        && socket.has_sent()
        && socket.unacked == 0
        && socket.peer_is_next()
        && (connection.thread.is_some() || (connection.event_loop && asks_again))
}
