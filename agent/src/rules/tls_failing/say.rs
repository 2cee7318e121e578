//! What an incident about failing handshakes says: who refuses whom, by which alert, what that means here, and how sure
//! it is. What an encrypted alert says is not known, and nothing is made of it.

use super::{alerts, ending::How, ends::Ends, failing::Failing, faked, remedies};
use crate::{
    domains::tls::Role,
    pipeline::{
        View,
        incident::{
            Cause, CauseKind, ClockVerdict, Confidence, Details, FailingPeer, Kind, Severity,
            TlsFailingDetails, TlsFailure,
        },
        report::Report,
    },
    rules::{clocks, text},
    text::{
        duration::{off, span},
        host,
    },
    time::{HOUR_NS, MINUTE_NS},
};

/// Addresses an incident lists.
const WORST: usize = 10;
/// As many clients that close after the server's flight are no health checks.
const CLIENTS: usize = 3;

/// A wrong clock of this host that may explain it.
pub(super) struct Clock {
    /// Its incident.
    pub(super) id: String,
    /// How far it is ahead, nanoseconds.
    ahead_ns: i64,
}

/// The account of a situation.
pub(super) fn report(subject: &str, failing: &Failing, view: &View<'_>) -> Report {
    let (ends, last, clock) = (Ends::of(failing, view), &failing.last, clock(failing, view));
    let mut remedies = if clock.is_some() { clocks::remedies() } else { vec![] };
    if let (None, Some(faked)) = (&clock, faked::of(failing)) {
        remedies.extend(faked.remedies(view));
    }
    remedies.extend(remedies::of(failing, &ends, view));
    let evidence = failing.recent.iter().map(|failure| {
        let how = match failure.how {
            How::Alert(_) | How::Encrypted => format!("alert {}", failure.how.name()),
            How::Closed => "connection closed".into(),
            How::NotTls => "answer that is not TLS".into(),
        };
        (failure.at, format!("{how} after {}, with {}", text::duration(failure.lasted_ns), failure.peer))
    });
    Report {
        kind: Kind::TlsFailing,
        subject: subject.to_owned(),
        severity: severity(failing),
        began_ns: failing.began_ns,
        count: failing.total(),
        process: view.world.known.named(&last.owner),
        summary: summary(failing, &ends),
        why: why(failing, &ends, clock.as_ref()),
        cause: Some(cause(failing, &ends, clock.as_ref(), view)),
        caused_by: clock.into_iter().map(|clock| clock.id).collect(),
        remedies,
        evidence: evidence.collect(),
        details: details(failing, ends),
    }
}

/// No stranger makes it critical; a health check, and the trouble of one client among many, is worth knowing.
fn severity(failing: &Failing) -> Severity {
    let (peers, completed) = (failing.peers.len(), failing.completed());
    let is_check =
        failing.failure == TlsFailure::ClosedAfterServerFlight && (peers < CLIENTS || completed > 0);
    let is_its_own = failing.role() == Role::Server && peers == 1 && completed > failing.total();
    if is_check || is_its_own { Severity::Info } else { Severity::Warning }
}

fn confidence(failing: &Failing, view: &View<'_>) -> Confidence {
    let is_all = failing.endings.len() == 1 && !view.world.known.has_lost(&["tls"]);
    match failing.most() {
        How::Alert(number) if is_all && alerts::is_sure(number) => Confidence::Certain,
        How::NotTls if is_all => Confidence::Certain,
        How::Alert(_) | How::Encrypted | How::NotTls => Confidence::Likely,
        How::Closed => Confidence::Possible,
    }
}

fn cause(failing: &Failing, ends: &Ends, clock: Option<&Clock>, view: &View<'_>) -> Cause {
    let faked = faked::of(failing);
    let kind = match failing.failure {
        _ if clock.is_some() || faked.is_some() => CauseKind::Clock,
        TlsFailure::ServerFlightRefused | TlsFailure::ClientFlightRefused => CauseKind::Certificate,
        TlsFailure::NothingShared
        | TlsFailure::NameUnrecognized
        | TlsFailure::ProtocolUnrecognized
        | TlsFailure::NotTls => CauseKind::Parameters,
        TlsFailure::Broken
        | TlsFailure::ClosedUnanswered
        | TlsFailure::ClosedAfterServerFlight
        | TlsFailure::ClosedAfterClientFlight => CauseKind::Peer,
    };
    let confidence = match clock {
        None => faked.map_or_else(|| confidence(failing, view), |faked| faked.confidence),
        Some(clock) if is_expired(failing) && clock.ahead_ns >= HOUR_NS.cast_signed() => Confidence::Likely,
        Some(_) => Confidence::Possible,
    };
    Cause {
        kind,
        confidence,
        destination: (failing.role() == Role::Client).then(|| ends.peer.clone()),
        outcome: Some(failing.most().name()),
        ..Cause::default()
    }
}

fn is_expired(failing: &Failing) -> bool {
    failing.most() == How::Alert(alerts::CERTIFICATE_EXPIRED)
}

/// The clock by which this host has judged a certificate, if that is known to be wrong in a direction that fits.
pub(super) fn clock(failing: &Failing, view: &View<'_>) -> Option<Clock> {
    let judges = matches!(failing.failure, TlsFailure::ServerFlightRefused | TlsFailure::ClientFlightRefused);
    if !judges || failing.by != failing.role() {
        return None;
    }
    let fits = |ahead_ns: i64| {
        let is_off = ahead_ns.unsigned_abs() >= MINUTE_NS;
        match failing.most() {
            How::Alert(alerts::CERTIFICATE_EXPIRED) => is_off && ahead_ns > 0,
            How::Alert(alerts::BAD_CERTIFICATE | alerts::CERTIFICATE_UNKNOWN) | How::Encrypted => is_off,
            _ => false,
        }
    };
    let skewed = view.store.live(Kind::ClockSkewed).filter_map(|(id, details)| match details {
        Details::ClockSkewed(skewed) => Some((id, skewed.reference.ahead_ns)),
        _ => None,
    });
    let stepped = view.store.live(Kind::ClockStepped).filter_map(|(id, details)| match details {
        Details::ClockStepped(stepped)
            if matches!(stepped.verdict, ClockVerdict::Wrong | ClockVerdict::Unknown) =>
        {
            Some((id, stepped.delta_ns))
        }
        _ => None,
    });
    let mut wrong = skewed.chain(stepped);
    wrong.find(|(_, ahead_ns)| fits(*ahead_ns)).map(|(id, ahead_ns)| Clock { id: id.to_owned(), ahead_ns })
}

fn summary(failing: &Failing, ends: &Ends) -> String {
    let endings: Vec<String> = failing
        .endings
        .iter()
        .map(|(how, count)| match how {
            How::Alert(_) => format!("{} {}", how.name(), text::times(*count)),
            How::Encrypted => format!("an encrypted alert {}", text::times(*count)),
            How::Closed | How::NotTls => text::times(*count),
        })
        .collect();
    let span = text::duration(failing.last.at.saturating_sub(failing.began_ns));
    format!("{}: {} within {span}.", head(failing, ends), endings.join(", "))
}

fn head(failing: &Failing, ends: &Ends) -> String {
    let Ends { client, server, .. } = ends;
    let name = failing.name().map(|name| host::words(&name.text, name.invalid.as_ref()).into_owned());
    let at = match &name {
        Some(name) if ends.peer.name.as_ref() != Some(name) => format!("{server} for {name}"),
        _ => server.clone(),
    };
    match (failing.failure, failing.most()) {
        (TlsFailure::ServerFlightRefused, How::Encrypted) => {
            format!("{client} {} the server's flight of {at}", ends.verb("rejects", "reject"))
        }
        (TlsFailure::ServerFlightRefused, _) => {
            format!("{client} {} the certificate of {at}", ends.verb("refuses", "refuse"))
        }
        (TlsFailure::ClientFlightRefused, How::Encrypted) => {
            format!("{at} rejects the client's flight of {client}")
        }
        (TlsFailure::ClientFlightRefused, How::Alert(alerts::CERTIFICATE_REQUIRED)) => {
            format!("{at} wants a client certificate, and {client} {} none", ends.verb("sends", "send"))
        }
        (TlsFailure::ClientFlightRefused, _) => format!("{at} refuses the certificate of {client}"),
        (TlsFailure::NothingShared, How::Alert(alerts::PROTOCOL_VERSION)) => {
            format!("{client} and {at} share no TLS version")
        }
        (TlsFailure::NothingShared, _) => format!("{client} and {at} share no TLS parameters"),
        (TlsFailure::NameUnrecognized, _) => {
            let asked = name.as_deref().unwrap_or("the name");
            format!(
                "{server} has no certificate for {asked}, which {client} {} for",
                ends.verb("asks", "ask")
            )
        }
        (TlsFailure::ProtocolUnrecognized, _) => {
            format!("{at} speaks none of the protocols that {client} {}", ends.verb("offers", "offer"))
        }
        (TlsFailure::Broken, _) if failing.by == Role::Client => {
            format!("{client} {} off handshakes with {at}", ends.verb("breaks", "break"))
        }
        (TlsFailure::Broken, _) => format!("{at} breaks off handshakes with {client}"),
        (TlsFailure::ClosedUnanswered, _) => {
            format!("{at} closes connections of {client} in place of a ServerHello")
        }
        (TlsFailure::ClosedAfterServerFlight, _) => {
            format!("{client} {} connections after the server's flight of {at}", ends.verb("closes", "close"))
        }
        (TlsFailure::ClosedAfterClientFlight, _) => {
            format!("{at} closes connections after the client's flight of {client}")
        }
        (TlsFailure::NotTls, _) => {
            format!("{server} answers the ClientHello of {client} with something that is not TLS")
        }
    }
}

fn why(failing: &Failing, ends: &Ends, clock: Option<&Clock>) -> Vec<String> {
    let how = failing.most();
    let mut why = vec![match (how, failing.failure) {
        (How::Alert(number), _) => format!("{}: {}.", how.name(), alerts::says(number)),
        (How::Encrypted, TlsFailure::ClientFlightRefused) => {
            "The server rejected the client's flight. In TLS 1.3 its alert is encrypted: only the server's log says why. Usually it is the client's certificate: missing, expired, or of an issuer that the server does not accept.".into()
        }
        (How::Encrypted, _) => {
            "The client rejected the server's flight. In TLS 1.3 its alert is encrypted: only the client's log says why. Usually it is the certificate: expired, of an issuer that the client does not trust, or for another name.".into()
        }
        (_, TlsFailure::ClosedUnanswered) => {
            "The ClientHello gets no answer but the end of the connection: a proxy or firewall refuses the name, a proxy has no backend, or the port speaks no TLS.".into()
        }
        (_, TlsFailure::ClosedAfterServerFlight) => {
            "No alert says why. Health checks of load balancers end handshakes so; clients that expect one certain certificate do, too.".into()
        }
        (_, TlsFailure::ClosedAfterClientFlight) => {
            "No alert says why. Usually the server does not accept the client's certificate.".into()
        }
        (_, TlsFailure::NotTls) => format!("Port {} speaks another protocol than TLS, often plain HTTP.", port(failing, ends)),
        (_, _) => "No alert says why.".into(),
    }];
    if let (TlsFailure::NothingShared, Some(version)) = (failing.failure, &failing.last.version) {
        why.push(format!("The client offers {version} at most."));
    }
    let completed = failing.completed();
    if failing.role() == Role::Server && completed > 0 {
        let were = text::count(completed, "other handshake was", "other handshakes were");
        why.push(format!("{were} completed by this service meanwhile."));
    }
    if let (None, Some(faked)) = (clock, faked::of(failing)) {
        why.push(faked.why(failing));
    }
    if let Some(clock) = clock {
        let size = span(clock.ahead_ns.unsigned_abs());
        let counts = if clock.ahead_ns > 0 {
            format!("certificates that expire in less than {size} count as expired here")
        } else {
            format!("certificates issued less than {size} ago are not valid yet here")
        };
        why.push(format!("This host's clock is {}: {counts}.", off(clock.ahead_ns)));
    }
    why
}

/// The port of the service.
fn port(failing: &Failing, ends: &Ends) -> u16 {
    match failing.role() {
        Role::Server => ends.local.port,
        Role::Client => ends.peer.port,
    }
}

fn details(failing: &Failing, ends: Ends) -> Details {
    let mut worst: Vec<_> = failing.peers.iter().map(|(ip, count)| (*ip, *count)).collect();
    worst.sort_by_key(|(ip, count)| (std::cmp::Reverse(*count), *ip));
    let listed = if worst.len() > 1 { WORST } else { 0 };
    let worst = worst.into_iter().take(listed).map(|(ip, count)| FailingPeer { ip, count });
    let name = failing.name();
    Details::TlsFailing(TlsFailingDetails {
        role: failing.role(),
        failure: failing.failure,
        ended_by: failing.by,
        sni: name.map(|name| name.text.clone()),
        sni_invalid: name.and_then(|name| name.invalid),
        local: ends.local,
        peer: ends.peer,
        offered_version: failing.last.version.clone(),
        endings: failing.endings.iter().map(|(how, count)| (how.name(), *count)).collect(),
        peers: failing.peers.len() as u64,
        worst: worst.collect(),
        completed: failing.completed(),
        faked_time: faked::of(failing).map(|faked| faked.time.clone()),
    })
}
