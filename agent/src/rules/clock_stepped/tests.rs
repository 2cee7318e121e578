use ebpf_probes::{
    abi::{ProbeId, Stat},
    probes::tls::stage,
};
use proptest::prelude::*;

use super::*;
use crate::{
    fact::{
        LeapKind,
        ReferenceKind::{Kernel, Ntp, Rtc},
    },
    pipeline::incident::{ClockSteppedDetails, Confidence, Details, Incident, Severity, State, StepCause},
    rules::scene::{Scene, flight},
};

const DAY: i64 = 86_400_000;

fn details(incident: &Incident) -> &ClockSteppedDetails {
    match &incident.details {
        Details::ClockStepped(details) => details,
        other => panic!("{other:?}"),
    }
}

/// The three steps of the outage: forward into December, back into October, back.
fn three_steps(scene: &mut Scene) {
    scene.sets_clock(1000, "date", 126 * DAY);
    scene.sets_clock(361_000, "date", -63 * DAY);
    scene.sets_clock(721_000, "chronyd", -63 * DAY - 40);
    scene.tick(721_250);
}

#[test]
fn a_step_names_who_by_how_much_and_what_breaks() {
    let mut scene = Scene::new();
    scene.sets_clock(1000, "date", 126 * DAY);
    let emitted = scene.last();
    assert_eq!(
        (emitted.kind, emitted.state, emitted.severity),
        (Kind::ClockStepped, State::Open, Severity::Critical)
    );
    assert!(
        emitted.summary.starts_with("The wall clock was set forward 126 days by date[4711], from "),
        "{}",
        emitted.summary
    );
    assert_eq!(
        emitted.why[0],
        "date[4711] (/bin/date) called clock_settime, started by bash[4700]."
            .replace("/usr/bin/raven", "/bin/date")
    );
    assert!(emitted.why[1].contains("SigV4"), "{:?}", emitted.why);
    assert!(emitted.why[2].contains("--ntp"), "{:?}", emitted.why);
    let step = &details(emitted).steps[0];
    assert_eq!((step.how, step.delta_ns), (StepCause::Call, 126 * DAY * 1_000_000));
    assert_eq!(emitted.cause.as_ref().expect("the clock").confidence, Confidence::Certain);
    assert_eq!(details(emitted).verdict, ClockVerdict::Unknown);
}

#[test]
fn a_small_step_is_none() {
    let mut scene = Scene::new();
    scene.sets_clock(1000, "date", 499);
    scene.clock_moved(2000, -499, true);
    scene.passes(2000, 5000);
    assert_eq!(scene.emitted, []);
}

#[test]
fn small_steps_of_one_program_are_one_step_with_their_sum() {
    let mut scene = Scene::new();
    for step in 0..12 {
        scene.sets_clock_as(1_000 + 3_000 * step, ("guest-tools", 227), 400);
        scene.tick(1_250 + 3_000 * step);
        assert_eq!(scene.emitted.is_empty(), step == 0, "{step}: {:#?}", scene.emitted);
    }
    scene.ends();
    let ids: std::collections::BTreeSet<&str> =
        scene.emitted.iter().map(|emitted| emitted.id.as_str()).collect();
    assert_eq!(ids.len(), 1, "{:#?}", scene.emitted);
    let last = scene.last();
    assert!(
        last.summary.starts_with("The wall clock was set forward 4.8 s in 12 calls by guest-tools[227]"),
        "{}",
        last.summary
    );
    assert_eq!(details(last).delta_ns, 4_800_000_000);
}

#[test]
fn small_steps_back_and_forth_by_two_programs_or_long_apart_are_none() {
    let mut scene = Scene::new();
    for step in 0..6 {
        scene.sets_clock_as(1_000 + 2_000 * step, ("one", 227), if step % 2 == 0 { 400 } else { -400 });
    }
    for step in 0..4 {
        scene.sets_clock_as(30_000 + 700_000 * step, ("other", 228), 400);
    }
    for step in 0..6 {
        scene.sets_clock_as(4_000_000 + 1_000 * step, ("one", 227 + step as u32 % 2), 400);
    }
    scene.ends();
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn steps_that_undo_each_other_are_one_incident_with_the_time_it_was_wrong() {
    let mut scene = Scene::new();
    three_steps(&mut scene);
    assert_eq!(scene.opened(Kind::ClockStepped).len(), 1);
    // Who began meanwhile is asked for before it is over.
    assert_eq!(scene.emitted.last().map(|emitted| emitted.state), Some(State::Updated));
    scene.finds(721_300, &[], &[]);
    scene.passes(722_000, 725_000);
    let emitted = scene.last();
    assert_eq!((emitted.state, emitted.count), (State::Resolved, 3));
    assert!(emitted.summary.starts_with("The wall clock is back where it was; it was wrong for 12 min, in 3 steps: forward 126 days by date[4711], back 63 days by date[4711], back 63 days by chronyd[4711]."), "{}", emitted.summary);
    assert_eq!(
        (details(emitted).verdict, details(emitted).wrong_ms),
        (ClockVerdict::Reverted, Some(720_000))
    );
    assert_eq!(emitted.duration_ms, 720_000);
}

#[test]
fn who_keeps_credentials_from_then_is_named_as_long_as_it_lives() {
    let mut scene = Scene::new();
    scene.process(2001, &[], 500);
    let session = |cookie, process, at| {
        let mut hs = flight(cookie, process, at);
        hs.owner.process = process;
        hs.stage = stage::DONE;
        hs
    };
    // One before the step, one meanwhile.
    scene.ends_handshake(900, session(1, 2000, 800));
    scene.sets_clock(1000, "date", 126 * DAY);
    scene.ends_handshake(5000, session(2, 2001, 4000));
    scene.tick(60_000);
    scene.sets_clock(361_000, "date", -126 * DAY);
    scene.ends_handshake(362_000, session(3, 2002, 361_500));
    let Some(Request::Exposed(asked)) =
        scene.requests.iter().rfind(|look| matches!(look, Request::Exposed(_)))
    else {
        panic!("{:?}", scene.requests);
    };
    assert_eq!((asked.known.len(), asked.windows.len(), asked.known[0].0), (1, 1, 2001));
    assert_eq!(asked.windows[0].1 - asked.windows[0].0, 360_000_000_000);
    scene.finds(362_500, &[(3001, 7000)], &[]);
    let emitted = scene.last();
    assert_eq!((emitted.state, emitted.severity), (State::Updated, Severity::Warning));
    let exposed: Vec<u32> = details(emitted).exposed.iter().map(|one| one.process.pid).collect();
    assert_eq!(exposed, [2001, 3001]);
    let dated = &details(emitted).exposed[0].sessions[0];
    assert_eq!((dated.peer.port, &dated.at[..7]), (443, "2026-02"));
    assert!(emitted.summary.ends_with("2 processes that live may hold credentials dated February 2026: restart pids 2001 (raven), 3001 (worker)."), "{}", emitted.summary);
    assert_eq!(emitted.remedies[0].to_string(), "restart pids 2001, 3001");
    // They go, one after the other.
    scene.finds(370_000, &[], &[2001]);
    assert!(scene.last().summary.contains("2 processes"), "not oftener than every half minute");
    scene.passes(370_000, 395_000);
    scene.finds(395_000, &[], &[]);
    let summary = &scene.last().summary;
    assert!(summary.contains("1 process that lives may hold credentials"), "{summary}");
    assert_eq!(scene.last().state, State::Updated);
    scene.finds(400_000, &[], &[3001]);
    scene.passes(400_000, 403_000);
    assert_eq!((scene.last().state, details(scene.last()).exposed.len()), (State::Resolved, 0));
}

#[test]
fn a_time_daemon_after_boot_is_named_as_such_and_opens_nothing_else() {
    let mut scene = Scene::new();
    scene.sets_clock(1000, "chronyd", 935_000);
    scene.passes(1250, 4000);
    let emitted = scene.last();
    assert_eq!((emitted.state, emitted.severity), (State::Resolved, Severity::Info));
    assert_eq!(
        emitted.summary,
        "The wall clock was set forward 15 min 35 s by chronyd[4711], a time daemon's correction after boot."
    );
    assert_eq!(details(emitted).verdict, ClockVerdict::SetByTimeDaemon);
}

#[test]
fn a_time_daemon_that_leaps_in_mid_life_is_not_believed_unless_a_reference_agrees() {
    for (vouched, severity) in [(false, Severity::Warning), (true, Severity::Critical)] {
        let mut scene = Scene::new();
        scene.tick(699_000);
        if vouched {
            scene.compares(699_500, Kernel, "kernel", 0);
        }
        scene.tick(700_000);
        scene.sets_clock(701_000, "chronyd", 126 * DAY);
        // Of a clock that nothing had vouched for it may be the first correction.
        assert_eq!((scene.last().severity, details(scene.last()).verdict), (severity, ClockVerdict::Unknown));
        assert!(
            scene.last().remedies[0].to_string().ends_with("chronyc sources -v"),
            "{:?}",
            scene.last().remedies
        );
        scene.compares(702_000, Ntp, "192.0.2.9:123", 10);
        scene.tick(702_250);
        scene.finds(702_500, &[], &[]);
        scene.passes(702_500, 706_000);
        let emitted = scene.last();
        assert_eq!(
            (emitted.state, emitted.severity, details(emitted).verdict),
            (State::Resolved, Severity::Info, ClockVerdict::Confirmed)
        );
        assert!(
            emitted.summary.ends_with("and is right now by NTP server 192.0.2.9:123."),
            "{}",
            emitted.summary
        );
    }
}

#[test]
fn a_hardware_clock_that_follows_the_step_does_not_vouch_for_it() {
    // Servers that lie: twelve years back, and ten seconds later the kernel writes the hardware clock.
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", 0);
    scene.sets_clock(1000, "chronyd", -12 * 365 * DAY);
    let emitted = scene.last();
    assert_eq!((emitted.state, details(emitted).verdict), (State::Open, ClockVerdict::Unknown));
    assert!(emitted.why.iter().any(|why| why.starts_with("The hardware clock rtc0 stands by the time before the step: by it the wall clock is 4380 days behind now.")), "{:?}", emitted.why);
    scene.compares(2000, Rtc, "rtc0", -12 * 365 * DAY);
    scene.compares(12_000, Rtc, "rtc0", 0);
    scene.compares(12_500, Kernel, "kernel", 0);
    scene.passes(12_750, 60_000);
    let emitted = scene.last();
    assert_eq!((emitted.state, details(emitted).verdict), (State::Updated, ClockVerdict::Unknown));
    assert!(!emitted.summary.contains("right"), "{}", emitted.summary);
    assert!(
        emitted.why.iter().any(|why| why.contains("until it was written from the wall clock")),
        "{:?}",
        emitted.why
    );
    assert!(emitted.remedies[0].to_string().ends_with("chronyc sources -v"), "{:?}", emitted.remedies);
    // By what the kernel itself knows, it is wrong.
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", 0);
    scene.built(500, -300);
    scene.sets_clock(1000, "chronyd", -12 * 365 * DAY);
    let emitted = scene.last();
    assert_eq!((emitted.severity, details(emitted).verdict), (Severity::Critical, ClockVerdict::Wrong));
    assert!(
        emitted.summary.contains(
            "By the build date of this kernel, 6.12 (2024-12-13) it is at least 4080 days behind now."
        ),
        "{}",
        emitted.summary
    );
}

#[test]
fn a_clock_set_right_over_a_hardware_clock_a_day_behind_is_not_called_wrong() {
    for (at, vouched_at_boot) in [(26_000, true), (900_000, false)] {
        let mut scene = Scene::new();
        scene.compares(at - 5000, Rtc, "rtc0", 0);
        scene.sets_clock(at, "chronyd", DAY);
        scene.compares(at + 1000, Kernel, "kernel", 0);
        scene.compares(at + 10_000, Rtc, "rtc0", DAY);
        scene.passes(at + 10_250, at + 30_000);
        assert!(
            scene.emitted.iter().all(|emitted| emitted.severity <= Severity::Warning),
            "{:#?}",
            scene.emitted
        );
        assert!(
            scene.emitted.iter().all(|emitted| details(emitted).verdict == ClockVerdict::Unknown),
            "{vouched_at_boot}"
        );
        assert_eq!(scene.opened(Kind::ClockSkewed).len(), 0);
        assert_eq!(scene.opened(Kind::ClockStepped).len(), 1);
    }
}

#[test]
fn an_hour_by_hand_is_no_time_zone_and_the_kernel_that_followed_does_not_acquit() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", 0);
    scene.compares(600, Kernel, "kernel", 0);
    scene.sets_clock(1000, "adjtimex", 3_600_000);
    scene.compares(11_000, Kernel, "kernel", 0);
    scene.passes(11_250, 20_000);
    let emitted = scene.last();
    assert_eq!((emitted.state, details(emitted).verdict), (State::Open, ClockVerdict::Wrong));
    assert!(
        emitted.summary.contains("By the kernel's synchronised time it is 1 h ahead now."),
        "{}",
        emitted.summary
    );
    assert!(!emitted.why.iter().any(|why| why.contains("local time")), "{:?}", emitted.why);
    assert_eq!(scene.emitted.iter().filter(|emitted| emitted.kind != Kind::ClockStepped).count(), 0);
}

#[test]
fn a_step_of_one_author_carries_it_and_one_of_two_does_not() {
    let mut scene = Scene::new();
    scene.sets_clock(1000, "date", 60_000);
    assert_eq!(scene.last().process.as_ref().map(|process| process.pid), Some(4711));
    scene.sets_clock(40_000, "date", 60_000);
    assert_eq!(scene.last().process.as_ref().map(|process| process.pid), Some(4711));
    scene.sets_clock_as(80_000, ("date", 4712), 60_000);
    assert_eq!(scene.last().process, None);
    assert_eq!(details(scene.last()).steps.len(), 3);
}

#[test]
fn two_that_set_the_clock_in_turns_are_one_incident_that_names_the_pair() {
    let mut scene = Scene::new();
    for round in 0..6 {
        let at = 1000 + round * 10_000;
        scene.sets_clock_as(at, ("date", 5000 + round as u32), 3_600_000);
        scene.passes(at + 250, at + 4750);
        scene.sets_clock_as(at + 5000, ("chronyd", 77), -3_600_000);
        scene.finds(at + 5100, &[], &[]);
        scene.passes(at + 5250, at + 9750);
    }
    let states = |state| scene.emitted.iter().filter(|emitted| emitted.state == state).count();
    assert_eq!((states(State::Open), states(State::Resolved)), (1, 0), "{:#?}", scene.emitted);
    assert!(scene.emitted.len() < 16, "{}", scene.emitted.len());
    // Neither does for a minute: it is over.
    scene.finds(61_100, &[], &[]);
    scene.passes(62_000, 125_000);
    assert_eq!(scene.last().state, State::Resolved);
    let emitted = scene.last();
    assert!(
        emitted.summary.starts_with("Two programs set the wall clock against each other: date[5005] (started by bash[4700]) forward 1 h, chronyd[77] (started by bash[4700]) back 1 h; 12 steps in 55 s, and it is back where it was before the first."),
        "{}",
        emitted.summary
    );
    assert_eq!((&emitted.process, &emitted.cause.as_ref().expect("the clock").process), (&None, &None));
    assert_eq!(scene.opened(Kind::ClockStepped).len(), 1);
}

#[test]
fn a_leap_second_is_reported_as_one_with_who_armed_it() {
    for (kind, moves_ms, severity) in
        [(LeapKind::Insert, -1000, Severity::Warning), (LeapKind::Delete, 1000, Severity::Warning)]
    {
        let mut scene = Scene::new();
        scene.arms(1000, "ntpd", Some(kind));
        let midnight = scene.midnight();
        scene.tick(midnight - 500);
        let after = if kind == LeapKind::Insert { 38 } else { 36 };
        scene.tai(midnight + 90, after);
        scene.clock_moved(midnight + 100, moves_ms, true);
        scene.passes(midnight + 250, midnight + 4000);
        let emitted = scene.last();
        assert_eq!((emitted.state, emitted.severity), (State::Resolved, severity));
        assert!(emitted.summary.contains(" leap second"), "{}", emitted.summary);
        assert!(emitted.summary.contains("ntpd[4711] had armed it"), "{}", emitted.summary);
        // 9 October 2025 is no day for one.
        assert!(emitted.summary.contains("There is none on that day"), "{}", emitted.summary);
        assert!(emitted.why.iter().any(|why| why.contains("TAI offset went from 37 s")), "{:?}", emitted.why);
        assert!(emitted.remedies[0].to_string().contains("ntpq -pn"), "{:?}", emitted.remedies);
        let step = &details(emitted).steps[0];
        assert_eq!((step.how, step.delta_ns), (StepCause::LeapSecond, kind.moves_ns()));
        assert_eq!(emitted.process.as_ref().map(|process| process.comm.as_str()), Some("ntpd"));
        assert_eq!(scene.opened(Kind::ClockStepped).len(), 1);
        assert!(!scene.emitted.iter().any(|emitted| emitted.summary.contains("hypervisor")));
    }
}

#[test]
fn a_second_at_midnight_that_was_not_armed_is_a_step() {
    let mut scene = Scene::new();
    let midnight = scene.midnight();
    scene.tick(midnight - 500);
    scene.clock_moved(midnight + 100, -1000, true);
    assert!(scene.last().summary.contains("jumped back 1 s"), "{}", scene.last().summary);
}

#[test]
fn a_time_daemon_does_not_vouch_for_its_own_leap_by_way_of_the_kernel() {
    let mut scene = Scene::new();
    scene.compares(500, Kernel, "kernel", 0);
    scene.tick(700_000);
    scene.sets_clock(701_000, "chronyd", 126 * DAY);
    // It reports to the kernel that all is well.
    scene.compares(702_000, Kernel, "kernel", 0);
    scene.passes(702_250, 706_000);
    assert_eq!((scene.last().state, scene.last().severity), (State::Open, Severity::Critical));
    assert_eq!(details(scene.last()).verdict, ClockVerdict::Unknown);
    // A small correction in mid-life is its trade, whatever it said of the clock before.
    let mut scene = Scene::new();
    scene.tick(700_000);
    scene.compares(700_500, Kernel, "kernel", 0);
    scene.sets_clock(701_000, "chronyd", 1500);
    assert_eq!(details(scene.last()).verdict, ClockVerdict::SetByTimeDaemon);
}

#[test]
fn what_was_synchronised_before_the_step_says_at_once_that_the_clock_is_wrong() {
    let mut scene = Scene::new();
    scene.compares(500, Kernel, "kernel", 0);
    scene.compares(600, Rtc, "rtc0", 200);
    scene.sets_clock(1000, "date", -3_600_000);
    let emitted = scene.last();
    assert_eq!((emitted.state, details(emitted).verdict), (State::Open, ClockVerdict::Wrong));
    assert!(
        emitted.summary.ends_with("By the kernel's synchronised time it is 1 h behind now."),
        "{}",
        emitted.summary
    );
    // And it is not said a second time.
    scene.passes(1250, 10_000);
    assert_eq!(scene.opened(Kind::ClockSkewed).len(), 0);
    assert_eq!(scene.opened(Kind::ClockStepped).len(), 1);
}

#[test]
fn what_was_slewed_right_was_wrong_until_then() {
    let mut scene = Scene::new();
    scene.compares(500, Ntp, "a", 0);
    scene.sets_clock(1000, "date", 100_000);
    scene.passes(1250, 600_000);
    assert_eq!(details(scene.last()).verdict, ClockVerdict::Wrong);
    scene.compares(600_500, Ntp, "a", 10);
    scene.tick(600_750);
    let Some(Request::Exposed(asked)) =
        scene.requests.iter().rfind(|look| matches!(look, Request::Exposed(_)))
    else {
        panic!("{:?}", scene.requests);
    };
    assert_eq!(asked.windows.len(), 1);
    assert!((asked.windows[0].1 - asked.windows[0].0).abs_diff(599_000_000_000) < 1_000_000_000, "{asked:?}");
}

#[test]
fn where_records_of_the_clock_were_lost_no_hypervisor_is_accused() {
    for (probe, accused) in [(ProbeId::CLOCK, false), (ProbeId::CONNECT, true)] {
        let mut scene = Scene::new();
        scene.loses(500, probe, Stat::Missed, 1);
        scene.clock_moved(1000, -DAY, true);
        let summary = &scene.last().summary;
        assert!(summary.contains("jumped back 1 day"), "{summary}");
        assert_eq!(summary.contains("no call set it"), accused, "{summary}");
        assert_eq!(summary.contains("hypervisor"), accused, "{summary}");
    }
}

#[test]
fn it_jumps_without_a_call() {
    let mut scene = Scene::new();
    scene.clock_moved(1000, -DAY, true);
    assert!(scene.last().summary.contains("jumped back 1 day"), "{}", scene.last().summary);
    assert!(
        scene.last().summary.ends_with("no call set it: hypervisor or restored VM."),
        "{}",
        scene.last().summary
    );
    assert_eq!(scene.last().cause.as_ref().expect("the clock").confidence, Confidence::Possible);

    let mut scene = Scene::new();
    scene.slept(1000, 8 * 3_600_000);
    scene.clock_moved(1000, -DAY, false);
    scene.passes(1250, 2000);
    let emitted = scene.opened(Kind::ClockStepped);
    assert_eq!(emitted.len(), 1);
    assert!(
        emitted[0].summary.ends_with("no call set it: resume from a suspend of 8 h."),
        "{}",
        emitted[0].summary
    );
    assert_eq!(details(emitted[0]).steps[0].suspended_ms, Some(8 * 3_600_000));
}

#[test]
fn a_suspend_is_reported_for_the_record() {
    let mut scene = Scene::new();
    scene.slept(1000, DAY);
    scene.passes(1000, 4000);
    let emitted = scene.last();
    assert_eq!((emitted.state, emitted.severity), (State::Resolved, Severity::Info));
    assert!(emitted.summary.starts_with("The machine slept for 1 day: "), "{}", emitted.summary);
    assert_eq!(scene.opened(Kind::ClockStepped).len(), 1);
}

#[test]
fn refused_handshakes_while_it_is_wrong_belong_to_it() {
    let mut scene = Scene::new();
    scene.sets_clock(1000, "date", 400 * DAY);
    for cookie in 1..=3 {
        let mut hs = flight(cookie, 1, 1500);
        // Fatal, certificate_expired.
        (hs.stage, hs.alert) = (stage::ALERT, 1 << 16 | 2 << 8 | 45);
        scene.ends_handshake(2000 + cookie, hs);
    }
    scene.sets_clock(61_000, "date", -400 * DAY);
    scene.finds(61_500, &[], &[]);
    let alerts = &details(scene.last()).alerts;
    assert_eq!(alerts.get("certificate_expired"), Some(&3));
    assert!(
        scene
            .last()
            .why
            .iter()
            .any(|why| why == "3 TLS handshakes were refused meanwhile (certificate_expired: 3)."),
        "{:?}",
        scene.last().why
    );
}

#[test]
fn what_is_not_undone_and_cannot_be_judged_is_given_up_after_an_hour() {
    let mut scene = Scene::new();
    scene.sets_clock(1000, "date", 60_000);
    scene.tick(3_500_000);
    assert_eq!(scene.emitted.len(), 1);
    scene.passes(3_602_000, 3_606_000);
    assert_eq!(scene.last().state, State::Resolved);
    assert!(scene.last().summary.ends_with("It has not been undone since."), "{}", scene.last().summary);
}

proptest! {
    /// Whatever happens to the clock: durations are there, bounded and in order, ids too.
    #[test]
    fn any_sequence_of_steps_gives_bounded_ordered_durations(
        steps in proptest::collection::vec((0u64..400_000, any::<i64>(), 0u8..5), 1..40),
    ) {
        let mut scene = Scene::new();
        let mut at = 1000;
        for (pause, delta, what) in steps {
            at += pause;
            let delta_ms = delta >> (delta.unsigned_abs() % 40 + 20);
            match what {
                0 | 1 => scene.sets_clock(at, "date", delta_ms),
                2 => scene.clock_moved(at, delta_ms, true),
                3 => scene.slept(at, delta_ms),
                _ => scene.compares(at, Rtc, "rtc0", delta_ms),
            }
            scene.tick(at + 100);
            scene.finds(at + 100, &[(77, at)], &[]);
        }
        scene.ends();
        let mut ids: Vec<String> = Vec::new();
        for emitted in &scene.emitted {
            prop_assert!(emitted.duration_ms <= at + 101, "{emitted:?}");
            prop_assert!(emitted.evidence.windows(2).all(|two| two[0].offset_ms <= two[1].offset_ms), "{emitted:?}");
            if let Details::ClockStepped(details) = &emitted.details {
                prop_assert!(details.steps.len() <= STEPS && details.exposed.len() <= 64);
                prop_assert!(details.wrong_ms.is_none_or(|ms| ms <= at), "{details:?}");
            }
            if emitted.state == State::Open && !ids.contains(&emitted.id) {
                let time = |id: &str| id[..10].to_owned();
                prop_assert!(ids.last().is_none_or(|last| time(last) <= time(&emitted.id)), "{ids:?} {}", emitted.id);
                ids.push(emitted.id.clone());
            }
        }
    }
}
