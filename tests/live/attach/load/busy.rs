//! A machine that is busy and healthy opens no incident, however long it goes on; a fault at its end does. A part of a
//! minute where the suite runs, an hour before a release: `CULPRIT_BUSY_MINUTES=60`.
//!
//! The load is of real programs with their own defaults: a web server and clients over TLS, a DNS server asked by glibc,
//! a mirror that apt reads, a compiler, containers that come and go.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{
        Incident, Netns, Running, Scratch, container::Container, culprit::binary, deadline, eventually,
        netns::Pair, require::runs, tls::Identity,
    },
    needs,
};

/// A container comes so often at most.
const EVERY: Duration = Duration::from_secs(1);
/// The name that DNS has for the server.
const NAME: &str = "service.test";
/// How long the suite's own run is.
const SHORT: Duration = Duration::from_secs(15);
/// Events a second that make a machine busy: a million in an hour.
const BUSY_PER_S: f64 = 300.0;

/// What culprit wrote, as far as it is about the load.
#[derive(Default)]
struct Heard {
    events: u64,
    incidents: Vec<Incident>,
    summary: Option<Value>,
}

impl Heard {
    /// Reads what has been written, for at most so long or until `done`.
    fn listen(&mut self, culprit: &Running, ours: &Ours, until: Instant, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let Ok(Some(line)) = culprit.next_line(until) else { return };
            if line.contains(r#""type":"event""#) {
                self.events += u64::from(ours.has(&line));
                continue;
            }
            let json: Value = serde_json::from_str(&line).expect("JSON");
            match json["type"].as_str() {
                Some("incident") if ours.has(&line) => self.incidents.push(Incident { json }),
                Some("summary") => self.summary = Some(json),
                _ => {}
            }
        }
    }
}

/// The namespaces of the load: other tests break things in theirs.
#[derive(Default)]
struct Ours(Mutex<Vec<String>>);

impl Ours {
    fn are(&self, netns: &Netns) {
        // With what ends the name, for one may be another's beginning.
        self.0.lock().expect("no panic").push(format!("{}\"", netns.name()));
    }

    fn has(&self, line: &str) -> bool {
        self.0.lock().expect("no panic").iter().any(|name| line.contains(name))
    }
}

fn length() -> Duration {
    let minutes = std::env::var("CULPRIT_BUSY_MINUTES").ok().and_then(|minutes| minutes.parse::<f64>().ok());
    minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0))
}

/// A shell script inside which resolves names by the DNS server on the wire.
fn script(netns: &Netns, files: &Scratch, script: &str) -> Running {
    let mut command = Command::new("unshare");
    let resolv = files.join("resolv.conf");
    let bound = format!("mount --bind '{}' /etc/resolv.conf && {script}", resolv.display());
    command.args(["--mount", "sh", "-c", &bound]).current_dir(files.path());
    netns.spawn(command)
}

/// A web server in Node, which answers a page over TLS; and a mirror, which is a directory over HTTP.
fn servers(pair: &Pair, identity: &Identity, files: &Scratch) -> Vec<Running> {
    let (server, at) = (&pair.server, pair.v4(2));
    let mut web = Command::new("node");
    web.arg("-e").arg(
        "const fs = require('fs'); \
         require('https').createServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2])}, \
         (_, answer) => answer.end('x'.repeat(20000))).listen(443);",
    );
    web.args([identity.cert(), identity.key()]);
    let mut mirror = Command::new("/usr/bin/python3");
    mirror.args(["-m", "http.server", "80", "--directory"]).arg(files.join("mirror"));
    let mut dns = Command::new("dnsmasq");
    dns.args(["-k", "-C", "/dev/null", "--no-hosts", "--no-resolv", "--user=root", "--pid-file="])
        .args([&format!("--address=/service.test/{at}"), "--local=/nowhere.example/"]);
    let all = [web, mirror, dns].map(|command| server.spawn(command));
    eventually("the servers listen", || {
        let bound = server.enter(|| {
            ["tcp", "tcp6", "udp"]
                .map(|table| {
                    fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).expect("proc")
                })
                .concat()
        });
        [":01BB ", ":0050 ", ":0035 "].iter().all(|port| bound.contains(port))
    });
    all.into()
}

/// Those who use them, and a compiler.
fn clients(pair: &Pair, identity: &Identity, files: &Scratch) -> Vec<Running> {
    let client = &pair.client;
    let cert = identity.cert();
    let web = format!(
        "while curl -sS --cacert '{}' -o page https://{NAME}/ https://{NAME}/again http://{NAME}/Packages; do sleep 0.15; done",
        cert.display()
    );
    let lookups =
        format!("while getent ahosts {NAME} && getent ahostsv4 db.service.test; do sleep 0.1; done");
    let compiler = "echo 'int main(void) { return 0; }' > main.c; while cc -O2 -o main main.c && ./main; do sleep 0.5; done";
    let apt = format!(
        "mkdir -p lists/partial archives/partial; : > status; echo 'deb [trusted=yes] http://{NAME}/ ./' > sources; \
         while apt-get -o APT::Sandbox::User=root -o Dir::Etc::SourceList=$PWD/sources -o Dir::Etc::SourceParts=- \
         -o Dir::State::Lists=$PWD/lists -o Dir::Cache::Archives=$PWD/archives -o Dir::State::Status=$PWD/status \
         -o Dir::Cache::SrcPkgCache= -o Dir::Cache::PkgCache= -o Acquire::Retries=0 -o APT::Update::Error-Mode=any \
         -qq update; do sleep 1; done"
    );
    let mut scripts = vec![web.clone(), web, lookups, compiler.to_owned()];
    if runs("apt-get", "--version") {
        scripts.push(apt);
    }
    scripts.iter().map(|text| script(client, files, text)).collect()
}

/// Containers that come, ask the mirror for a file and go, each in a namespace of its own on the server's bridge.
fn containers(pair: &Pair, ours: &Ours, over: &AtomicBool) -> u32 {
    let server = &pair.server;
    let (bridge, mirror) = (pair.client.v4(101), pair.client.v4(102));
    let mut made = 0;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let netns = Netns::make();
        ours.are(&netns);
        server.ip(&format!("link add pod type veth peer name eth0 netns {}", netns.name()));
        server.ip(&format!("addr add {bridge}/32 peer {mirror} dev pod"));
        server.ip("link set pod up");
        netns.ip(&format!("addr add {mirror}/32 peer {bridge} dev eth0"));
        netns.ip("link set eth0 up");
        let asks = format!("printf 'GET /Packages HTTP/1.0\\r\\n\\r\\n' | nc {bridge} 80");
        Container::make("docker", &netns, &asks).run();
        server.ip("link del pod");
        made += 1;
        thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
    made
}

#[test]
fn a_busy_healthy_machine_opens_no_incident_and_a_fault_at_its_end_does() {
    needs!(Node, Curl, Dnsmasq, Gcc, Runc, Nftables, Pace);
    let (pair, identity, files, ours) = (Pair::make(), Identity::make(), Scratch::make(), Ours::default());
    for netns in [&pair.client, &pair.server] {
        ours.are(netns);
    }
    fs::write(files.join("resolv.conf"), format!("nameserver {}\n", pair.v4(2))).expect("our own directory");
    fs::create_dir(files.join("mirror")).expect("our own directory");
    fs::write(files.join("mirror/Packages"), "").expect("our own directory");
    let _servers = servers(&pair, &identity, &files);
    let mut command = binary();
    command.args(["trace", "--format", "json"]);
    let culprit = Running::spawn(&mut command);
    culprit.wait_for_line(r#""type":"start""#);
    let mut heard = Heard::default();
    let mut loads = clients(&pair, &identity, &files);
    let (over, began) = (AtomicBool::new(false), Instant::now());
    let made = thread::scope(|scope| {
        let containers = scope.spawn(|| containers(&pair, &ours, &over));
        heard.listen(&culprit, &ours, began + length(), |heard| !heard.incidents.is_empty());
        over.store(true, Ordering::Relaxed);
        containers.join().expect("they come and go")
    });
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("busy: {} events and {made} containers in {seconds:.0} s", heard.events);
    assert!(heard.incidents.is_empty(), "{:#}", heard.incidents[0].json);
    for load in &mut loads {
        assert!(load.is_running(), "a load ended: {}", load.stderr());
    }
    assert!(heard.events as f64 >= BUSY_PER_S * seconds, "{} events in {seconds:.0} s", heard.events);

    // The answers of the server no longer leave it.
    pair.server
        .nft("table inet test { chain output { type filter hook output priority 0; tcp sport 443 drop; }; }");
    let service = SocketAddr::new(pair.v4(2), 443);
    let blames =
        |incident: &Incident| incident.blamed() == service.to_string() && incident.within(&pair.client);
    heard.listen(&culprit, &ours, deadline(), |heard| heard.incidents.iter().any(blames));
    assert!(heard.incidents.iter().any(blames), "{:#?}", heard.incidents);
    culprit.signal(rustix::process::Signal::INT);
    heard.listen(&culprit, &ours, deadline(), |heard| heard.summary.is_some());
    let summary = heard.summary.expect("the last line");
    eprintln!("busy: {summary}");
}
