//! Handshakes as text.

use std::fmt::Write as _;

use super::{Role, Session, Stage, What};
use crate::{
    fact::{BEFORE_START, Phrase, Tone, peer},
    text::{duration::line as duration, host, thousands},
};

/// Application protocols shown at most.
const PROTOCOLS: usize = 8;

pub(super) fn phrase(what: &What) -> Phrase {
    let (session, text, tone) = match what {
        What::ClientHello { session, alpn, versions, read_after_ms, retried, .. } => {
            let mut text = String::from(if *retried { "ClientHello again" } else { "ClientHello" });
            if let Some(sni) = &session.sni {
                let _ = write!(text, "  sni {}", host::words(sni, session.sni_invalid.as_ref()));
            }
            if !alpn.is_empty() {
                let words: Vec<_> = alpn.iter().take(PROTOCOLS).map(|name| host::protocol(name)).collect();
                let more = alpn.len().saturating_sub(PROTOCOLS);
                let more = if more > 0 { format!(",{} more", thousands(more)) } else { String::new() };
                let _ = write!(text, "  alpn {}{more}", words.join(","));
            }
            if let Some(highest) = versions.first() {
                let _ = write!(text, "  up to {highest}");
            }
            if session.local.wire.is_some() && session.role == Role::Server {
                let _ = write!(text, "  at {}", peer(&session.local));
            }
            if let Some(ms) = read_after_ms {
                let _ = write!(text, "  (read after {})", duration(*ms));
            }
            (session, text, Tone::Plain)
        }
        What::ServerHello { session, version, retry_request, elapsed_ms, .. } => {
            let name = if *retry_request { "HelloRetryRequest" } else { "ServerHello" };
            let version = version.as_deref().unwrap_or("unreadable");
            (session, format!("{name}  {version}  {}", duration(*elapsed_ms)), Tone::Plain)
        }
        What::ServerFlightRead { session, read_after_ms } => {
            (session, format!("ServerHello read after {}", duration(*read_after_ms)), Tone::Plain)
        }
        What::ClientFinished { session, client_certificate, elapsed_ms } => {
            let with = if *client_certificate { " with a certificate" } else { "" };
            (session, format!("client finished{with}  {}", duration(*elapsed_ms)), Tone::Plain)
        }
        What::HandshakeDone { session, duration_ms, .. } => {
            (session, format!("handshake done  {}", duration(*duration_ms)), Tone::Good)
        }
        What::Alert { session, sent_by, level, description, duration_ms } => {
            let by = if *sent_by == session.role { "sent" } else { "received" };
            let level = level.as_deref().unwrap_or("encrypted");
            let description = description.as_deref().unwrap_or("");
            let text = format!("alert {by}: {level} {description}").trim_end().to_owned();
            (session, format!("{text}  {}", duration(*duration_ms)), Tone::Bad)
        }
        What::HandshakeClosed { session, speaks_tls: Some(false), duration_ms, .. } => {
            let text = format!("closed before done, {}  {}", speaks_none(session), duration(*duration_ms));
            (session, text, Tone::Bad)
        }
        What::HandshakeClosed { session, stage, duration_ms, .. } => {
            let text =
                format!("closed before done, {}  {}", owes(*stage, session.role), duration(*duration_ms));
            (session, text, Tone::Bad)
        }
        What::NotTls { session, speaks_tls: Some(false), duration_ms } => {
            let text =
                format!("{}: answered with something else  {}", speaks_none(session), duration(*duration_ms));
            (session, text, Tone::Bad)
        }
        What::NotTls { session, duration_ms, .. } => (
            session,
            format!("answered with something that is not TLS  {}", duration(*duration_ms)),
            Tone::Bad,
        ),
        What::HandshakePending { session, stage, stall_ms, .. } => {
            let since = if session.since_before_start { BEFORE_START } else { "" };
            let text =
                format!("no progress for {}{since}: {}", duration(*stall_ms), owes(*stage, session.role));
            (session, text, Tone::Slow)
        }
    };
    Phrase { arrow: arrow(session), peer: peer(&session.peer), text, tone }
}

/// `port 6379 speaks no TLS`; known of servers only.
fn speaks_none(session: &Session) -> String {
    format!("port {} speaks no TLS", session.local.port)
}

fn arrow(session: &Session) -> &'static str {
    if session.role == Role::Client { "→" } else { "←" }
}

/// Who owes what in a handshake, in words.
pub fn owes(stage: Stage, role: Role) -> &'static str {
    match (stage, role) {
        (Stage::ClientHelloIncomplete, _) => "the ClientHello is not complete",
        (Stage::ClientHelloUnread, _) => "no thread has read the ClientHello",
        (Stage::AwaitingServerHello, Role::Server) => "this server owes its ServerHello",
        (Stage::AwaitingServerHello, Role::Client) => "the peer owes its ServerHello",
        (Stage::AwaitingClientFinish, Role::Server) => "the peer owes its finishing flight",
        (Stage::AwaitingClientFinish, Role::Client) => "this client owes its finishing flight",
        (Stage::AwaitingServerFinish, Role::Server) => "this server owes its last message",
        (Stage::AwaitingServerFinish, Role::Client) => "the peer owes its last message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Endpoint, TranslatedBy, Wire};

    fn session() -> Session {
        let end = |last, port| Endpoint { ip: [192, 0, 2, last].into(), port, name: None, wire: None };
        Session {
            role: Role::Server,
            local: end(1, 6379),
            peer: end(9, 50_000),
            sni: None,
            sni_invalid: None,
            since_before_start: false,
        }
    }

    fn text(what: &What) -> String {
        phrase(what).text
    }

    #[test]
    fn a_port_that_speaks_no_tls_is_named() {
        let not_tls = |speaks_tls| text(&What::NotTls { session: session(), speaks_tls, duration_ms: 1.0 });
        assert!(not_tls(Some(false)).starts_with("port 6379 speaks no TLS: answered with something else"));
        for speaks_tls in [Some(true), None] {
            assert!(not_tls(speaks_tls).starts_with("answered with something that is not TLS"));
        }
        for (speaks_tls, words) in [
            (Some(false), "port 6379 speaks no TLS"),
            (None, "this server owes"),
            (Some(true), "this server owes"),
        ] {
            let (session, stage) = (session(), Stage::AwaitingServerHello);
            let closed_by = None;
            let closed =
                text(&What::HandshakeClosed { session, stage, closed_by, speaks_tls, duration_ms: 1.0 });
            assert!(closed.starts_with("closed before done, ") && closed.contains(words), "{closed}");
        }
    }

    #[test]
    fn a_hello_to_a_redirected_port_names_the_port_it_was_sent_to() {
        let mut session = session();
        session.local.wire = Some(Wire { ip: [192, 0, 2, 1].into(), port: 443, by: Some(TranslatedBy::Nat) });
        let hello = What::ClientHello {
            session,
            alpn: vec![],
            alpn_invalid: false,
            versions: vec![],
            hello_bytes: 517,
            read_after_ms: None,
            retried: false,
        };
        assert_eq!(text(&hello), "ClientHello  at 192.0.2.1:6379, by NAT 192.0.2.1:443");
    }
}
