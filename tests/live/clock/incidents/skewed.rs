//! The wall clock differs from reference clocks. No test sets it here: the references are wrong.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    clock::steps::{ClockGuard, SECOND},
    harness::{
        Culprit, Fact, Incident, Netns, Running,
        culprit::{Ended, binary},
        keep::Keeper,
        port,
        process::{run, words},
        slow,
        time::{Dates, TimeServer, own_weight},
    },
    needs,
};

const KIND: &str = "clock_skewed";
const DAY: i64 = 86_400;
/// What an NTP server weighs, an HTTP server, and three of these.
const NTP: u64 = 8;
const WEB: u64 = 2;
const WEBS: u64 = 6;

/// `culprit` as `trace`, as `trace` with anomalies only, or as `run`.
#[track_caller]
fn watch(way: &str, more: &str) -> Culprit {
    match way {
        "run" => {
            let mut run = binary();
            run.args(["run", "--format", "json"]).args(more.split_whitespace());
            Culprit::spawn(run)
        }
        way => Culprit::trace(&format!("--mode {} {more}", way.trim_start_matches("trace at "))),
    }
}

const TRACE: &str = "trace at full";
const WAYS: [&str; 3] = [TRACE, "trace at anomalies", "run"];

/// Ends it once what was heard has been emitted: its incidents of this kind, and all else.
#[track_caller]
fn ended(culprit: Culprit) -> (Vec<Incident>, Ended) {
    std::thread::sleep(Duration::from_millis(2500).mul_f64(slow()));
    let mut ended = culprit.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    let emitted = ended.incidents.extract_if(.., |emitted| emitted.text("/kind") == KIND).collect();
    (emitted, ended)
}

/// The only incident, as it was emitted last.
#[track_caller]
fn only(mut emitted: Vec<Incident>) -> Incident {
    assert_eq!(emitted.iter().filter(|emitted| emitted.opens()).count(), 1, "{emitted:#?}");
    let last = emitted.pop().expect("counted");
    assert!(emitted.iter().all(|other| other.id() == last.id()), "{emitted:#?}");
    last
}

/// What it is about, whom it blames and how sure it is.
#[track_caller]
fn assert_is(emitted: &Incident, severity: &str, confidence: &str, reference: (&str, &str)) {
    assert_eq!((emitted.text("/kind"), emitted.text("/severity")), (KIND, severity), "{emitted:#?}");
    assert_eq!(emitted.blame(), ("clock", confidence), "{emitted:#?}");
    let of = (emitted.text("/details/reference/kind"), emitted.text("/details/reference/name"));
    assert_eq!(of, reference, "{emitted:#?}");
    assert!(emitted.json["process"].is_null() && emitted.json["resolved_at"].is_null(), "{emitted:#?}");
    let remedies = emitted.json["remedies"].to_string();
    assert!(remedies.contains("chronyc makestep"), "{emitted:#?}");
}

#[track_caller]
fn assert_ahead(emitted: &Incident, ahead_s: i64, tolerance_ns: u64) {
    let found = emitted.json["details"]["reference"]["ahead_ns"].as_i64().expect("a number");
    assert!(found.abs_diff(ahead_s * SECOND) < tolerance_ns, "{found}: {emitted:#?}");
}

fn why(emitted: &Incident, text: &str) -> bool {
    emitted.json["why"].as_array().is_some_and(|why| why.iter().any(|why| why.to_string().contains(text)))
}

/// An NTP server on this host that finds the clock ahead by this much; culprit that asks it.
#[track_caller]
fn asks(loopback: impl Into<IpAddr>, ahead_ms: i64, way: &str) -> (TimeServer, Culprit) {
    let server = TimeServer::ntp(loopback.into(), -ahead_ms * SECOND / 1000);
    let culprit = watch(way, &format!("--ntp {}", server.at()));
    (server, culprit)
}

#[track_caller]
fn a_quarter_of_an_hour_ahead(loopback: impl Into<IpAddr>, way: &str, mut keeper: Keeper) {
    let (server, culprit) = asks(loopback, 935_400, way);
    let began = Instant::now();
    let emitted = culprit.wait_for_incident("what the server says", |emitted| emitted.text("/kind") == KIND);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5).mul_f64(slow()), "{took:?}");
    assert!(emitted.opens(), "{emitted:#?}");
    let name = server.at().to_string();
    assert_is(&emitted, "critical", "certain", ("ntp", &name));
    assert_ahead(&emitted, 935, 500_000_000);
    let summary = format!("The wall clock is 15 min 35 s ahead by NTP server {name} (± ");
    assert!(emitted.text("/summary").starts_with(&summary), "{emitted:#?}");
    assert!(why(&emitted, "AWS refuses requests (SigV4: RequestTimeTooSkewed"), "{emitted:#?}");
    assert!(
        why(&emitted, "It was so when culprit first looked, and no call has set it since."),
        "{emitted:#?}"
    );
    assert!(why(&emitted, "has no part in it: clocks are compared in UTC."), "{emitted:#?}");
    keeper.keep_clock(&format!("--ntp {name}"));
    keeper.catches_up();
    only(ended(culprit).0);
    keeper.end();
}

#[test]
fn a_quarter_of_an_hour_ahead_by_ntp_is_critical_within_seconds_in_each_mode() {
    needs!(Pace);
    let _alone = ClockGuard::lock();
    for way in WAYS {
        if own_weight() < NTP {
            let keeper = if way == TRACE { Keeper::new("clock_skewed/ahead_by_ntp") } else { Keeper::idle() };
            a_quarter_of_an_hour_ahead(Ipv4Addr::LOCALHOST, way, keeper);
        }
    }
}

#[test]
fn a_server_is_asked_over_ipv6_as_well() {
    needs!(Pace);
    let _alone = ClockGuard::lock();
    if own_weight() < NTP {
        a_quarter_of_an_hour_ahead(Ipv6Addr::LOCALHOST, TRACE, Keeper::idle());
    }
}

#[test]
fn a_skew_below_a_minute_is_a_warning_and_no_skew_is_no_incident() {
    needs!(Pace);
    let _alone = ClockGuard::lock();
    let asked = [40, -40, 0].map(|ahead_s| (ahead_s, asks(Ipv4Addr::LOCALHOST, ahead_s * 1000, TRACE)));
    for (ahead_s, (server, culprit)) in asked {
        let name = server.at().to_string();
        if ahead_s != 0 {
            let fact = culprit.wait_for("what the server says", |fact| fact.text("name") == name);
            assert_eq!(fact.kind(), "clock_compared");
            assert!((fact.number("ahead_ns") - (ahead_s * SECOND) as f64).abs() < 1e8, "{fact:?}");
        }
        let (emitted, ended) = ended(culprit);
        // A clock that agrees emits nothing.
        assert!(ahead_s != 0 || !ended.facts.iter().any(|fact| fact.text("name") == name), "{ended:#?}");
        if ahead_s == 0 || own_weight() >= NTP {
            assert!(emitted.is_empty(), "{emitted:#?}");
            continue;
        }
        let emitted = only(emitted);
        assert_is(&emitted, "warning", "certain", ("ntp", &name));
        assert_ahead(&emitted, ahead_s, 100_000_000);
        let side = if ahead_s > 0 { "ahead" } else { "behind" };
        assert!(emitted.text("/summary").contains(&format!("s {side} by NTP server ")), "{emitted:#?}");
        assert!(why(&emitted, "Beyond 30 s one-time passwords (TOTP) fail"), "{emitted:#?}");
    }
}

/// HTTP servers in a namespace, each at an address of its own, which a real client in another one asks.
struct Web {
    /// Where the client is.
    netns: Netns,
    servers: Vec<TimeServer>,
    _there: Netns,
}

impl Web {
    #[track_caller]
    fn set(says: &[Dates], v6: bool) -> Self {
        let web = Self::without_a_way_out(says, v6);
        let (gateway, family) = (web.servers[0].at().ip(), if v6 { "-6 " } else { "" });
        web.netns.ip(&format!("{family}route add default via {gateway} dev eth0"));
        web
    }

    /// The same, but that the client's namespace leads to the servers alone.
    #[track_caller]
    fn without_a_way_out(says: &[Dates], v6: bool) -> Self {
        let (there, netns) = (Netns::make(), Netns::make());
        netns.ip(&format!("link add eth0 type veth peer name eth0 netns {}", there.name()));
        let address = |host: u8| -> IpAddr { if v6 { there.v6(host.into()) } else { there.v4(host) } };
        let length = if v6 { "/64 nodad" } else { "/24" };
        let give = |netns: &Netns, host| netns.ip(&format!("addr add {}{length} dev eth0", address(host)));
        give(&netns, 200);
        (1..=says.len()).for_each(|host| give(&there, host as u8));
        netns.ip("link set eth0 up");
        there.ip("link set eth0 up");
        let serve = |(host, says): (u8, &Dates)| {
            TimeServer::http(&there, SocketAddr::new(address(host), port()), *says)
        };
        let servers = (1..).zip(says).map(serve).collect();
        Self { netns, servers, _there: there }
    }

    /// One server that is asked at three ports.
    #[track_caller]
    fn at_three_ports(says: Dates) -> Self {
        let mut web = Self::set(&[says], false);
        let address = web.servers[0].at().ip();
        let more = [(); 2].map(|()| TimeServer::http(&web._there, SocketAddr::new(address, port()), says));
        web.servers.extend(more);
        web
    }

    /// Every server is asked twice, the second time so much later that their clocks must have gone on.
    #[track_caller]
    fn is_asked(&self) {
        for pause in [Duration::from_secs(3), Duration::ZERO] {
            for server in &self.servers {
                let mut curl = words(&format!("curl -sSg -o /dev/null http://{}/", server.at()));
                self.netns.enter(move || run(&mut curl));
            }
            std::thread::sleep(pause);
        }
    }

    fn name(&self) -> String {
        self.servers[0].at().to_string()
    }
}

/// Half a second is what the seconds of a date leave open; seven seconds keep it a day all the same.
const A_DAY_AHEAD: Dates = Dates { ahead_s: DAY + 7, stands: false, age_s: None };

#[track_caller]
fn is_a_day_behind(emitted: Vec<Incident>, web: &Web) {
    if own_weight() >= WEB {
        assert!(emitted.is_empty(), "{emitted:#?}");
        return;
    }
    let emitted = only(emitted);
    assert_is(&emitted, "warning", "possible", ("http", &web.name()));
    assert_ahead(&emitted, -DAY - 7, 2_500_000_000);
    let summary = format!("The wall clock is 1 day behind by HTTP server {} (± 2.5 s).", web.name());
    assert_eq!(emitted.text("/summary"), summary);
    assert!(
        why(
            &emitted,
            "Nothing else says so: the server may be the one that is wrong. Name an NTP server with"
        ),
        "{emitted:#?}"
    );
    assert!(why(&emitted, "issued less than 1 day ago are not valid yet here."), "{emitted:#?}");
}

#[test]
fn a_single_web_server_a_day_ahead_is_a_warning_and_the_only_output_of_run() {
    needs!(Curl, Pace);
    let _alone = ClockGuard::lock();
    let (web, watching) = (Web::set(&[A_DAY_AHEAD], false), WAYS.map(|way| (way, watch(way, ""))));
    web.is_asked();
    let at = web.servers[0].at();
    for (way, culprit) in watching {
        let (emitted, ended) = ended(culprit);
        is_a_day_behind(emitted, &web);
        let about = |fact: &&Fact| fact.text("name") == web.name() || fact.at("destination") == Some(at);
        let kinds: Vec<&str> = ended.facts.iter().filter(about).map(Fact::kind).collect();
        match way {
            "run" => assert!(ended.facts.is_empty(), "{ended:#?}"),
            "trace at anomalies" => assert_eq!(kinds, ["clock_compared"], "{ended:#?}"),
            _ => assert!(kinds.contains(&"connect_ended"), "{ended:#?}"),
        }
    }
}

#[test]
fn a_single_web_server_a_day_ahead_is_a_warning_over_ipv6() {
    needs!(Curl, Pace);
    let _alone = ClockGuard::lock();
    let (web, culprit) = (Web::set(&[A_DAY_AHEAD], true), watch(TRACE, ""));
    web.is_asked();
    is_a_day_behind(ended(culprit).0, &web);
}

#[test]
fn three_web_servers_that_agree_are_believed_and_only_a_warning() {
    needs!(Curl);
    let _alone = ClockGuard::lock();
    let web = Web::set(&[A_DAY_AHEAD; 3], false);
    let mut keeper = Keeper::new("clock_skewed/a_day_behind_by_http");
    keeper.keep_clock("");
    let culprit = watch(TRACE, "");
    web.is_asked();
    let (emitted, _) = ended(culprit);
    keeper.end();
    if own_weight() >= WEBS {
        assert!(emitted.is_empty(), "{emitted:#?}");
        return;
    }
    let emitted = only(emitted);
    let name = emitted.text("/details/reference/name").to_owned();
    assert_is(&emitted, "warning", "likely", ("http", &name));
    assert!(web.servers.iter().any(|server| server.at().to_string() == name), "{emitted:#?}");
    let summary =
        format!("The wall clock is 1 day behind by HTTP server {name} (± 2.5 s, and 2 other clocks agree).");
    assert_eq!(emitted.text("/summary"), summary);
    assert_eq!(emitted.json["details"]["agreeing"].as_array().map(Vec::len), Some(2), "{emitted:#?}");
    assert!(why(&emitted, "AWS refuses requests"), "{emitted:#?}");
    assert!(!why(&emitted, "may be the one that is wrong"), "{emitted:#?}");
    assert!(why(&emitted, "Only HTTP servers say so"), "{emitted:#?}");
}

#[test]
fn three_ports_of_one_machine_are_one_web_server() {
    needs!(Curl, Pace);
    let _alone = ClockGuard::lock();
    let (web, culprit) = (Web::at_three_ports(A_DAY_AHEAD), watch(TRACE, ""));
    web.is_asked();
    let (emitted, _) = ended(culprit);
    if own_weight() >= WEB {
        assert!(emitted.is_empty(), "{emitted:#?}");
        return;
    }
    let emitted = only(emitted);
    assert_eq!(
        (emitted.blame(), emitted.text("/severity")),
        (("clock", "possible"), "warning"),
        "{emitted:#?}"
    );
}

#[test]
fn web_servers_of_a_namespace_without_a_default_route_are_ignored() {
    needs!(Curl, Pace);
    let _alone = ClockGuard::lock();
    let (web, culprit) = (Web::without_a_way_out(&[A_DAY_AHEAD; 3], false), watch(TRACE, ""));
    web.is_asked();
    let (emitted, ended) = ended(culprit);
    assert!(emitted.is_empty(), "{emitted:#?}");
    assert!(!ended.facts.iter().any(|fact| fact.text("name") == web.name()), "{ended:#?}");
}

#[test]
fn a_namespace_of_an_unprivileged_user_is_not_the_hosts() {
    needs!(Pace);
    let mut his = words("setpriv --reuid 65534 --regid 65534 --clear-groups unshare -Urn sh -c");
    his.arg("echo made; exec sleep 60");
    let his = Running::spawn(&mut his);
    his.wait_for_line("made");
    let of = |pid: u32| {
        let path = format!("/proc/{pid}/ns/net");
        culprit::kernel::namespaces::is_the_hosts(path.as_ref()).expect("root may ask")
    };
    assert!(!of(his.pid()) && of(std::process::id()));
}

#[test]
fn dates_that_prove_nothing_about_the_clock_open_nothing() {
    needs!(Curl, Pace);
    let _alone = ClockGuard::lock();
    let cached = Dates { age_s: Some(7), ..A_DAY_AHEAD };
    let stands = Dates { stands: true, ..A_DAY_AHEAD };
    let local_time = Dates { ahead_s: 3600, ..Dates::default() };
    for says in [&[Dates::default()][..], &[cached, stands, stands, stands], &[local_time]] {
        let (web, culprit) = (Web::set(says, false), watch(TRACE, ""));
        web.is_asked();
        let (emitted, ended) = ended(culprit);
        assert!(emitted.is_empty(), "{says:?}: {emitted:#?}");
        // They were heard all the same, but for what a cache says; and what agrees emits nothing.
        for (server, says) in web.servers.iter().zip(says) {
            let name = server.at().to_string();
            let is_heard = ended.facts.iter().any(|fact| fact.text("name") == name);
            let differs = says.age_s.is_none() && says.ahead_s != 0;
            assert_eq!(is_heard, differs, "{says:?}: {ended:#?}");
        }
    }
}
