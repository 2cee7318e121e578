//! A real time daemon sets the clock.

use std::{fs, net::SocketAddr, process::Command};

use crate::{
    clock::{RightAgain, SECOND},
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
    let right_again = RightAgain::afterwards();
    let (netns, scratch, mut keeper) = (Netns::make(), Scratch::make(), Keeper::new("chronyd_step"));
    let server = TimeServer::ntp_inside(&netns, SocketAddr::new(netns.loopback(), port()), SECOND * 3 / 2);
    let nobody_else_says = own_weight() == 0;
    keeper.keep_clock("");
    let culprit = Culprit::trace("");
    let mut chronyd = sets_the_clock(&netns, server.at(), &scratch);
    let author = format!("chronyd[{}]", chronyd.pid());
    let is_its = |told: &Incident| {
        told.text("/kind") == "clock_stepped" && told.text("/details/steps/0/process/comm") == "chronyd"
    };
    let told = culprit.wait_for_incident("the step", |told| is_its(told) && told.opens());
    let status = chronyd.wait();
    // Vouched for, it is over in two seconds; nobody knows otherwise.
    let resolved = nobody_else_says.then(|| {
        culprit.wait_for_incident("its end", |told| is_its(told) && told.text("/state") == "resolved")
    });
    let all = culprit.incidents(is_its);
    keeper.catches_up();
    keeper.end();
    drop(right_again);
    assert!(status.success(), "{status}: {}", chronyd.stderr());

    let step = |field: &str| told.text(&format!("/details/steps/0/{field}")).to_owned();
    assert_eq!((step("call").as_str(), step("how").as_str()), ("clock_adjtime", "call"), "{told:#?}");
    assert!(step("process/exe").ends_with("/chronyd"), "{told:#?}");
    assert_eq!(told.number("/details/steps/0/process/pid"), u64::from(chronyd.pid()), "{told:#?}");
    assert_eq!(told.number("/details/steps/0/parent/pid"), u64::from(std::process::id()), "{told:#?}");
    let delta_ns = told.number("/details/delta_ns");
    assert!(delta_ns.abs_diff(1_500_000_000) < 100_000_000, "{told:#?}");
    let why = told.text("/why/0");
    assert!(why.starts_with(&author) && why.contains(" called clock_adjtime, started by "), "{told:#?}");
    assert_eq!(told.blame(), ("clock", "certain"), "{told:#?}");
    assert!(all.iter().all(|other| other.id() == told.id()), "{all:#?}");
    if let Some(resolved) = resolved {
        let summary =
            format!("The wall clock was set forward 1.5 s by {author}, a time daemon's correction.");
        for told in [&told, &resolved] {
            assert_eq!(told.text("/summary"), summary);
            let rated = (told.text("/severity"), told.text("/details/verdict"));
            assert_eq!(rated, ("info", "set_by_time_daemon"), "{told:#?}");
        }
        assert_eq!(resolved.number("/count"), 1, "{resolved:#?}");
    }
}
