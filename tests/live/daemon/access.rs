//! TLS and passwords, in the format of the Prometheus exporter toolkit.

use std::{process::Command, time::Duration};

use crate::{
    harness::{culprit::binary, daemon::Setup, eventually, process::run, tls::Identity},
    needs,
};

/// What curl says: status code, and why if it failed.
fn curl(args: &[&str]) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-S", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]).args(args);
    let output = curl.output().expect("curl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn tls_and_a_password_are_required_and_a_renewed_certificate_is_used() {
    needs!(Openssl, Curl, Pace);
    let (setup, identity) = (Setup::make(), Identity::make());
    let file = setup.files.join("web.yml");
    for (from, to) in [(identity.cert(), "cert.pem"), (identity.key(), "key.pem")] {
        std::fs::copy(from, setup.files.join(to)).expect("room");
    }
    // htpasswd -nbBC 5 sre open-sesame
    let hash = bcrypt::hash("open-sesame", 5).expect("a hash");
    let rules = format!(
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n  sre: {hash}\nhttp_server_config:\n  headers:\n    Strict-Transport-Security: max-age=600\n"
    );
    std::fs::write(&file, rules).expect("room");
    let daemon = setup.start(&format!("--web-config-file {}", file.display()));
    let name = crate::harness::tls::NAME;
    let url = |path: &str| format!("https://{name}:{}{path}", daemon.address.port());
    let connect = format!("{name}:{}:127.0.0.1", daemon.address.port());
    let cert = identity.cert().display().to_string();
    let ask = |path: &str, more: &[&str]| {
        let url = url(path);
        let mut args = vec!["--resolve", &connect, "--cacert", &cert, &url];
        args.extend(more);
        curl(&args)
    };
    let tries = [
        ask("/metrics", &[]),
        ask("/metrics", &["-u", "sre:wrong"]),
        ask("/metrics", &["-u", "root:open-sesame"]),
        ask("/metrics", &["-u", "sre:open-sesame"]),
        ask("/healthz", &["--http1.1"]),
    ];
    let codes: Vec<&str> = tries.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["401 2", "401 2", "401 2", "200 2", "200 1.1"], "{tries:?}");
    let (plain, _) = curl(&[&format!("http://{}/metrics", daemon.address)]);
    assert!(plain.starts_with("000"), "{plain}");
    // `culprit incidents` trusts what it is given, and nothing else. Incidents of other tests may be kept.
    let incidents = |user: &str, ca: &[&str]| {
        let url = format!("https://{user}127.0.0.1:{}", daemon.address.port());
        let output = binary()
            .args(["incidents", "--text", "of no incident", "--url", &url])
            .args(ca)
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ca = ["--ca", cert.as_str()];
    assert_eq!(incidents("sre:open-sesame@", &ca), (Some(0), "culprit: no such incident is kept\n".into()));
    let (code, said) = incidents("sre:wrong@", &ca);
    assert!(code == Some(1) && said.contains("401") && said.contains("NAME:PASSWORD@"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    let (code, said) = incidents("sre:open-sesame@", &[]);
    assert!(code == Some(1) && said.contains("certificate") && !said.contains("open-sesame"), "{said}");
    // Another certificate in its place, as renewal does it.
    let other = Identity::make();
    std::fs::copy(other.cert(), setup.files.join("cert.pem")).expect("room");
    std::fs::copy(other.key(), setup.files.join("key.pem")).expect("room");
    let renewed = other.cert().display().to_string();
    eventually("the new certificate is used", || {
        std::thread::sleep(Duration::from_millis(200));
        curl(&["--resolve", &connect, "--cacert", &renewed, &url("/healthz")]).0.starts_with("200")
    });
    // What cannot be read leaves what was there.
    std::fs::write(setup.files.join("key.pem"), "no key").expect("room");
    eventually("it says so", || {
        let _ = curl(&["--resolve", &connect, "--cacert", &renewed, &url("/healthz")]);
        daemon.culprit.running().stderr().contains("what was there before stays in effect")
    });
    assert!(curl(&["--resolve", &connect, "--cacert", &renewed, &url("/healthz")]).0.starts_with("200"));
}

#[test]
fn an_invalid_web_configuration_is_an_error_at_startup() {
    needs!(Pace);
    let setup = Setup::make();
    let file = setup.files.join("web.yml");
    for (text, wanted) in [
        (
            "basic_auth_users:\n  sre: open-sesame\n",
            "sre: this is no bcrypt hash: `htpasswd -nBC 10 sre` makes one",
        ),
        (
            "tls_server_config:\n  cert_file: absent.pem\n  key_file: absent.key\n",
            "absent.pem: no certificates in PEM",
        ),
        ("wibble: 1\n", "wibble"),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}\n", "TLS10"),
    ] {
        std::fs::write(&file, text).expect("room");
        let mut command = binary();
        command.args(["run", "--for", "1s", "--web-config-file"]).arg(&file);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{text}: {output:?}");
    }
    let mut version = binary();
    run(version.arg("--version"));
}
