//! Handshakes: hellos put together and parsed, each step in words.

use ebpf_probes::{
    abi::{Owner, Tuple},
    probes::{
        connect::translated::BY_NAT,
        tls::{
            ADOPTED, ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_CERTIFICATE, CLIENT_HELLO,
            CLOSED_BY_CLIENT, CLOSED_BY_SERVER, Handshake, PROBE, RETRIED, SPEAKS_TLS, UNREAD, stage,
        },
    },
    spec::Probe,
};

use super::{
    HelloBytes, Role, Session, Stage, TlsStep, What,
    hello::{Pieces, message},
    parse::{ClientSaid, ServerSaid, alert_name, client_said, server_said},
};
use crate::{
    domains::{Domain, Emitted, ms},
    fact::Endpoint,
    known::{
        Known,
        bounded::{Bounded, Table},
        wire,
    },
    text::host::Name,
};

/// Handshakes remembered at most.
const HANDSHAKES: usize = 16384;
/// What is remembered of handshakes.
pub struct Memory {
    hellos: Bounded<u64, Hellos>,
    /// The handshake that ended last, and what its ClientHello said.
    ended: Option<(u64, ClientSaid)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { hellos: Bounded::new(HANDSHAKES), ended: None }
    }
}

/// What the hellos of one handshake said.
#[derive(Default)]
struct Hellos {
    client: Pieces,
    server: Pieces,
    said: Option<ClientSaid>,
    chosen: Option<ServerSaid>,
    facts: bool,
    retries_emitted: bool,
}

impl Memory {
    /// The server name a client asked for, once its hello is known.
    pub fn server_name(&self, cookie: u64) -> Option<Name> {
        self.said(cookie)?.sni.clone()
    }

    /// The highest TLS version a client offered, once its hello is known.
    pub fn offered_version(&self, cookie: u64) -> Option<&str> {
        self.said(cookie)?.versions.first().map(String::as_str)
    }

    fn said(&self, cookie: u64) -> Option<&ClientSaid> {
        match self.hellos.get(&cookie) {
            Some(hellos) => hellos.said.as_ref(),
            None => self.ended.as_ref().filter(|(ended, _)| *ended == cookie).map(|(_, said)| said),
        }
    }

    /// Keeps captured bytes until the hello is whole.
    fn bytes(&mut self, bytes: &HelloBytes) {
        if self.hellos.get(&bytes.cookie).is_none() {
            self.hellos.insert(bytes.cookie, Hellos::default());
        }
        let Some(hellos) = self.hellos.get_mut(&bytes.cookie) else { return };
        let to = if bytes.hello == CLIENT_HELLO { &mut hellos.client } else { &mut hellos.server };
        if bytes.at == 0 && bytes.hello == CLIENT_HELLO && message(to.whole()).is_some() {
            // Another hello, which the server has asked for.
            *to = Pieces::default();
        }
        to.put(bytes.at as usize, &bytes.data);
    }
}

impl Domain for Memory {
    type Record = super::Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn record(
        &mut self,
        known: &mut Known,
        boot_ns: u64,
        record: &super::Record,
        facts: &mut Vec<Emitted<What>>,
    ) {
        match record {
            super::Record::Hello(bytes) => self.bytes(bytes),
            super::Record::Handshake(step, hs) => apply(self, known, boot_ns, *step, hs, facts),
        }
    }

    fn tables(&self) -> Vec<Table> {
        vec![self.hellos.table("handshakes")]
    }
}

fn apply(
    memory: &mut Memory,
    known: &Known,
    boot_ns: u64,
    step: TlsStep,
    hs: &Handshake,
    facts: &mut Vec<Emitted<What>>,
) {
    if memory.hellos.get(&hs.cookie).is_none() {
        memory.hellos.insert(hs.cookie, Hellos::default());
    }
    let mut owner = hs.owner;
    if owner.process == 0 && hs.role != CLIENT {
        known.adopt(&mut owner, &hs.tuple);
    }
    let elapsed_ms = ms(boot_ns.saturating_sub(hs.started_ns));
    let retried = hs.flags & RETRIED != 0;
    let Some(hellos) = memory.hellos.get_mut(&hs.cookie) else { return };
    if hellos.said.is_none() || (retried && !hellos.retries_emitted && hs.stage == stage::HELLO) {
        hellos.said = client_said(hellos.client.whole()).or_else(|| hellos.said.clone());
        if retried {
            hellos.facts = false;
            hellos.retries_emitted = true;
        }
    }
    // Bytes that began like a ClientHello and are none: nothing to report.
    if hellos.said.is_none() && hs.stage != stage::HELLO_PARTIAL && !hellos.client.is_empty() {
        if over(hs.stage) {
            memory.hellos.remove(&hs.cookie);
        }
        return;
    }
    if hs.stage == stage::SERVER_FLIGHT && step == TlsStep::Phase {
        hellos.chosen = server_said(hellos.server.whole());
    }
    let said = hellos.said.clone().unwrap_or_default();
    let chosen = hellos.chosen.clone().unwrap_or_default();
    let read = hs.stage == stage::HELLO && step == TlsStep::Read;
    // A server's hello is reported when it is read, with its reader; a client's when it is sent.
    let due = hs.role == CLIENT || read || hs.stage > stage::HELLO || step == TlsStep::Pending;
    // Of what had come before culprit started, nothing is known but that it had.
    let seen = hs.flags & ADOPTED == 0 || retried;
    let emits_hello = !hellos.facts && due && seen && hs.stage != stage::HELLO_PARTIAL;
    hellos.facts |= emits_hello;
    if over(hs.stage) {
        memory.hellos.remove(&hs.cookie);
        memory.ended = Some((hs.cookie, said.clone()));
    }
    let (local, peer) = session_ends(known, hs, &owner);
    let session = Session {
        role: if hs.role == CLIENT { Role::Client } else { Role::Server },
        local,
        peer,
        sni: said.sni.as_ref().map(|name| name.text.clone()),
        sni_invalid: said.sni.as_ref().and_then(|name| name.invalid),
        since_before_start: hs.flags & ADOPTED != 0,
    };
    if emits_hello {
        let what = What::ClientHello {
            session: session.clone(),
            alpn: said.alpn,
            alpn_invalid: said.alpn_invalid,
            versions: said.versions,
            hello_bytes: hs.hello_len,
            read_after_ms: read.then(|| ms(hs.read_ns.saturating_sub(hs.started_ns))),
            retried,
        };
        facts.push(Emitted { boot_ns, owner, what });
    }
    let version = chosen.version.clone();
    let what = match (step, hs.stage) {
        (TlsStep::Pending, _) => What::HandshakePending {
            session,
            stage: owes(hs),
            stall_ms: ms(boot_ns.saturating_sub(hs.moved_ns)),
            elapsed_ms,
        },
        (TlsStep::Read, stage::SERVER_FLIGHT) if hs.role == CLIENT => {
            owner = hs.reader;
            What::ServerFlightRead { session, read_after_ms: ms(hs.read_ns.saturating_sub(hs.moved_ns)) }
        }
        (TlsStep::Phase, stage::SERVER_FLIGHT) => What::ServerHello {
            session,
            version,
            cipher: chosen.cipher,
            retry_request: chosen.retry_request,
            elapsed_ms,
        },
        (TlsStep::Phase, stage::CLIENT_FINISH) => What::ClientFinished {
            session,
            client_certificate: hs.flags & CLIENT_CERTIFICATE != 0,
            elapsed_ms,
        },
        (TlsStep::Phase, stage::DONE) => What::HandshakeDone { session, version, duration_ms: elapsed_ms },
        (TlsStep::Phase, stage::ALERT) => alert(hs, session, elapsed_ms),
        (TlsStep::Phase, stage::CLOSED) => What::HandshakeClosed {
            session,
            stage: owes(&Handshake { stage: hs.read_stage, ..*hs }),
            closed_by: closed_by(hs),
            speaks_tls: speaks_tls(known, hs, &owner),
            duration_ms: elapsed_ms,
        },
        (TlsStep::Phase, stage::NOT_TLS) => {
            What::NotTls { session, speaks_tls: answers(hs), duration_ms: elapsed_ms }
        }
        _ => return,
    };
    facts.push(Emitted { boot_ns, owner, what });
}

/// The ends of a handshake, the own one first: as the socket has them, and as its packets say, where netfilter of
/// the socket's own namespace made them differ. `owner` is who believes names.
pub fn session_ends(known: &Known, hs: &Handshake, owner: &Owner) -> (Endpoint, Endpoint) {
    let (local, peer) = (known.local(&hs.tuple), known.remote(&hs.tuple, owner));
    let swapped = Tuple { remote: hs.wire.local, remote_port: hs.wire.local_port, ..hs.wire };
    let (own, theirs) = (wire(&local, BY_NAT, &swapped), wire(&peer, BY_NAT, &hs.wire));
    (Endpoint { wire: own, ..local }, Endpoint { wire: theirs, ..peer })
}

/// Whether the service speaks TLS to which a ClientHello came that was never answered, as far as that is known.
fn speaks_tls(known: &Known, hs: &Handshake, owner: &Owner) -> Option<bool> {
    let unanswered = matches!(hs.read_stage, stage::HELLO_PARTIAL | stage::HELLO);
    if hs.role == CLIENT || !unanswered {
        return None;
    }
    if answers(hs)? {
        return Some(true);
    }
    // What a program has loaded is known once it was looked at: when it had done nothing for a while.
    known.loaded(owner.process)?.speaks_tls().filter(|loaded| !loaded)
}

/// Whether the service has answered a ClientHello with a ServerHello, as the kernel remembers. It does not where it does
/// not say either when a server's connection was established: in recordings of older versions.
fn answers(hs: &Handshake) -> Option<bool> {
    (hs.role != CLIENT && hs.established_ns != 0).then_some(hs.flags & SPEAKS_TLS != 0)
}

/// Who closed a connection first, as far as the kernel saw.
fn closed_by(hs: &Handshake) -> Option<Role> {
    if hs.flags & CLOSED_BY_CLIENT != 0 {
        Some(Role::Client)
    } else {
        (hs.flags & CLOSED_BY_SERVER != 0).then_some(Role::Server)
    }
}

fn over(at: u32) -> bool {
    at >= stage::DONE
}

/// Who owes what.
fn owes(hs: &Handshake) -> Stage {
    match hs.stage {
        stage::HELLO_PARTIAL => Stage::ClientHelloIncomplete,
        stage::HELLO if hs.role != CLIENT && hs.flags & UNREAD != 0 => Stage::ClientHelloUnread,
        stage::HELLO => Stage::AwaitingServerHello,
        stage::SERVER_FLIGHT => Stage::AwaitingClientFinish,
        _ => Stage::AwaitingServerFinish,
    }
}

fn alert(hs: &Handshake, session: Session, duration_ms: f64) -> What {
    let by_client = hs.flags & ALERT_BY_CLIENT != 0;
    let clear = hs.flags & ALERT_ENCRYPTED == 0;
    let (level, description) = ((hs.alert >> 8) as u8, hs.alert as u8);
    What::Alert {
        session,
        sent_by: if by_client { Role::Client } else { Role::Server },
        level: clear.then(|| if level == 2 { "fatal".into() } else { "warning".into() }),
        description: clear.then(|| alert_name(description)),
        duration_ms,
    }
}

#[cfg(test)]
mod tests {
    use ebpf_probes::probes::tls::SERVER;

    use super::*;
    use crate::{
        fact::TranslatedBy,
        known::context::{Context, Loaded, Snapshot},
        records,
    };

    fn tuple(local: (&str, u16), remote: (&str, u16)) -> Tuple {
        let bytes = |ip: &str| records::address_bytes(ip.parse().expect("an address"));
        Tuple {
            local: bytes(local.0),
            remote: bytes(remote.0),
            local_port: local.1,
            remote_port: remote.1,
            family: 2,
            protocol: ebpf_probes::abi::IPPROTO_TCP,
        }
    }

    fn shown(end: &Endpoint) -> String {
        let wire = end.wire.map(|wire| format!(", {wire}")).unwrap_or_default();
        format!("{}:{}{wire}", end.ip, end.port)
    }

    /// What is reported at the end of a server's handshake.
    fn end(stage: u32, flags: u32, loaded: Option<Loaded>) -> What {
        let mut known = Known::default();
        if let Some(loaded) = loaded {
            let seen = Snapshot { process: 17, loaded, ..Snapshot::default() };
            known.context(&Context::Snapshot(Box::new(seen)));
        }
        let hs = Handshake {
            cookie: 1,
            role: SERVER,
            tuple: tuple(("192.0.2.1", 6379), ("192.0.2.9", 50_000)),
            stage,
            read_stage: stage::HELLO,
            flags,
            established_ns: 1,
            owner: Owner { process: 17, thread: 17, ..Owner::default() },
            ..Handshake::default()
        };
        let mut facts = Vec::new();
        apply(&mut Memory::default(), &known, 5_000_000, TlsStep::Phase, &hs, &mut facts);
        facts.pop().expect("the end is emitted").what
    }

    #[test]
    fn a_port_that_speaks_no_tls_is_said_to_and_only_that() {
        let plain = || Some(Loaded { known: true, dynamic: true, ..Loaded::default() });
        let openssl = || Some(Loaded { tls: Some("libssl.so.3".into()), known: true, ..Loaded::default() });
        for (flags, expected) in [(0, false), (SPEAKS_TLS, true)] {
            let answered = end(stage::NOT_TLS, flags, None);
            let facts = matches!(answered, What::NotTls { speaks_tls, .. } if speaks_tls == Some(expected));
            assert!(facts, "{answered:?}");
        }
        for (flags, loaded, expected) in [
            (0, plain(), Some(false)),
            (SPEAKS_TLS, plain(), Some(true)),
            (0, openssl(), None),
            (0, None, None),
        ] {
            let closed = end(stage::CLOSED, flags, loaded);
            let facts = matches!(closed, What::HandshakeClosed { speaks_tls, .. } if speaks_tls == expected);
            assert!(facts, "{closed:?}");
        }
    }

    #[test]
    fn a_handshake_has_the_ends_of_its_socket_and_those_on_the_wire() {
        let ends = |role, socket, wire| {
            let hs = Handshake { role, tuple: socket, wire, ..Handshake::default() };
            let (local, peer) = session_ends(&Known::default(), &hs, &hs.owner);
            (shown(&local), shown(&peer))
        };
        // A Service: the client's connect was translated.
        let socket = tuple(("10.77.0.2", 40_000), ("10.96.0.1", 443));
        let (local, peer) = ends(CLIENT, socket, tuple(("10.77.0.2", 40_000), ("203.0.113.10", 8443)));
        assert_eq!((&*local, &*peer), ("10.77.0.2:40000", "10.96.0.1:443, by NAT 203.0.113.10:8443"));
        // A redirect of the port: the server listens on another one.
        let socket = tuple(("192.0.2.1", 8443), ("192.0.2.9", 50_000));
        let (local, peer) = ends(SERVER, socket, tuple(("192.0.2.1", 443), ("192.0.2.9", 50_000)));
        assert_eq!((&*local, &*peer), ("192.0.2.1:8443, by NAT 192.0.2.1:443", "192.0.2.9:50000"));
        // Nothing is translated, or it is not known.
        for wire in [socket, Tuple::default()] {
            let (local, peer) = ends(SERVER, socket, wire);
            assert_eq!((&*local, &*peer), ("192.0.2.1:8443", "192.0.2.9:50000"));
        }
        let hs = Handshake {
            role: SERVER,
            tuple: socket,
            wire: tuple(("::1", 1), ("::1", 2)),
            ..Handshake::default()
        };
        assert_eq!(
            session_ends(&Known::default(), &hs, &hs.owner).0.wire.and_then(|wire| wire.by),
            Some(TranslatedBy::Nat)
        );
    }
}
