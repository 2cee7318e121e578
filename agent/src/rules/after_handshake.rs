//! Whether an unanswered connect to port 80 fetches what the validation of a certificate needs, after the
//! last message of a handshake: begun right after it by the same process, which has sent nothing on that connection
//! since. It knows handshakes that were reported only: with anomalies only healthy ones are not.

use ebpf_probes::probes::{
    connect::Connect,
    tls::{CLIENT, CLIENT_CERTIFICATE, Handshake, stage},
};

use super::fetch::{self, For, HTTP};
use crate::{
    domains::{
        Event, Record,
        tls::{self, TlsStep},
    },
    fact::Endpoint,
    known::{
        bounded::{Bounded, Table},
        context::{SeenSocket, Snapshot},
    },
    pipeline::{ProcessRef, Request, View, remedy::Remedy},
    rules::text,
};

/// Finished handshakes remembered, and looks.
const FINISHED: usize = 1024;
const LOOKS: usize = 64;
/// A validation begins within this long of the last message.
const AFTER_NS: u64 = 1_000_000_000;
/// What the kernel says of a socket's times is exact to a few jiffies.
const EXACT_NS: u64 = 30_000_000;
/// Peers named at most.
const PEERS: usize = 4;

/// Handshakes that have finished, and looks at processes that connect to port 80 without an answer.
pub(super) struct Finished {
    by_cookie: Bounded<u64, Handshake>,
    looks: Bounded<u32, Snapshot>,
    /// Connects for whose sake a process was looked at.
    looked: Bounded<u64, ()>,
}

/// Peers whose certificates wait for what is fetched.
pub(super) struct Validation {
    /// They, those who have waited longest first.
    pub(super) peers: Vec<Endpoint>,
    /// What to do about the fetch.
    pub(super) remedies: Vec<Remedy>,
    /// The reason in words.
    pub(super) why: String,
    /// The last message of the first of them: when, and in words.
    pub(super) seen: (u64, String),
}

impl Finished {
    pub(super) fn new() -> Self {
        Self { by_cookie: Bounded::new(FINISHED), looks: Bounded::new(LOOKS), looked: Bounded::new(FINISHED) }
    }

    pub(super) fn tables(&self) -> Vec<Table> {
        vec![self.by_cookie.table("handshakes_finished"), self.looks.table("handshakes_finished_looks")]
    }

    pub(super) fn event(&mut self, event: &Event) {
        let Record::Tls(tls::Record::Handshake(TlsStep::Phase, hs)) = &event.what else { return };
        let last = match hs.role {
            CLIENT => hs.stage == stage::CLIENT_FINISH || hs.stage == stage::DONE,
            // A server judges only who has shown a certificate.
            _ => hs.stage == stage::DONE && hs.flags & CLIENT_CERTIFICATE != 0,
        };
        if last {
            self.by_cookie.insert(hs.cookie, *hs);
        }
    }

    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) {
        self.looks.insert(snapshot.process, snapshot.clone());
    }

    /// Whether the process has to be looked at before anything is said of this connect. Asked once.
    pub(super) fn wants_look(&mut self, connect: &Connect, view: &mut View<'_>) -> bool {
        let process = connect.owner.process;
        let finished = self.by_cookie.values().any(|hs| is_before(hs, connect));
        if connect.tuple.remote_port != HTTP || !finished || self.looked.get(&connect.cookie).is_some() {
            return false;
        }
        self.looked.insert(connect.cookie, ());
        view.requests.push(Request::Process(ProcessRef {
            process,
            thread: connect.owner.thread,
            cookie: connect.cookie,
        }));
        true
    }

    /// The validation that a connect is part of, if it is.
    pub(super) fn validation(&self, connect: &Connect, view: &View<'_>) -> Option<Validation> {
        let look = self.looks.get(&connect.owner.process)?;
        if connect.tuple.remote_port != HTTP || look.boot_ns < connect.started_ns {
            return None;
        }
        let waits = |hs: &&Handshake| {
            let socket = look.sockets.iter().find(|socket| socket.cookie == hs.cookie);
            is_before(hs, connect) && socket.is_some_and(|socket| is_silent_since(socket, hs, look.boot_ns))
        };
        let mut waiting: Vec<&Handshake> = self.by_cookie.values().filter(waits).collect();
        waiting.sort_by_key(|hs| (hs.moved_ns, hs.cookie));
        let first = waiting.first()?;
        let peer = |hs: &&Handshake| tls::session_ends(&view.world.known, hs, &hs.owner).1;
        let peers: Vec<Endpoint> = waiting.iter().map(peer).take(PEERS).collect();
        let names = peers.iter().map(text::place).collect::<Vec<_>>().join(", ");
        let whom = if first.role == CLIENT { For::Server(peers[0].ip) } else { For::Client };
        let loaded = fetch::loaded(connect.owner.process, view);
        let after = text::duration(connect.started_ns.saturating_sub(first.moved_ns));
        Some(Validation {
            remedies: fetch::remedies(&loaded, whom),
            why: format!(
                "It began {after} after the last message of the TLS handshake with {names}, and nothing was sent on \
                 that connection since: an issuer certificate (AIA), a CRL or an OCSP answer is fetched to validate \
                 the certificate, and {} meanwhile.",
                if peers.len() == 1 { "that peer waits" } else { "those peers wait" }
            ),
            seen: (
                first.moved_ns,
                format!("the last message of the TLS handshake with {}", text::place(&peers[0])),
            ),
            peers,
        })
    }
}

/// The handshake's last message came just before the connect began, in the same process.
fn is_before(hs: &Handshake, connect: &Connect) -> bool {
    let process = if hs.role == CLIENT { hs.owner.process } else { hs.reader.process };
    let begun = connect.started_ns.saturating_add(EXACT_NS);
    process == connect.owner.process
        && hs.cookie != connect.cookie
        && (hs.moved_ns..hs.moved_ns.saturating_add(AFTER_NS)).contains(&begun)
}

/// The process has sent nothing on it since the handshake's end, and read no request.
fn is_silent_since(socket: &SeenSocket, hs: &Handshake, seen_ns: u64) -> bool {
    let ago = |ms: u32| seen_ns.saturating_sub(u64::from(ms) * 1_000_000);
    let quiet = hs.moved_ns.saturating_add(EXACT_NS);
    let sent = ago(socket.sent_ms_ago);
    let asked = hs.role != CLIENT && ago(socket.received_ms_ago) > quiet && socket.unread_bytes == 0;
    socket.state == 1 && sent <= quiet && !asked
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ebpf_probes::abi::Kind as Record;

    use super::*;
    use crate::{
        known::context::{Context, Loaded, Runtime},
        pipeline::incident::{Details, Kind},
        rules::scene::{PROCESS, Scene, advice, connect, flight, hello},
    };

    const BEGAN: u64 = 100_000_000_000;

    /// The process's connection of the handshake as it is three seconds later; it sent last so long ago.
    fn seen(sent_ms_ago: u32, unread_bytes: u32) -> Context {
        let at = |last, port| SocketAddr::from(([192, 0, 2, last], port));
        let socket = SeenSocket {
            cookie: 1,
            fd: 9,
            state: 1,
            local: at(1, 50_000),
            remote: at(9, 443),
            acked_bytes: 900,
            received_bytes: 4000,
            unacked: 0,
            sent_ms_ago,
            received_ms_ago: 2900,
            unread_bytes,
            inbound: Some(false),
        };
        let loaded = Loaded {
            known: true,
            dynamic: true,
            tls: Some("libssl.so.3".into()),
            runtime: Some(Runtime::Dotnet { major: Some(8) }),
        };
        let look = Snapshot {
            boot_ns: BEGAN + 3_010_000_000,
            process: PROCESS,
            sockets: vec![socket],
            loaded,
            ..Snapshot::default()
        };
        Context::Snapshot(Box::new(look))
    }

    /// A handshake done at 5 ms, and a connect to port 80 at `started` that is pending for three seconds.
    fn fetching(hs: Handshake, started: u64, look: &Context) -> Scene {
        let mut scene = Scene::new();
        let mut done = hs;
        (done.stage, done.moved_ns) = (stage::DONE, BEGAN + 5_000_000);
        scene.tls(5, Record::TLS_PHASE, done);
        scene.connect(3010, Record::CONNECT_PENDING, connect(7, 44, 64, started));
        scene.apply(look);
        scene.tick(3260);
        scene
    }

    #[test]
    fn a_fetch_after_the_last_message_is_said_to_be_one_with_the_peer_that_waits() {
        let scene = fetching(flight(1, 43, 0), 9, &seen(3005, 0));
        let opened = scene.opened(Kind::ConnectStalled);
        assert_eq!((opened.len(), scene.requests.len()), (1, 1));
        let said = opened[0];
        assert!(said.why[0].contains("validate the certificate"), "{said:#?}");
        assert!(said.why[0].contains("192.0.2.9:443"), "{said:#?}");
        let remedies = advice(said);
        assert!(remedies.contains("full chain on 192.0.2.9"), "{remedies}");
        assert!(remedies.contains("DisableCertificateDownloads"), "{remedies}");
        let Details::ConnectStalled(details) = &said.details else { panic!("{said:#?}") };
        assert_eq!(details.validates.iter().map(|peer| peer.port).collect::<Vec<_>>(), [443]);
    }

    #[test]
    fn a_connection_that_went_on_was_not_being_validated() {
        for (started, sent_ms_ago) in [(9, 2500), (1500, 3005)] {
            let scene = fetching(flight(1, 43, 0), started, &seen(sent_ms_ago, 0));
            let opened = scene.opened(Kind::ConnectStalled);
            assert_eq!(opened.len(), 1);
            assert!(!format!("{:?}", opened[0]).contains("192.0.2.9"), "{:#?}", opened[0]);
        }
    }

    #[test]
    fn a_server_validates_only_who_has_shown_a_certificate() {
        let plain = hello(1, 43, 0);
        let certified = Handshake { flags: CLIENT_CERTIFICATE, ..plain };
        // The request that came meanwhile waits unread.
        for (hs, unread, validated) in [(plain, 100, false), (certified, 100, true), (certified, 0, false)] {
            let scene = fetching(hs, 9, &seen(3005, unread));
            let said = format!("{:?}", scene.opened(Kind::ConnectStalled)[0]);
            assert_eq!(said.contains("validate the certificate"), validated, "{said}");
        }
    }
}
