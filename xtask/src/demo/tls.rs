//! The outage that started culprit: a server hangs in every TLS handshake, because for each it fetches an
//! issuer certificate over plain HTTP, and a firewall swallows that.

use std::{
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{lab::Lab, watch::Watch};
use crate::cmd;

/// Addresses for documentation (RFC 5737): inside the namespaces they lead nowhere else.
const CLIENT: &str = "203.0.113.9";
const SERVER: &str = "203.0.113.1";
const FETCHED: &str = "192.0.2.64";
const SNI: &str = "b.cluster.example";

pub(super) fn play() -> Result<()> {
    let culprit = super::build()?;
    let mut lab = Lab::new()?;
    eprintln!(
        "\
The outage: a cluster node accepts connections and hangs. CPU, memory and disk are idle. The same TLS
client that always worked sends its ClientHello and waits.

  client {CLIENT}  ──  node {SERVER}:443  ──  firewall that drops port 80  ──  apps.identrust.example {FETCHED}

Building it in network namespaces …"
    );
    let (node, client) = (lab.host("node")?, lab.host("client")?);
    lab.wire((&node, &format!("{SERVER}/24")), (&client, &format!("{CLIENT}/24")))?;
    let python = |lab: &Lab, name: &str, code: &str| lab.file(name, code);
    let void = python(&lab, "void.py", include_str!("../../../tests/programs/void.py"))?;
    lab.start(Lab::inside(&node, "/usr/bin/python3").arg(void).arg("uplink0"))?;
    lab.ip(&node, "link set uplink0 up")?;
    lab.ip(&node, "route add default dev uplink0")?;
    let dns = python(&lab, "dns_server.py", include_str!("dns_server.py"))?;
    lab.start(Lab::inside(&client, "/usr/bin/python3").arg(dns).args([CLIENT, FETCHED]))?;
    let resolv = lab.file("resolv.conf", &format!("nameserver {CLIENT}\n"))?;
    let (cert, key) = (lab.path("cert.pem"), lab.path("key.pem"));
    let subject = format!("/CN={SNI}");
    let mut request = Command::new("openssl");
    request
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject, "-keyout"]);
    cmd::output(request.arg(&key).arg("-out").arg(&cert))?;
    let program = python(&lab, "raven.py", include_str!("tls_server.py"))?;
    // `ip netns exec` gives its child a mount namespace of its own: the resolver is the demo's alone.
    let script = format!(
        "mount --bind '{}' /etc/resolv.conf && exec /usr/bin/python3 '{}' {SERVER} 443 http://apps.identrust.example/roots/dstrootcax3.p7c '{}' '{}'",
        resolv.display(),
        program.display(),
        cert.display(),
        key.display(),
    );
    let server = lab.start(Lab::inside(&node, "sh").args(["-c", &script]))?;

    eprintln!("\n$ sudo culprit trace -p {server}");
    let pid = server.to_string();
    let args = ["trace", "-p", &pid, "-e", "connect,tls,dns", "--for", "20s"];
    let watch = Watch::start(&culprit, &args)?;
    let began = Instant::now();
    let mut openssl = Lab::inside(&client, "openssl");
    openssl.args(["s_client", "-connect", &format!("{SERVER}:443"), "-servername", SNI]);
    let silent = openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let shaken = silent.status().context("starting openssl")?;
    let took = began.elapsed();
    // An incident counts as resolved when it has stayed so for two seconds.
    sleep(Duration::from_millis(2600));
    watch.end()?;
    eprintln!(
        "
What you saw:
  · `openssl s_client` waited {:.1} s ({}). Nothing was wrong with the node itself.
  · The first lines are facts: the ClientHello and the very thread that read it, the name that thread then
    looked up, the connect it made, and SYN after SYN without an answer.
  · TLS HANDSHAKE STALLED is the incident, one second into it and while it still goes on: it names the
    connect, because that thread is in it (`certain`), and says what to do.
  · When the fetch gave up, the handshake moved within milliseconds: the incident resolves and says how
    long it took. With `--format json` the same comes as one object; `culprit run` reports nothing else.",
        took.as_secs_f64(),
        if shaken.success() { "then the handshake went through" } else { "and gave up" },
    );
    Ok(())
}
