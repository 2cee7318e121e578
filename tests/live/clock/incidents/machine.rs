//! Tests that need a machine of their own: a clock that jumps by months, a machine that is paused for a day, what is
//! signed and dated meanwhile. The outages of the README, for real.

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::{
    clock::steps::{SECOND, perl, timex},
    harness::{
        Culprit, Incident, Netns, Running, Scratch,
        keep::Keeper,
        port,
        process::run,
        require::chronyd,
        time::TimeServer,
        tls::{Identity, openssl_client_for},
    },
    needs,
};

/// As hypervisors do; see `cargo xtask vm`.
fn pause(seconds: u32) {
    let pause = std::env::var_os("CULPRIT_VM_PAUSE").expect("xtask's machines have it");
    run(Command::new(pause).arg(seconds.to_string()));
}

/// Sets the clock, as a person does by hand.
#[track_caller]
fn date(to: &str) {
    run(Command::new("date").args(["-u", "-s", to]));
}

/// The hardware clock says what the wall clock does.
#[track_caller]
fn hardware_clock_follows() {
    run(Command::new("/run/vm/busybox").args(["hwclock", "-w", "-u"]));
}

fn kind<'a>(kind: &'a str, state: &'a str) -> impl Fn(&Incident) -> bool + 'a {
    move |emitted| emitted.text("/kind") == kind && emitted.text("/state") == state
}

/// Process ids of those still exposed.
fn exposed(emitted: &Incident) -> Vec<u64> {
    let listed = emitted.json["details"]["exposed"].as_array().into_iter().flatten();
    listed.filter_map(|one| one["process"]["pid"].as_u64()).collect()
}

#[test]
fn a_clock_months_ahead_names_who_set_it_and_the_processes_still_exposed() {
    needs!(OwnMachine, Openssl);
    date("2028-08-10 03:58:00");
    hardware_clock_follows();
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let _server = identity.server(&netns, service, "");
    let mut keeper = Keeper::new("clock_stepped/months_ahead_and_set_right");
    keeper.keep_clock("-e tls");
    let culprit = Culprit::trace("--mode anomalies");
    let client = |name: &str| -> Running {
        let client = openssl_client_for(&netns, service, name, "-tls1_2");
        client.wait_for_line("Verify return code");
        client
    };
    // A server has one session at a time: this one is over before the next.
    drop(client("early.test"));
    let (right, at) = (jiff::Timestamp::now(), std::time::Instant::now());

    date("2028-12-14 00:00:00");
    let opened = culprit.wait_for_incident("the first jump", kind("clock_stepped", "open"));
    assert_eq!((opened.blame(), opened.text("/severity")), (("clock", "certain"), "critical"));
    let summary = opened.text("/summary");
    assert!(summary.starts_with("The wall clock was set forward 125 days 20 h by date["), "{summary}");
    assert!(summary.contains("from 2028-08-10 03:58:"), "{summary}");
    // A hardware clock alone settles nothing, and what it says is said.
    assert_eq!(opened.text("/details/verdict"), "unknown", "{:#}", opened.json);
    let why = opened.json["why"].to_string();
    assert!(why.contains("The hardware clock rtc0 stands by the time before the step"), "{why}");
    // One that looks at the certificate finds that it has expired, and says so.
    let trusted = identity.cert();
    let verify = format!("-tls1_2 -verify_return_error -CAfile {}", trusted.display());
    let refusing = openssl_client_for(&netns, service, "api.test", &verify);
    refusing.wait_for_line("certificate has expired");
    drop(refusing);
    let mut worker = client("sts.test");

    date("2028-10-12 00:00:00");
    culprit.wait_for_incident("the second jump", |emitted| emitted.number("/count") == 2);

    date(&format!("@{}", right.as_second() + at.elapsed().as_secs().cast_signed()));
    let named = culprit
        .wait_for_incident("who is still exposed", |emitted| exposed(emitted).contains(&worker.pid().into()));
    let summary = named.text("/summary");
    assert!(summary.starts_with("The wall clock is back where it was; it was wrong for "), "{summary}");
    assert!(summary.contains("in 3 steps: forward 125 days 20 h by date["), "{summary}");
    assert!(summary.contains("may hold credentials dated December 2028"), "{summary}");
    assert_eq!((named.id(), named.text("/details/verdict")), (opened.id(), "reverted"));
    let listed = named.json["details"]["exposed"].as_array().expect("a list");
    let one = listed.iter().find(|one| one["process"]["pid"] == worker.pid()).expect("just found");
    assert_eq!(one["sessions"][0]["sni"], "sts.test", "{one:#}");
    assert_eq!(one["sessions"][0]["peer"]["port"], service.port(), "{one:#}");
    assert!(
        one["sessions"][0]["at"].as_str().is_some_and(|at| at.starts_with("2028-12-14T00:00:")),
        "{one:#}"
    );
    assert_eq!(
        named.json["details"]["alerts"],
        serde_json::json!({ "certificate_expired": 1 }),
        "{:#}",
        named.json
    );
    assert!(
        named.json["why"].to_string().contains("1 TLS handshake was refused meanwhile"),
        "{:#}",
        named.json
    );
    assert!(named.text("/remedies/0").contains(&worker.pid().to_string()), "{:#}", named.json);

    // It goes, and with the last of them the incident.
    worker.signal(rustix::process::Signal::TERM);
    worker.wait();
    drop(worker);
    let resolved = culprit.wait_for_incident("its end", kind("clock_stepped", "resolved"));
    assert_eq!((resolved.id(), exposed(&resolved).len()), (opened.id(), 0));
    std::thread::sleep(Duration::from_secs(1));
    keeper.end();
    assert_eq!(culprit.incidents(Incident::opens).len(), 1, "{:#?}", culprit.incidents(Incident::opens));
}

#[test]
fn a_clock_behind_by_a_pause_of_a_day_is_skewed_until_it_is_set() {
    needs!(OwnMachine);
    hardware_clock_follows();
    let mut keeper = Keeper::new("clock_skewed/paused_for_a_day");
    keeper.keep_clock("");
    let culprit = Culprit::trace("");
    // The hardware clock is read at once, and emits nothing while it agrees.
    std::thread::sleep(Duration::from_secs(3));
    pause(86_400);
    let opened = culprit.wait_for_incident("a day missed", kind("clock_skewed", "open"));
    assert_eq!((opened.blame(), opened.text("/severity")), (("clock", "likely"), "critical"));
    let summary = opened.text("/summary");
    assert!(summary.starts_with("The wall clock is 1 day behind by the hardware clock rtc0"), "{summary}");
    assert!(summary.contains("this machine stood still for 1 day"), "{summary}");
    let why = opened.json["why"].to_string();
    assert!(why.contains("SigV4") && why.contains("issued less than 1 day ago are not valid yet"), "{why}");
    assert!(why.contains("has no part in it: clocks are compared in UTC"), "{why}");
    let missed = opened.number("/details/paused_ms");
    assert!(missed.abs_diff(86_400_000) < 30_000, "{missed}");

    // It is set right: that is reported as such, and resolves the incident.
    let now = jiff::Timestamp::now().as_second() + 86_400;
    date(&format!("@{now}"));
    let resolved = culprit.wait_for_incident("its end", kind("clock_skewed", "resolved"));
    assert_eq!(resolved.id(), opened.id());
    assert!(resolved.text("/summary").contains("it was set forward 1 day"), "{:#}", resolved.json);
    let step = culprit.wait_for_incident("the step", kind("clock_stepped", "resolved"));
    assert_eq!((step.text("/severity"), step.text("/details/verdict")), ("info", "confirmed"));
    keeper.catches_up();
    keeper.end();
    assert_eq!(culprit.incidents(Incident::opens).len(), 2, "{:#?}", culprit.incidents(Incident::opens));
}

/// A time daemon that follows a server on this machine, so far ahead of this machine's clock, nanoseconds.
#[track_caller]
fn chronyd_follows(netns: &Netns, ahead_ns: i64, scratch: &Scratch) -> (TimeServer, Running) {
    let server = TimeServer::ntp_inside(netns, SocketAddr::new(netns.loopback(), port()), ahead_ns);
    let (conf, dir) = (scratch.join("chrony.conf"), scratch.path().display());
    let text = format!(
        "server {} port {} iburst minpoll 3 maxpoll 3\nmakestep 1 -1\nrtcsync\ndriftfile {dir}/drift\n\
         pidfile {dir}/pid\ncmdport 0\nbindcmdaddress /\nport 0\nuser root\n",
        server.at().ip(),
        server.at().port()
    );
    std::fs::write(&conf, text).expect("our own directory");
    let mut chronyd = Command::new(chronyd());
    chronyd.args(["-d", "-f"]).arg(conf);
    (server, netns.spawn(chronyd))
}

/// The incident of the step that chronyd makes, as it opens; and all of its updates, once the hardware clock has been
/// written.
#[track_caller]
fn step_over_the_hardware_clock(case: &'static str, ahead_s: i64) -> (Incident, Vec<Incident>) {
    hardware_clock_follows();
    let (netns, scratch, mut keeper) = (Netns::make(), Scratch::make(), Keeper::new(case));
    keeper.keep_clock("");
    let culprit = Culprit::trace("");
    // The hardware clock has been read by then.
    std::thread::sleep(Duration::from_secs(3));
    let (_server, _chronyd) = chronyd_follows(&netns, ahead_s * SECOND, &scratch);
    let opened = culprit.wait_for_incident("the step", kind("clock_stepped", "open"));
    // What an administrator or the kernel does then, and it is read again.
    std::thread::sleep(Duration::from_secs(4));
    hardware_clock_follows();
    culprit.wait_for_incident("that the hardware clock was written", |emitted| {
        emitted.json["why"].to_string().contains("until it was written from the wall clock")
    });
    keeper.catches_up();
    keeper.end();
    assert_eq!(opened.json["process"]["comm"], "chronyd", "{opened:#?}");
    (opened, culprit.incidents(|_| true))
}

#[test]
fn a_hardware_clock_written_after_a_step_of_twelve_years_does_not_confirm_it() {
    needs!(OwnMachine, Chrony);
    let right = jiff::Timestamp::now().as_second();
    let case = "clock_stepped/chronyd_follows_wrong_servers";
    let (_, all) = step_over_the_hardware_clock(case, -12 * 365 * 86_400);
    date(&format!("@{right}"));
    for emitted in &all {
        assert_eq!(emitted.text("/kind"), "clock_stepped", "{all:#?}");
        assert_eq!(
            (emitted.text("/severity"), emitted.text("/details/verdict")),
            ("critical", "wrong"),
            "{emitted:#?}"
        );
        assert!(emitted.text("/summary").contains("By the build date of this kernel, "), "{emitted:#?}");
        assert!(!emitted.text("/summary").contains("is right now"), "{emitted:#?}");
        let remedies = emitted.json["remedies"].to_string();
        assert!(remedies.contains("chronyc sources -v") && !remedies.contains("makestep"), "{remedies}");
    }
    assert!(all.iter().all(|emitted| emitted.text("/state") != "resolved"), "{all:#?}");
}

#[test]
fn a_clock_corrected_by_chronyd_over_a_hardware_clock_a_day_behind_is_not_reported_as_wrong() {
    needs!(OwnMachine, Chrony);
    let (opened, all) = step_over_the_hardware_clock("clock_stepped/chronyd_corrects_hardware_clock", 86_400);
    assert_eq!((opened.text("/severity"), opened.text("/details/verdict")), ("warning", "unknown"));
    let why = opened.json["why"].to_string();
    assert!(why.contains("That settles nothing: a hardware clock may have been wrong for long"), "{why}");
    let last = all.last().expect("emitted");
    assert!(last.json["why"].to_string().contains("until it was written from the wall clock"), "{all:#?}");
    for emitted in &all {
        assert_eq!(emitted.text("/kind"), "clock_stepped", "{all:#?}");
        assert!(
            emitted.text("/severity") != "critical" && emitted.text("/details/verdict") != "wrong",
            "{emitted:#?}"
        );
    }
}

#[test]
fn a_leap_second_is_reported_with_the_process_that_armed_it_and_a_false_one_as_false() {
    needs!(OwnMachine, Perl);
    for (case, day, severity) in [
        ("clock_stepped/leap_second", "2028-12-31", "info"),
        ("clock_stepped/false_leap_second", "2028-08-31", "warning"),
    ] {
        date(&format!("{day} 23:59:40"));
        hardware_clock_follows();
        let mut keeper = Keeper::new(case);
        keeper.keep_clock("--mode anomalies");
        let culprit = Culprit::trace("--mode anomalies");
        date(&format!("{day} 23:59:50"));
        culprit.wait_for_incident("the hand's step", kind("clock_stepped", "open"));
        // ADJ_STATUS: STA_PLL and STA_INS.
        let armed = timex(0x10, 0, 0) + "substr($x, 40, 4) = pack('l', 0x11); ";
        let pid = perl(&(armed.clone() + "$0 = 'ntpd'; syscall(159, $x) >= 0 or die $!"));
        let emitted = culprit.wait_for_incident("the leap second", |emitted| {
            emitted.json["details"]["steps"][0]["how"] == "leap_second"
        });
        let disarm = armed.replace("0x11", "0x01");
        perl(&(disarm + "syscall(159, $x) >= 0 or die $!"));
        keeper.catches_up();
        keeper.end();
        let summary = emitted.text("/summary");
        let expected = format!(
            "The kernel inserted a leap second at the end of {day} (UTC): it took the wall clock back by 1 s, as a leap second is; ntpd[{pid}] had armed it."
        );
        assert!(summary.starts_with(&expected), "{summary}");
        assert_eq!(
            (emitted.text("/severity"), summary.contains("There is none on that day")),
            (severity, severity == "warning")
        );
        assert_eq!((&emitted.json["process"]["pid"], emitted.blame()), (&pid.into(), ("clock", "certain")));
        assert!(emitted.json["why"].to_string().contains("TAI offset went from "), "{emitted:#?}");
        let jumped = culprit.incidents(|emitted| emitted.text("/summary").contains("jumped"));
        assert!(jumped.is_empty(), "{jumped:#?}");
    }
}
