//! Handshakes: hellos put together and parsed, each step in words.

use ebpf_probes::{
    abi::{Owner, Tuple},
    probes::{
        connect::translated::BY_NAT,
        tls::{
            ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_CERTIFICATE, CLIENT_HELLO, Handshake, RETRIED,
            SPEAKS_TLS, UNREAD, stage,
        },
    },
};
use tls_parser::{
    SNIType, TlsAlertDescription, TlsExtension, TlsVersion, parse_tls_client_hello_extensions,
    parse_tls_server_hello_extensions,
};

use super::{
    Emitted, World,
    bounded::{Bounded, Table},
    hello::{Pieces, message},
    ms,
    wire::wire,
};
use crate::{
    event::{HelloBytes, TlsStep},
    fact::{Endpoint, Role, Session, Stage, What},
    text::host::{Name, is_protocol},
};

/// Handshakes remembered at most.
const HANDSHAKES: usize = 16384;
/// Application protocols of one hello remembered at most; each has 255 bytes at most.
const PROTOCOLS: usize = 256;
/// The random of a HelloRetryRequest (RFC 8446 §4.1.3), its first bytes.
const RETRY_RANDOM: [u8; 8] = [0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11];

pub(super) struct Handshakes {
    known: Bounded<u64, Hellos>,
    /// The handshake that ended last, and the name asked for.
    ended: Option<(u64, Option<Name>)>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { known: Bounded::new(HANDSHAKES), ended: None }
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

#[derive(Default, Clone)]
struct ClientSaid {
    sni: Option<Name>,
    alpn: Vec<String>,
    alpn_invalid: bool,
    versions: Vec<String>,
}

#[derive(Default, Clone)]
struct ServerSaid {
    version: Option<String>,
    cipher: Option<String>,
    retry_request: bool,
}

impl Handshakes {
    pub(super) fn table(&self) -> Table {
        self.known.table("handshakes")
    }

    /// The server name a client asked for, once its hello is known.
    pub(super) fn server_name(&self, cookie: u64) -> Option<Name> {
        match self.known.get(&cookie) {
            Some(hellos) => hellos.said.as_ref()?.sni.clone(),
            None => self.ended.as_ref().filter(|(ended, _)| *ended == cookie)?.1.clone(),
        }
    }

    /// Keeps captured bytes until the hello is whole.
    pub(super) fn bytes(&mut self, bytes: &HelloBytes) {
        if self.known.get(&bytes.cookie).is_none() {
            self.known.insert(bytes.cookie, Hellos::default());
        }
        let Some(hellos) = self.known.get_mut(&bytes.cookie) else { return };
        let to = if bytes.hello == CLIENT_HELLO { &mut hellos.client } else { &mut hellos.server };
        if bytes.at == 0 && bytes.hello == CLIENT_HELLO && message(to.whole()).is_some() {
            // Another hello, which the server has asked for.
            *to = Pieces::default();
        }
        to.put(bytes.at as usize, &bytes.data);
    }
}

pub(super) fn apply(
    world: &mut World,
    boot_ns: u64,
    step: TlsStep,
    hs: &Handshake,
    facts: &mut Vec<Emitted>,
) {
    if world.tls.known.get(&hs.cookie).is_none() {
        world.tls.known.insert(hs.cookie, Hellos::default());
    }
    let mut owner = hs.owner;
    if owner.process == 0 && hs.role != CLIENT {
        world.adopt(&mut owner, &hs.tuple);
    }
    let elapsed_ms = ms(boot_ns.saturating_sub(hs.started_ns));
    let retried = hs.flags & RETRIED != 0;
    let Some(hellos) = world.tls.known.get_mut(&hs.cookie) else { return };
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
            world.tls.known.remove(&hs.cookie);
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
    let emits_hello = !hellos.facts && due && hs.stage != stage::HELLO_PARTIAL;
    hellos.facts |= emits_hello;
    if over(hs.stage) {
        world.tls.known.remove(&hs.cookie);
        world.tls.ended = Some((hs.cookie, said.sni.clone()));
    }
    let (local, peer) = world.session_ends(hs, &owner);
    let session = Session {
        role: if hs.role == CLIENT { Role::Client } else { Role::Server },
        local,
        peer,
        sni: said.sni.as_ref().map(|name| name.text.clone()),
        sni_invalid: said.sni.as_ref().and_then(|name| name.invalid),
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
        facts.push(("tls", owner, what));
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
            speaks_tls: world.speaks_tls(hs, &owner),
            duration_ms: elapsed_ms,
        },
        (TlsStep::Phase, stage::NOT_TLS) => {
            What::NotTls { session, speaks_tls: answers(hs), duration_ms: elapsed_ms }
        }
        _ => return,
    };
    facts.push(("tls", owner, what));
}

impl World {
    /// The ends of a handshake, the own one first: as the socket has them, and as its packets say, where netfilter of
    /// the socket's own namespace made them differ. `owner` is who believes names.
    pub fn session_ends(&self, hs: &Handshake, owner: &Owner) -> (Endpoint, Endpoint) {
        let (local, peer) = (self.local(&hs.tuple), self.remote(&hs.tuple, owner));
        let swapped = Tuple { remote: hs.wire.local, remote_port: hs.wire.local_port, ..hs.wire };
        let (own, theirs) = (wire(&local, BY_NAT, &swapped), wire(&peer, BY_NAT, &hs.wire));
        (Endpoint { wire: own, ..local }, Endpoint { wire: theirs, ..peer })
    }

    /// Whether the service speaks TLS to which a ClientHello came that was never answered, as far as that is known.
    fn speaks_tls(&self, hs: &Handshake, owner: &Owner) -> Option<bool> {
        let unanswered = matches!(hs.read_stage, stage::HELLO_PARTIAL | stage::HELLO);
        if hs.role == CLIENT || !unanswered {
            return None;
        }
        if answers(hs)? {
            return Some(true);
        }
        // What a program has loaded is known once it was looked at: when it had done nothing for a while.
        self.loaded(owner.process)?.speaks_tls().filter(|loaded| !loaded)
    }
}

/// Whether the service has answered a ClientHello with a ServerHello, as the kernel remembers. It does not where it does
/// not say either when a server's connection was established: in recordings of older versions.
fn answers(hs: &Handshake) -> Option<bool> {
    (hs.role != CLIENT && hs.established_ns != 0).then_some(hs.flags & SPEAKS_TLS != 0)
}

fn over(at: u32) -> bool {
    at >= stage::DONE
}

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

/// An alert's name as RFC 8446 §6 spells it.
pub(crate) fn alert_name(description: u8) -> String {
    snake(&TlsAlertDescription(description).to_string())
}

/// `CertificateExpired` → `certificate_expired`, as RFC 8446 §6 spells it.
fn snake(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    let mut low_before = false;
    for c in camel.chars() {
        if c.is_uppercase() && low_before {
            out.push('_');
        }
        low_before = c.is_lowercase();
        out.extend(c.to_lowercase());
    }
    out
}

fn client_said(records: &[u8]) -> Option<ClientSaid> {
    let body = message(records)?;
    let (_, hello) = tls_parser::parse_tls_handshake_client_hello(&body).ok()?;
    let mut said = ClientSaid::default();
    let mut versions = Vec::new();
    let extensions = hello.ext.map(parse_tls_client_hello_extensions);
    for extension in extensions.and_then(Result::ok).map(|(_, list)| list).unwrap_or_default() {
        match extension {
            TlsExtension::SNI(names) => {
                said.sni =
                    names.iter().find(|(kind, _)| *kind == SNIType::HostName).map(|(_, name)| Name::of(name));
            }
            TlsExtension::ALPN(protocols) => {
                let protocols = || protocols.iter().take(PROTOCOLS);
                said.alpn = protocols().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
                said.alpn_invalid = protocols().any(|name| !is_protocol(name));
            }
            TlsExtension::SupportedVersions(offered) => versions = offered,
            _ => {}
        }
    }
    if versions.is_empty() {
        versions.push(hello.version);
    }
    said.versions = versions.into_iter().filter_map(version_name).collect();
    Some(said)
}

fn server_said(record: &[u8]) -> Option<ServerSaid> {
    // The capture may end inside the record; the hello is its first message.
    let body = record.get(9..)?;
    let len = usize::from(*record.get(7)?) << 8 | usize::from(*record.get(8)?);
    let (_, hello) = tls_parser::parse_tls_handshake_server_hello(body.get(..len)?).ok()?;
    let mut version = hello.version;
    let extensions = hello.ext.map(parse_tls_server_hello_extensions);
    for extension in extensions.and_then(Result::ok).map(|(_, list)| list).unwrap_or_default() {
        if let TlsExtension::SupportedVersions(chosen) = extension
            && let Some(first) = chosen.first()
        {
            version = *first;
        }
    }
    Some(ServerSaid {
        version: version_name(version),
        cipher: hello.cipher.get_ciphersuite().map(|suite| suite.name.to_owned()),
        retry_request: hello.random.starts_with(&RETRY_RANDOM),
    })
}

/// `None` for the made-up versions that keep servers honest (GREASE, RFC 8701).
fn version_name(version: TlsVersion) -> Option<String> {
    Some(match version.0 {
        0x0300 => "SSL 3.0".into(),
        0x0301 => "TLS 1.0".into(),
        0x0302 => "TLS 1.1".into(),
        0x0303 => "TLS 1.2".into(),
        0x0304 => "TLS 1.3".into(),
        other if other & 0x0f0f == 0x0a0a => return None,
        other => format!("{other:#06x}"),
    })
}

#[cfg(test)]
mod tests {
    use ebpf_probes::probes::tls::SERVER;

    use super::*;
    use crate::{
        enrich::context::{Context, Loaded, Snapshot},
        event,
        fact::TranslatedBy,
    };

    fn tuple(local: (&str, u16), remote: (&str, u16)) -> Tuple {
        let bytes = |ip: &str| event::address_bytes(ip.parse().expect("an address"));
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
        let mut world = World::default();
        if let Some(loaded) = loaded {
            let seen = Snapshot { process: 17, loaded, ..Snapshot::default() };
            world.apply_context(&Context::Snapshot(Box::new(seen)));
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
        apply(&mut world, 5_000_000, TlsStep::Phase, &hs, &mut facts);
        facts.pop().expect("the end is emitted").2
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
            let (local, peer) = World::default().session_ends(&hs, &hs.owner);
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
            World::default().session_ends(&hs, &hs.owner).0.wire.and_then(|wire| wire.by),
            Some(TranslatedBy::Nat)
        );
    }
}
