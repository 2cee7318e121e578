//! A real Prometheus scrapes a real daemon during incidents: every alert rule and every panel of the dashboards has
//! data.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    clock::steps::{ClockGuard, SECOND, perl, time_plus},
    harness::{
        Running,
        daemon::{Daemon, Faults, Setup},
        dns::{self, Answer, answer_once, ask},
        eventually,
        netns::Pair,
        port,
        sockets::{begin_connect, connect, listen, listen_on_loopback},
        time::TimeServer,
        tls::{Identity, openssl_client},
    },
    needs,
};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn program(variable: &str) -> Command {
    Command::new(std::env::var_os(variable).expect("checked before"))
}

#[test]
fn promtool_accepts_the_metrics_and_both_formats_are_served() {
    needs!(Prometheus, Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let daemon = setup.start("--metrics-by unit --probe-stats");
    let (waits, _) = faults.begin();
    let sample = |text: &str, series: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    };
    eventually("a connect that waits and an incident are counted", || {
        let text = daemon.get("/metrics").body;
        let opened = "culprit_incidents_total{kind=\"connect_stalled\",severity=\"warning\"}";
        sample(&text, opened) >= Some(1.0) && sample(&text, "culprit_connects_pending") >= Some(1.0)
    });
    drop(waits);
    eventually("its end is counted", || {
        sample(&daemon.get("/metrics").body, "culprit_connects_total{outcome=\"aborted\"}") >= Some(1.0)
    });
    let answer = daemon.get("/metrics");
    assert!(answer.kind.starts_with("text/plain; version=0.0.4"), "{answer:?}");
    let mut promtool = program("CULPRIT_PROMTOOL");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool runs");
    std::io::Write::write_all(&mut promtool.stdin.take().expect("piped"), answer.body.as_bytes())
        .expect("promtool reads");
    let judged = promtool.wait_with_output().expect("promtool ends");
    assert!(judged.status.success() && judged.stderr.is_empty() && judged.stdout.is_empty(), "{judged:?}");
    let open = daemon.get_with("/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert!(open.kind.starts_with("application/openmetrics-text") && open.body.ends_with("# EOF\n"));
    for name in
        ["culprit_bpf_program_runs_total{program=\"set_state\"}", "culprit_bpf_map_capacity{map=\"pending\"}"]
    {
        eventually(name, || sample(&daemon.get("/metrics").body, name) > Some(0.0));
    }
    // No name, address or number of a process is a label; the summary of the worst incident, one series a kind, is.
    for bad in ["pid=", "comm=", "ip=", "127.0.0.1", "netns="] {
        let mut labels = answer.body.lines().filter(|line| !line.starts_with("culprit_incidents_worst{"));
        let named = labels.find(|line| line.contains(bad));
        assert_eq!(named, None);
    }
}

/// A running Prometheus that scrapes the daemon each second.
struct Prometheus {
    _running: Running,
    address: SocketAddr,
}

impl Prometheus {
    fn start(setup: &Setup, daemon: &Daemon) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port()));
        let rules = repository().join("deploy/prometheus/culprit.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: culprit\n    static_configs:\n      - targets: [\"{}\"]\n        labels: {{node: here}}\n",
            rules.display(),
            daemon.address
        );
        let file = setup.files.join("prometheus.yml");
        std::fs::write(&file, config).expect("room");
        let mut prometheus = program("CULPRIT_PROMETHEUS");
        prometheus
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", setup.files.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"));
        let running = Running::spawn(&mut prometheus);
        let prometheus = Self { _running: running, address };
        eventually("Prometheus answers", || prometheus.get("/-/ready").is_some());
        prometheus
    }

    fn get(&self, path: &str) -> Option<Value> {
        let mut response = ureq::get(format!("http://{}{path}", self.address)).call().ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        Some(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// All rules, with the states of the alerts.
    fn rules(&self) -> Vec<Value> {
        let rules = self.get("/api/v1/rules").expect("rules");
        let groups = rules["data"]["groups"].as_array().expect("groups");
        groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten().cloned()).collect()
    }

    /// Whether an alert is pending or fires.
    fn raises(&self, alert: &str) -> bool {
        let all = self.rules();
        let rule = all.iter().find(|rule| rule["name"] == alert).unwrap_or_else(|| panic!("no {alert}"));
        rule["state"] == "pending" || rule["state"] == "firing"
    }

    /// How many series an expression gives now.
    fn series(&self, expression: &str) -> usize {
        let request = ureq::get(format!("http://{}/api/v1/query", self.address)).query("query", expression);
        let mut response = request.call().unwrap_or_else(|error| panic!("{expression}: {error}"));
        let text = response.body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        match &answer["data"]["result"] {
            Value::Array(result) => result.len(),
            other => panic!("{expression}: {other}"),
        }
    }
}

/// The expressions of all dashboards, their variables replaced, by where they stand.
fn panels() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in
        std::fs::read_dir(repository().join("deploy/grafana/dashboards")).expect("dashboards").flatten()
    {
        let text = std::fs::read_to_string(entry.path()).expect("text");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let mut left: Vec<&Value> = dashboard["panels"].as_array().expect("panels").iter().collect();
        while let Some(panel) = left.pop() {
            left.extend(panel["panels"].as_array().into_iter().flatten());
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut expression = target["expr"].as_str().unwrap_or_default().to_owned();
                for (variable, value) in [
                    ("$__rate_interval", "30s"),
                    ("$__interval", "30s"),
                    ("$__range", "1m"),
                    ("$job", "culprit"),
                    ("$node", "here"),
                    ("$instance", ".*"),
                    ("$kind", ".*"),
                    ("$role", ".*"),
                ] {
                    expression = expression.replace(variable, value);
                }
                let title = panel["title"].as_str().unwrap_or_default();
                let name =
                    format!("{} · {title} · {}", dashboard["title"].as_str().unwrap_or(""), target["refId"]);
                assert!(!expression.contains('$'), "{name}: {expression}");
                found.insert(name, expression);
            }
        }
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

#[test]
fn every_alert_rule_and_every_panel_has_data_during_incidents() {
    needs!(Prometheus, Nftables, Openssl, Perl, Pace);
    let guard = ClockGuard::lock();
    let (setup, faults) = (Setup::make(), Faults::make());
    // A machine need not have a clock of its own: offsets are there by a server's.
    let time = TimeServer::ntp(std::net::Ipv4Addr::LOCALHOST.into(), 0);
    let daemon = setup.start(&format!("--probe-stats --ntp {}", time.at()));
    let prometheus = Prometheus::start(&setup, &daemon);
    let (pair, identity) = (Pair::make(), Identity::make());
    // What works: handshakes, connects, lookups.
    let service = SocketAddr::new(pair.v4(2), port());
    let _server = identity.server(&pair.server, service, "");
    let resolver = SocketAddr::new(pair.v4(1), dns::PORT);
    // What does not: a closed port, a hello that is not read, neighbours that are not there, packets
    // dropped here, a clock that is set.
    let unread = SocketAddr::new(pair.v4(2), port());
    let _listener = listen(&pair.server, unread);
    let hello = openssl_client(&pair.client, unread, "");
    eventually("a hello waits to be read", || {
        daemon.get("/api/v1/incidents?kind=tls_handshake_stalled").body.contains("client_hello_unread")
    });
    let held: Vec<_> = (0..3).map(|_| faults.begin()).collect();
    // Growth is seen between two scrapes.
    eventually("it was scraped", || prometheus.series("culprit_clock_steps_total") > 0);
    perl(&(time_plus(1, SECOND) + "syscall(227, 0, $t)"));
    drop(hello);

    let rules = prometheus.rules();
    assert!(rules.len() >= 27, "{}", rules.len());
    let recorded = rules.iter().filter(|rule| rule["type"] == "recording");
    let recorded = recorded.map(|rule| rule["name"].as_str().expect("a name").to_owned());
    // What is to be seen, each at one time or another: rates of what happened once pass.
    let mut silent: BTreeMap<String, String> = recorded.map(|name| (name.clone(), name)).collect();
    silent.extend(panels().into_iter().map(|(name, expression)| {
        // What culprit itself suffers is nothing here, and shown as such: what it is made of is there.
        let own = ["Records lost", "Evictions", "Hooks not attached"].iter().any(|own| name.contains(own));
        let made_of = expression.split(" unless ").next().unwrap_or_default().replace(" > 0", "");
        (name, if own { made_of } else { expression })
    }));
    let mut quiet = vec![
        "CulpritConnectStalled",
        "CulpritTlsHandshakeStalled",
        "CulpritConnectFailing",
        "CulpritClockStepped",
    ];
    let mut guard = Some(guard);
    let mut absent = Vec::new();
    for turn in 0_u8..60 {
        let answer = match turn % 2 {
            0 => Answer::Address(std::net::Ipv4Addr::new(192, 0, 2, 7)),
            _ => Answer::No(simple_dns::RCODE::NameError),
        };
        let answering = answer_once(&pair.client, resolver, answer);
        pair.server.enter(move || ask(resolver, &dns::query(77, "healthy.test")).expect("it answers"));
        answering.join().expect("no panic");
        openssl_client(&pair.client, service, "-tls1_3").wait_for_line("Verify return code");
        openssl_client(&pair.client, service, "-tls1_2").wait_for_line("Verify return code");
        let (_there, at) = listen_on_loopback(&pair.client);
        connect(&pair.client, at).0.expect("it listens");
        let closed = SocketAddr::new(pair.client.loopback(), port());
        connect(&pair.client, closed).0.expect_err("nothing listens");
        absent.push(begin_connect(&pair.client, SocketAddr::new(pair.v4(77 + turn), 80)));
        std::thread::sleep(Duration::from_secs(1));
        silent.retain(|_, expression| prometheus.series(expression) == 0);
        quiet.retain(|alert| !prometheus.raises(alert));
        if !quiet.contains(&"CulpritClockStepped") {
            drop(guard.take());
        }
        if silent.is_empty() && quiet.is_empty() {
            break;
        }
    }
    let unhealthy: Vec<_> = prometheus.rules().into_iter().filter(|rule| rule["health"] != "ok").collect();
    assert!(unhealthy.is_empty(), "{unhealthy:#?}");
    assert!(
        silent.is_empty() && quiet.is_empty(),
        "no data: {silent:#?}, no alert: {quiet:?}\n{}",
        daemon.get("/metrics").body
    );
    drop(held);
}
