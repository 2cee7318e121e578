//! What to do about failing handshakes: by failure, by alert, and by which side this host is. A command that looks is given
//! with the addresses and names that were seen, in the network namespace of the program.

use std::net::SocketAddr;

use super::{alerts, ending::How, ends::Ends, failing::Failing};
use crate::{
    domains::tls::Role,
    pipeline::{View, incident::TlsFailure, remedy::Remedy},
    rules::neighbours,
    text::{shell::Command, shown},
};

/// What is looked at, and from where.
struct Look<'a, 'w> {
    failing: &'a Failing,
    view: &'a View<'w>,
    at: SocketAddr,
}

impl Look<'_, '_> {
    /// A command in the program's network namespace.
    fn within(&self, command: Command) -> Remedy {
        let owner = &self.failing.last.owner;
        let netns = self.view.world.known.namespace(owner.netns);
        neighbours::within(netns.as_deref(), Some(owner.process), command)
    }

    /// A client of the service, with the name that was asked for, that says hello and goes.
    fn client(&self, options: &'static str) -> Remedy {
        let mut command = Command::new("openssl").words("s_client -connect").arg(self.at);
        if let Some(name) = self.failing.name().filter(|name| name.invalid.is_none()) {
            command = command.arg("-servername").arg(&name.text);
        }
        let command = if options.is_empty() { command } else { command.words(options) };
        self.within(command).and(" </dev/null")
    }

    /// What it presents.
    fn certificate(&self, why: String) -> Remedy {
        let shows = Command::new("openssl").words("x509 -noout -subject -issuer -dates");
        Remedy::from(why).and(self.client("")).and(" | ").and(shows)
    }
}

/// What to do.
pub(super) fn of(failing: &Failing, ends: &Ends, view: &View<'_>) -> Vec<Remedy> {
    let is_server = failing.role() == Role::Server;
    let end = if is_server { &ends.local } else { &ends.peer };
    let at = SocketAddr::new(end.ip, end.port);
    let look = Look { failing, view, at };
    let program = view.world.known.named(&failing.last.owner);
    let program = program.map_or_else(|| "the program".into(), |program| shown(&program.comm).into_owned());
    match failing.failure {
        TlsFailure::ServerFlightRefused => server_certificate(&look, &program, ends, is_server),
        TlsFailure::ClientFlightRefused => client_certificate(&look, &program, ends, is_server),
        TlsFailure::NothingShared => vec![
            Remedy::from("see what the service accepts: ").and(look.client("-tls1_2")),
            Remedy::from("and: ").and(look.client("-tls1_3")),
            format!(
                "then let {} accept what the other side has: its minimum TLS version and cipher list decide",
                if is_server { &program } else { &ends.server }
            )
            .into(),
        ],
        TlsFailure::NameUnrecognized => vec![
            format!("add the name to {}, or correct it in {}", ends.server, ends.client).into(),
            look.certificate("see what it presents instead: ".into()),
        ],
        TlsFailure::ProtocolUnrecognized => vec![
            Remedy::from("see which protocol it chooses: ").and(look.client("-alpn h2,http/1.1")),
            format!("enable that of {} in {}, or offer another one", ends.client, ends.server).into(),
        ],
        TlsFailure::Broken => vec![
            Remedy::from("see how far another client comes: ").and(look.client("-msg")),
            "read the log of the side that sent the alert; a proxy between the two may change what they send"
                .into(),
        ],
        TlsFailure::ClosedUnanswered => vec![
            Remedy::from("see whether any client is answered: ").and(look.client("")),
            if is_server {
                format!("read the log of {program}: it read the ClientHello and closed the connection").into()
            } else {
                format!("look for a firewall, or a proxy without backends, before {}", ends.server).into()
            },
        ],
        TlsFailure::ClosedAfterServerFlight => vec![
            format!(
                "if {} checks the service's health, let it complete the handshake, or check the port alone",
                ends.client
            )
            .into(),
            look.certificate("if it is a real client, see what is presented to it: ".into()),
        ],
        TlsFailure::ClosedAfterClientFlight => client_certificate(&look, &program, ends, is_server),
        TlsFailure::NotTls => {
            let ask = Command::new("curl").words("-sv -m 3 -o /dev/null").arg(format!("http://{at}/"));
            vec![
                if is_server {
                    format!(
                        "serve TLS on port {} of {program}, or turn TLS off in {}",
                        at.port(),
                        ends.client
                    )
                    .into()
                } else {
                    format!("correct the port that {program} connects to, or turn TLS off in it").into()
                },
                Remedy::from("see whether HTTP answers there: ").and(look.within(ask)),
            ]
        }
    }
}

/// The server's certificate is refused.
fn server_certificate(look: &Look<'_, '_>, program: &str, ends: &Ends, is_server: bool) -> Vec<Remedy> {
    let at = look.at;
    let mut remedies: Vec<Remedy> = match look.failing.most() {
        How::Alert(alerts::CERTIFICATE_EXPIRED | alerts::CERTIFICATE_REVOKED) if is_server => {
            vec![format!("renew the certificate, and have {program} load it again").into()]
        }
        How::Alert(alerts::CERTIFICATE_EXPIRED) => vec![
            format!("have the certificate of {at} renewed, if its dates are over").into(),
            Remedy::from("see whether this host's clock is right: ").and(Command::new("culprit").words("list clocks")),
        ],
        How::Alert(alerts::UNKNOWN_CA) if is_server => vec![
            format!("let {program} present the intermediate certificates with its own, or have {} trust their issuer", ends.client)
                .into(),
            Remedy::from("see the chain that is presented: ").and(look.client("-showcerts")),
        ],
        How::Alert(alerts::UNKNOWN_CA) => vec![
            format!("let {program} trust the issuer, if it should, or have {at} present its intermediate certificates")
                .into(),
            Remedy::from("see the chain that is presented: ").and(look.client("-showcerts")),
        ],
        How::Encrypted if is_server => vec![format!("read the log of {}: it says what it refuses", ends.client).into()],
        How::Encrypted => vec![format!("read the log of {program}: it says what it refuses").into()],
        _ => vec![],
    };
    remedies.push(look.certificate("see whose certificate it is, and its dates: ".into()));
    remedies
}

/// The client's certificate is refused, or missing.
fn client_certificate(look: &Look<'_, '_>, program: &str, ends: &Ends, is_server: bool) -> Vec<Remedy> {
    let accepts = Remedy::from(
        "see whose certificates the service accepts (\"Acceptable client certificate CA names\"): ",
    )
    .and(look.client(""));
    let renew = if is_server {
        format!("give {} a certificate that {program} accepts, with dates that are not over", ends.client)
    } else {
        format!("give {program} a certificate that {} accepts, with dates that are not over", look.at)
    };
    vec![renew.into(), accepts]
}
