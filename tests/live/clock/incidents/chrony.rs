//! A real time daemon sets the clock.

use std::{fs, net::SocketAddr, process::Command};

use crate::{
    clock::steps::{ClockGuard, SECOND},
    harness::{
        Culprit, Incident, Netns, Running, Scratch,
        keep::Keeper,
        port,
        require::chronyd,
        time::{TimeServer, own_weight},
    },
    needs,
};

/// Asks `server` once, sets the clock, and ends.
fn sets_the_clock(netns: &Netns, server: SocketAddr, scratch: &Scratch) -> Running {
    let conf = scratch.join("chrony.conf");
    let dir = scratch.path().display();
    let text = format!(
        "server {} port {} iburst maxsamples 1\nmakestep 0.1 1\ndriftfile {dir}/drift\npidfile {dir}/pid\n\
         cmdport 0\nbindcmdaddress /\nuser root\n",
        server.ip(),
        server.port()
    );
    fs::write(&conf, text).expect("our own directory");
    let mut chronyd = Command::new(chronyd());
    chronyd.args(["-q", "-f"]).arg(conf);
    netns.spawn(chronyd)
}

#[test]
fn a_step_by_chronyd_is_a_time_daemons_correction() {
    needs!(Chrony, Pace);
    let guard = ClockGuard::lock();
    let mut keeper = Keeper::new("clock_stepped/set_by_chronyd");
    let (netns, scratch) = (Netns::make(), Scratch::make());
    let server = TimeServer::ntp_inside(&netns, SocketAddr::new(netns.loopback(), port()), SECOND * 3 / 2);
    let no_other_says = own_weight() == 0;
    keeper.keep_clock("");
    let culprit = Culprit::trace("");
    let mut chronyd = sets_the_clock(&netns, server.at(), &scratch);
    let author = format!("chronyd[{}]", chronyd.pid());
    let is_its = |emitted: &Incident| {
        emitted.text("/kind") == "clock_stepped" && emitted.text("/details/steps/0/process/comm") == "chronyd"
    };
    let emitted = culprit.wait_for_incident("the step", |emitted| is_its(emitted) && emitted.opens());
    let status = chronyd.wait();
    // As a time daemon's correction it is over in two seconds; no other clock contradicts it.
    let resolved = no_other_says.then(|| {
        culprit
            .wait_for_incident("its end", |emitted| is_its(emitted) && emitted.text("/state") == "resolved")
    });
    let all = culprit.incidents(is_its);
    keeper.catches_up();
    keeper.end();
    drop(guard);
    assert!(status.success(), "{status}: {}", chronyd.stderr());

    let step = |field: &str| emitted.text(&format!("/details/steps/0/{field}")).to_owned();
    assert_eq!((step("call").as_str(), step("how").as_str()), ("clock_adjtime", "call"), "{emitted:#?}");
    assert!(step("process/exe").ends_with("/chronyd"), "{emitted:#?}");
    assert_eq!(emitted.number("/details/steps/0/process/pid"), u64::from(chronyd.pid()), "{emitted:#?}");
    assert_eq!(emitted.number("/details/steps/0/parent/pid"), u64::from(std::process::id()), "{emitted:#?}");
    let delta_ns = emitted.number("/details/delta_ns");
    assert!(delta_ns.abs_diff(1_500_000_000) < 100_000_000, "{emitted:#?}");
    let why = emitted.text("/why/0");
    assert!(why.starts_with(&author) && why.contains(" called clock_adjtime, started by "), "{emitted:#?}");
    assert_eq!(emitted.blame(), ("clock", "certain"), "{emitted:#?}");
    assert!(all.iter().all(|other| other.id() == emitted.id()), "{all:#?}");
    if let Some(resolved) = resolved {
        let summary =
            format!("The wall clock was set forward 1.5 s by {author}, a time daemon's correction.");
        for emitted in [&emitted, &resolved] {
            assert_eq!(emitted.text("/summary"), summary);
            let rated = (emitted.text("/severity"), emitted.text("/details/verdict"));
            assert_eq!(rated, ("info", "set_by_time_daemon"), "{emitted:#?}");
        }
        assert_eq!(resolved.number("/count"), 1, "{resolved:#?}");
    }
}
