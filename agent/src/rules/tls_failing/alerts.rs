//! What alerts mean: which failure each is a sign of, by who sent it and how far the handshake had come, and what it says
//! (RFC 8446 §6; RFC 5246 §7.2 for those that only older versions have).

use ebpf_probes::probes::tls::stage;

use crate::{domains::tls::Role, pipeline::incident::TlsFailure};

pub(super) const CLOSE_NOTIFY: u8 = 0;
pub(super) const HANDSHAKE_FAILURE: u8 = 40;
const NO_CERTIFICATE: u8 = 41;
pub(super) const BAD_CERTIFICATE: u8 = 42;
const UNSUPPORTED_CERTIFICATE: u8 = 43;
pub(super) const CERTIFICATE_REVOKED: u8 = 44;
pub(super) const CERTIFICATE_EXPIRED: u8 = 45;
pub(super) const CERTIFICATE_UNKNOWN: u8 = 46;
pub(super) const UNKNOWN_CA: u8 = 48;
const ACCESS_DENIED: u8 = 49;
const DECRYPT_ERROR: u8 = 51;
pub(super) const PROTOCOL_VERSION: u8 = 70;
const INSUFFICIENT_SECURITY: u8 = 71;
const INTERNAL_ERROR: u8 = 80;
const INAPPROPRIATE_FALLBACK: u8 = 86;
pub(super) const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;
const MISSING_EXTENSION: u8 = 109;
const UNSUPPORTED_EXTENSION: u8 = 110;
const UNRECOGNIZED_NAME: u8 = 112;
const BAD_STATUS_RESPONSE: u8 = 113;
const UNKNOWN_PSK_IDENTITY: u8 = 115;
pub(super) const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The level of an alert after which a handshake may go on.
const WARNING: u8 = 1;

/// What an alert says, and whether it says it for sure: many libraries send some of them for want of a better one.
struct Meaning {
    number: u8,
    says: &'static str,
    is_sure: bool,
}

const fn sure(number: u8, says: &'static str) -> Meaning {
    Meaning { number, says, is_sure: true }
}

const fn vague(number: u8, says: &'static str) -> Meaning {
    Meaning { number, says, is_sure: false }
}

const MEANINGS: &[Meaning] = &[
    vague(
        HANDSHAKE_FAILURE,
        "no cipher suite, group or signature algorithm is shared, or a client certificate is missing",
    ),
    vague(BAD_CERTIFICATE, "the certificate is damaged, wrongly signed, for another name, or not valid yet"),
    sure(UNSUPPORTED_CERTIFICATE, "the certificate is of a type, or for a use, that is not accepted"),
    sure(CERTIFICATE_REVOKED, "the certificate was revoked by its issuer"),
    sure(CERTIFICATE_EXPIRED, "the certificate has expired, or the clock of the sender is ahead"),
    vague(
        CERTIFICATE_UNKNOWN,
        "the certificate is not accepted, for a reason that the alert leaves open: it may have expired, be for another name, or its issuer not be trusted",
    ),
    sure(
        UNKNOWN_CA,
        "the sender does not trust the issuer: an intermediate certificate is not presented, or the authority is not among those that it trusts",
    ),
    sure(ACCESS_DENIED, "the certificate is valid, and its holder is not let in"),
    vague(
        DECRYPT_ERROR,
        "a signature does not verify: the key is not that of the certificate, or something between the two changes what they send",
    ),
    sure(PROTOCOL_VERSION, "no TLS version that one side offers is accepted by the other"),
    sure(INSUFFICIENT_SECURITY, "what is offered is weaker than what the sender accepts"),
    vague(INTERNAL_ERROR, "the sender has an error that has nothing to do with its peer: its log says which"),
    sure(INAPPROPRIATE_FALLBACK, "the client offers less than it did at first, and the server speaks more"),
    vague(MISSING_EXTENSION, "an extension that the sender needs is missing, often the server name"),
    vague(UNSUPPORTED_EXTENSION, "the server answers with an extension that was not offered"),
    sure(UNRECOGNIZED_NAME, "the server has no certificate for the name that the client asks for"),
    vague(BAD_STATUS_RESPONSE, "the stapled OCSP response is not accepted: it may have expired"),
    vague(UNKNOWN_PSK_IDENTITY, "the server does not know the pre-shared key"),
    sure(CERTIFICATE_REQUIRED, "the server wants a client certificate, and none was sent"),
    sure(NO_APPLICATION_PROTOCOL, "the server speaks none of the protocols that the client offers by ALPN"),
];

fn meaning(number: u8) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|meaning| meaning.number == number)
}

/// What an alert says, as a sentence's part.
pub(super) fn says(number: u8) -> &'static str {
    meaning(number).map_or("the sender cannot make sense of what it received", |meaning| meaning.says)
}

/// Whether it names its reason, and no other.
pub(super) fn is_sure(number: u8) -> bool {
    meaning(number).is_some_and(|meaning| meaning.is_sure)
}

/// Whether the handshake goes on after it.
pub(super) fn goes_on(level: u8, number: u8) -> bool {
    level == WARNING && matches!(number, NO_CERTIFICATE | NO_RENEGOTIATION | UNRECOGNIZED_NAME)
}

/// Which failure an alert is a sign of; `at` is the stage the handshake was in.
pub(super) fn failure(number: u8, by: Role, at: u32) -> TlsFailure {
    let answers_client = by == Role::Server && at == stage::CLIENT_FINISH;
    match number {
        NO_CERTIFICATE..=CERTIFICATE_UNKNOWN | UNKNOWN_CA | BAD_STATUS_RESPONSE => match by {
            Role::Client => TlsFailure::ServerFlightRefused,
            Role::Server => TlsFailure::ClientFlightRefused,
        },
        ACCESS_DENIED | CERTIFICATE_REQUIRED if by == Role::Server => TlsFailure::ClientFlightRefused,
        // OpenSSL says so up to TLS 1.2 of a client that has no certificate.
        HANDSHAKE_FAILURE if answers_client => TlsFailure::ClientFlightRefused,
        HANDSHAKE_FAILURE
        | PROTOCOL_VERSION
        | INSUFFICIENT_SECURITY
        | INAPPROPRIATE_FALLBACK
        | MISSING_EXTENSION
        | UNSUPPORTED_EXTENSION
        | UNKNOWN_PSK_IDENTITY => TlsFailure::NothingShared,
        UNRECOGNIZED_NAME => TlsFailure::NameUnrecognized,
        NO_APPLICATION_PROTOCOL => TlsFailure::ProtocolUnrecognized,
        _ => TlsFailure::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::tls::alert_name;

    #[test]
    fn numbers_are_those_of_the_rfcs() {
        for (number, name) in [
            (BAD_CERTIFICATE, "bad_certificate"),
            (CERTIFICATE_REVOKED, "certificate_revoked"),
            (CERTIFICATE_EXPIRED, "certificate_expired"),
            (CERTIFICATE_UNKNOWN, "certificate_unknown"),
            (UNKNOWN_CA, "unknown_ca"),
            (HANDSHAKE_FAILURE, "handshake_failure"),
            (PROTOCOL_VERSION, "protocol_version"),
            (INTERNAL_ERROR, "internal_error"),
            (UNRECOGNIZED_NAME, "unrecognized_name"),
            (NO_APPLICATION_PROTOCOL, "no_application_protocol"),
            (DECRYPT_ERROR, "decrypt_error"),
        ] {
            assert_eq!(alert_name(number), name);
        }
    }

    #[test]
    fn an_alert_means_what_its_sender_and_the_moment_make_of_it() {
        let at = |number, by, stage| failure(number, by, stage);
        let (client, server) = (Role::Client, Role::Server);
        let flight = stage::SERVER_FLIGHT;
        assert_eq!(at(CERTIFICATE_EXPIRED, client, flight), TlsFailure::ServerFlightRefused);
        assert_eq!(at(CERTIFICATE_EXPIRED, server, stage::CLIENT_FINISH), TlsFailure::ClientFlightRefused);
        assert_eq!(at(HANDSHAKE_FAILURE, server, stage::HELLO), TlsFailure::NothingShared);
        assert_eq!(at(HANDSHAKE_FAILURE, server, stage::CLIENT_FINISH), TlsFailure::ClientFlightRefused);
        assert_eq!(at(255, server, stage::HELLO), TlsFailure::Broken);
        assert!(goes_on(1, UNRECOGNIZED_NAME) && !goes_on(2, UNRECOGNIZED_NAME));
    }
}
