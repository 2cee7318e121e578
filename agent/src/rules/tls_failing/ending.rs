//! How a handshake failed: by which alert, or closed by whom at which point. What ends in a way that healthy clients and
//! servers end handshakes, too, is no failure: a client that gives up before it was answered, a server that has waited for
//! its client, and what may have been done.

use ebpf_probes::probes::tls::{
    ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLOSED_BY_CLIENT, CLOSED_BY_SERVER, ENCRYPTED_FINISH,
    Handshake, UNREAD, stage,
};

use super::alerts;
use crate::{
    domains::tls::{Role, alert_name},
    pipeline::incident::TlsFailure,
    time::SECOND_NS,
};

/// What took as long and was then closed had stood still: that is another kind of incident, or its peer's affair.
const SLOW_NS: u64 = SECOND_NS;

/// A failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    /// What kind of failure.
    pub(super) failure: TlsFailure,
    /// Who ended it.
    pub(super) by: Role,
    /// How.
    pub(super) how: How,
}

/// How a handshake was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// By this alert.
    Alert(u8),
    /// By an alert that is encrypted.
    Encrypted,
    /// Without an alert.
    Closed,
    /// By an answer that is not TLS.
    NotTls,
}

impl How {
    /// As JSON names it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Alert(number) => alert_name(number),
            Self::Encrypted => "encrypted".into(),
            Self::Closed => "closed".into(),
            Self::NotTls => "not_tls".into(),
        }
    }
}

/// Which side of a handshake this host is.
pub(super) fn role(hs: &Handshake) -> Role {
    if hs.role == CLIENT { Role::Client } else { Role::Server }
}

/// How a handshake failed that ended at a moment; `None` if it did not.
pub(super) fn of(hs: &Handshake, ended_ns: u64) -> Option<Ending> {
    let side = |client: bool| if client { Role::Client } else { Role::Server };
    match hs.stage {
        stage::ALERT => {
            let by = side(hs.flags & ALERT_BY_CLIENT != 0);
            if hs.flags & ALERT_ENCRYPTED != 0 {
                let failure = match by {
                    Role::Client => TlsFailure::ServerFlightRefused,
                    Role::Server => TlsFailure::ClientFlightRefused,
                };
                return Some(Ending { failure, by, how: How::Encrypted });
            }
            let (level, number) = ((hs.alert >> 8) as u8, hs.alert as u8);
            if matches!(number, alerts::CLOSE_NOTIFY | alerts::USER_CANCELED) {
                return closed(hs, by, ended_ns);
            }
            let failure = alerts::failure(number, by, hs.read_stage);
            (!alerts::goes_on(level, number)).then_some(Ending { failure, by, how: How::Alert(number) })
        }
        stage::CLOSED if hs.flags & CLOSED_BY_CLIENT != 0 => closed(hs, Role::Client, ended_ns),
        stage::CLOSED if hs.flags & CLOSED_BY_SERVER != 0 => closed(hs, Role::Server, ended_ns),
        stage::NOT_TLS => Some(Ending { failure: TlsFailure::NotTls, by: Role::Server, how: How::NotTls }),
        _ => None,
    }
}

/// A handshake that one side closed.
fn closed(hs: &Handshake, by: Role, ended_ns: u64) -> Option<Ending> {
    let is_slow = ended_ns.saturating_sub(hs.started_ns) >= SLOW_NS;
    let has_stalled_here = role(hs) == by && is_slow;
    let failure = match (hs.read_stage, by) {
        // What no thread has read went with the listener.
        (stage::HELLO, Role::Server) if hs.role != CLIENT && hs.flags & UNREAD != 0 => return None,
        (stage::HELLO, Role::Server) if !has_stalled_here => TlsFailure::ClosedUnanswered,
        (stage::SERVER_FLIGHT, Role::Client) if !is_slow => TlsFailure::ClosedAfterServerFlight,
        // In TLS 1.3 the server may have nothing more to say.
        (stage::CLIENT_FINISH, Role::Server) if hs.flags & ENCRYPTED_FINISH == 0 && !has_stalled_here => {
            TlsFailure::ClosedAfterClientFlight
        }
        _ => return None,
    };
    Some(Ending { failure, by, how: How::Closed })
}

#[cfg(test)]
mod tests {
    use ebpf_probes::probes::tls::SERVER;

    use super::*;

    fn ended(role: u32, read_stage: u32, stage: u32, flags: u32) -> Handshake {
        Handshake { role, read_stage, stage, flags, ..Handshake::default() }
    }

    fn failure(hs: &Handshake, after_ms: u64) -> Option<TlsFailure> {
        of(hs, after_ms * 1_000_000).map(|ending| ending.failure)
    }

    #[test]
    fn what_healthy_ends_look_like_is_no_failure() {
        let (client, server) = (CLOSED_BY_CLIENT, CLOSED_BY_SERVER);
        for (hs, after_ms) in [
            // A client gives up before it was answered; the network ends it; a listener goes.
            (ended(CLIENT, stage::HELLO, stage::CLOSED, client), 10),
            (ended(SERVER, stage::HELLO, stage::CLOSED, client), 10),
            (ended(CLIENT, stage::HELLO, stage::CLOSED, 0), 10),
            (ended(SERVER, stage::HELLO, stage::CLOSED, server | UNREAD), 10),
            // A server has waited for its client, and a client that was slow gives up.
            (ended(SERVER, stage::SERVER_FLIGHT, stage::CLOSED, server), 10),
            (ended(SERVER, stage::SERVER_FLIGHT, stage::CLOSED, client), 1500),
            // TLS 1.3 with a client certificate, and not a word more by the server.
            (ended(CLIENT, stage::CLIENT_FINISH, stage::CLOSED, server | ENCRYPTED_FINISH), 10),
            (ended(SERVER, stage::CLIENT_FINISH, stage::CLOSED, client), 10),
            (ended(CLIENT, stage::SERVER_FLIGHT, stage::DONE, 0), 10),
            // A warning after which it goes on.
            (Handshake { alert: 1 << 16 | 1 << 8 | 112, ..ended(CLIENT, stage::HELLO, stage::ALERT, 0) }, 10),
        ] {
            assert_eq!(failure(&hs, after_ms), None, "{hs:?}");
        }
    }

    #[test]
    fn failures_are_known_by_who_ended_them_and_when() {
        let (client, server) = (CLOSED_BY_CLIENT, CLOSED_BY_SERVER);
        let alert = |number: u32, flags| Handshake {
            alert: 1 << 16 | 2 << 8 | number,
            ..ended(SERVER, stage::SERVER_FLIGHT, stage::ALERT, flags)
        };
        for (hs, expected) in [
            (ended(CLIENT, stage::HELLO, stage::CLOSED, server), TlsFailure::ClosedUnanswered),
            (ended(SERVER, stage::HELLO, stage::CLOSED, server), TlsFailure::ClosedUnanswered),
            (ended(SERVER, stage::SERVER_FLIGHT, stage::CLOSED, client), TlsFailure::ClosedAfterServerFlight),
            (ended(CLIENT, stage::CLIENT_FINISH, stage::CLOSED, server), TlsFailure::ClosedAfterClientFlight),
            (ended(CLIENT, stage::HELLO, stage::NOT_TLS, 0), TlsFailure::NotTls),
            (alert(45, ALERT_BY_CLIENT), TlsFailure::ServerFlightRefused),
            (alert(0, ALERT_BY_CLIENT), TlsFailure::ClosedAfterServerFlight),
            (
                ended(CLIENT, stage::CLIENT_FINISH, stage::ALERT, ALERT_ENCRYPTED),
                TlsFailure::ClientFlightRefused,
            ),
            (
                ended(SERVER, stage::SERVER_FLIGHT, stage::ALERT, ALERT_ENCRYPTED | ALERT_BY_CLIENT),
                TlsFailure::ServerFlightRefused,
            ),
        ] {
            assert_eq!(failure(&hs, 10), Some(expected), "{hs:?}");
        }
    }
}
