//! Handshakes: hellos put together and parsed, each step in words.

use ebpf_probes::probes::tls::{
    ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_CERTIFICATE, CLIENT_HELLO, Handshake, RETRIED, UNREAD,
    stage,
};
use tls_parser::{
    SNIType, TlsAlertDescription, TlsExtension, TlsVersion, parse_tls_client_hello_extensions,
    parse_tls_server_hello_extensions,
};

use super::{
    Told, World,
    bounded::{Bounded, Table},
    hello::{Pieces, message},
    ms,
};
use crate::{
    event::{HelloBytes, TlsStep},
    fact::{Role, Session, Stage, What},
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
    told: bool,
    retries_told: bool,
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

pub(super) fn tell(world: &mut World, boot_ns: u64, step: TlsStep, hs: &Handshake, told: &mut Vec<Told>) {
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
    if hellos.said.is_none() || (retried && !hellos.retries_told && hs.stage == stage::HELLO) {
        hellos.said = client_said(hellos.client.whole()).or_else(|| hellos.said.clone());
        if retried {
            hellos.told = false;
            hellos.retries_told = true;
        }
    }
    // Bytes that began like a ClientHello and are none: nothing to tell.
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
    // A server's hello is told when it is read, with its reader; a client's when it is sent.
    let due = hs.role == CLIENT || read || hs.stage > stage::HELLO || step == TlsStep::Pending;
    let tell_hello = !hellos.told && due && hs.stage != stage::HELLO_PARTIAL;
    hellos.told |= tell_hello;
    if over(hs.stage) {
        world.tls.known.remove(&hs.cookie);
        world.tls.ended = Some((hs.cookie, said.sni.clone()));
    }
    let session = Session {
        role: if hs.role == CLIENT { Role::Client } else { Role::Server },
        local: world.local(&hs.tuple),
        peer: world.remote(&hs.tuple, &owner),
        sni: said.sni.as_ref().map(|name| name.text.clone()),
        sni_invalid: said.sni.as_ref().and_then(|name| name.invalid),
    };
    if tell_hello {
        let what = What::ClientHello {
            session: session.clone(),
            alpn: said.alpn,
            alpn_invalid: said.alpn_invalid,
            versions: said.versions,
            hello_bytes: hs.hello_len,
            read_after_ms: read.then(|| ms(hs.read_ns.saturating_sub(hs.started_ns))),
            retried,
        };
        told.push(("tls", owner, what));
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
            duration_ms: elapsed_ms,
        },
        (TlsStep::Phase, stage::NOT_TLS) => What::NotTls { session, duration_ms: elapsed_ms },
        _ => return,
    };
    told.push(("tls", owner, what));
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
