//! What hellos and alerts say: the bytes of a handshake message in words.

use tls_parser::{
    SNIType, TlsAlertDescription, TlsExtension, TlsVersion, parse_tls_client_hello_extensions,
    parse_tls_server_hello_extensions,
};

use super::hello::message;
use crate::text::host::{Name, is_protocol};

/// Application protocols of one hello remembered at most; each has 255 bytes at most.
const PROTOCOLS: usize = 256;
/// The random of a HelloRetryRequest (RFC 8446 §4.1.3), its first bytes.
const RETRY_RANDOM: [u8; 8] = [0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11];

/// What a ClientHello says.
#[derive(Default, Clone)]
pub(super) struct ClientSaid {
    pub(super) sni: Option<Name>,
    pub(super) alpn: Vec<String>,
    pub(super) alpn_invalid: bool,
    pub(super) versions: Vec<String>,
}

/// What a ServerHello says.
#[derive(Default, Clone)]
pub(super) struct ServerSaid {
    pub(super) version: Option<String>,
    pub(super) cipher: Option<String>,
    pub(super) retry_request: bool,
}

/// An alert's name as RFC 8446 §6 spells it.
pub fn alert_name(description: u8) -> String {
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

/// A ClientHello, once it is whole.
pub(super) fn client_said(records: &[u8]) -> Option<ClientSaid> {
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

/// A ServerHello, as far as it was captured.
pub(super) fn server_said(record: &[u8]) -> Option<ServerSaid> {
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
