//! How to do without a fetch of an issuer certificate, a CRL or an OCSP answer: in the words of the runtime that
//! makes it, which is known by its library. Only what was tried and works.

use std::net::IpAddr;

use crate::{
    known::context::{Loaded, Runtime},
    pipeline::{View, remedy::Remedy},
};

/// Plain HTTP: where issuer certificates, CRLs and OCSP answers come from (RFC 5280 §4.2.2.1, §4.2.1.13).
pub(super) const HTTP: u16 = 80;

/// The first .NET with `SslStreamCertificateContext`, and with `DisableCertificateDownloads`.
const DOTNET_CONTEXT: u32 = 5;

/// On whose behalf a process fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A server, to build the chain it sends.
    OwnChain,
    /// A server, to judge a client's certificate.
    Client,
    /// A client, to judge the certificate of the server at this address.
    Server(IpAddr),
}

/// What a process has loaded, as it was last seen.
pub(super) fn loaded(process: u32, view: &View<'_>) -> Loaded {
    let mut loaded = view.world.known.loaded(process).cloned().unwrap_or_default();
    // Old recordings do not say; there a launcher's name is all there is.
    let program = || view.world.known.of_process(process).and_then(|known| known.exe.as_deref());
    if !loaded.known && program().is_some_and(|exe| exe.ends_with("/java")) {
        loaded.runtime = Some(Runtime::Java);
    }
    loaded
}

/// The remedies, the one that takes no change of the program first.
pub(super) fn remedies(loaded: &Loaded, whom: For) -> Vec<Remedy> {
    let chain = match whom {
        For::OwnChain => "install the full chain on this host, so that nothing has to be fetched".to_owned(),
        For::Client => {
            "have clients send their full chain, or install the issuers of their certificates here".into()
        }
        For::Server(ip) => format!(
            "install the full chain on {ip}, so that nothing has to be fetched, or the missing intermediate here"
        ),
    };
    vec![chain.into(), turn_off(loaded, whom).into()]
}

fn turn_off(loaded: &Loaded, whom: For) -> String {
    match (&loaded.runtime, whom) {
        (Some(Runtime::Java), _) => "turn the fetch off: -Dcom.sun.security.enableAIAcaIssuers=false, \
                                     -Dcom.sun.net.ssl.checkRevocation=false"
            .into(),
        (Some(Runtime::Dotnet { major }), For::OwnChain) if major.is_none_or(|major| major >= DOTNET_CONTEXT) => {
            "turn the fetch off: hand the server SslStreamCertificateContext.Create(certificate, chain, offline: \
             true) instead of a bare certificate (.NET 5 and later)"
                .into()
        }
        (Some(Runtime::Dotnet { .. }), For::OwnChain) => {
            "this .NET has no setting that stops the fetch: put the intermediates into the user's CA store \
             (~/.dotnet/corefx/cryptography/x509stores/ca), or move to .NET 5 or later"
                .into()
        }
        (Some(Runtime::Dotnet { major }), _) => {
            let revocation = "turn the fetch off: CertificateRevocationCheckMode = NoCheck";
            // The older ones have no such switch.
            if major.is_none_or(|major| major >= DOTNET_CONTEXT) {
                format!("{revocation}, X509ChainPolicy.DisableCertificateDownloads = true")
            } else {
                revocation.into()
            }
        }
        (Some(Runtime::Node) | None, _) => {
            "staple OCSP, or turn the fetch off in the program's TLS settings".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dotnet(major: Option<u32>) -> Loaded {
        Loaded { runtime: Some(Runtime::Dotnet { major }), ..Loaded::default() }
    }

    /// What is advised, as it is written.
    fn written(loaded: &Loaded, whom: For) -> String {
        remedies(loaded, whom).iter().map(|remedy| format!("{remedy}\n")).collect()
    }

    #[test]
    fn a_dotnet_server_is_given_what_works_and_only_where_it_exists() {
        for major in [None, Some(5), Some(8)] {
            let said = written(&dotnet(major), For::OwnChain);
            assert!(
                said.contains("SslStreamCertificateContext.Create(certificate, chain, offline: true)"),
                "{said}"
            );
            assert!(!said.contains("DisableCertificateDownloads"), "{said}");
        }
        let old = written(&dotnet(Some(3)), For::OwnChain);
        assert!(!old.contains("SslStreamCertificateContext") && old.contains("full chain"), "{old}");
    }

    #[test]
    fn a_dotnet_client_can_turn_downloads_off_since_five() {
        let whom = For::Server(IpAddr::from([192, 0, 2, 9]));
        let said = |major| written(&dotnet(major), whom);
        assert!(said(Some(8)).contains("DisableCertificateDownloads = true"));
        assert!(!said(Some(3)).contains("DisableCertificateDownloads"));
        assert!(said(Some(8)).contains("full chain on 192.0.2.9"));
    }
}
