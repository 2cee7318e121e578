use super::*;
use crate::{
    correlate::incident::{ClockSkewedDetails, Incident, State},
    fact::ReferenceKind::{Http, Kernel, Ntp, Rtc},
    rules::scene::Scene,
};

const DAY: i64 = 86_400_000;

fn details(incident: &Incident) -> &ClockSkewedDetails {
    match &incident.details {
        Details::ClockSkewed(details) => details,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_quarter_of_an_hour_fast_by_ntp_is_critical_and_says_what_refuses() {
    let mut scene = Scene::new();
    scene.compares(500, Ntp, "192.0.2.9:123", 935_000);
    scene.tick(750);
    let told = scene.last();
    assert_eq!((told.kind, told.state, told.severity), (Kind::ClockSkewed, State::Open, Severity::Critical));
    assert_eq!(told.summary, "The wall clock is 15 min 35 s ahead by NTP server 192.0.2.9:123 (± 20 ms).");
    assert!(told.why[0].contains("SigV4: RequestTimeTooSkewed"), "{:?}", told.why);
    assert!(told.why[1].starts_with("It was so when culprit first looked"), "{:?}", told.why);
    assert!(told.why[2].contains("(Europe/Berlin) has no part in it"), "{:?}", told.why);
    assert_eq!(told.cause.as_ref().expect("the clock").confidence, Confidence::Certain);
    assert_eq!((details(told).reference.ahead_ns, &details(told).since), (935_000_000_000, &None));
}

#[test]
fn a_clock_that_contradicts_is_named_in_a_sentence_of_its_own() {
    let mut scene = Scene::new();
    scene.compares(400, Rtc, "rtc0", 0);
    scene.compares(500, Ntp, "a", 935_000);
    scene.tick(750);
    let why = &scene.last().why[1];
    assert!(why.ends_with(". The hardware clock rtc0 cannot be right, or is out of date."), "{why}");
}

#[test]
fn half_a_minute_is_a_warning_and_less_is_nothing() {
    for (ahead_ms, expected) in
        [(29_900, None), (31_000, Some(Severity::Warning)), (-300_100, Some(Severity::Critical))]
    {
        let mut scene = Scene::new();
        scene.compares(500, Ntp, "a", ahead_ms);
        scene.passes(750, 3000);
        assert_eq!(scene.told.first().map(|told| told.severity), expected, "{ahead_ms}");
        assert_eq!(scene.told.len(), usize::from(expected.is_some()));
    }
}

#[test]
fn a_machine_that_stood_still_for_a_day_is_told_so_with_when() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", 0);
    scene.compares(600, Kernel, "kernel", 0);
    scene.compares(10_500, Rtc, "rtc0", -DAY);
    scene.tick(10_750);
    let told = scene.last();
    assert_eq!((told.kind, told.severity), (Kind::ClockSkewed, Severity::Critical));
    assert!(
        told.summary.starts_with("The wall clock is 1 day behind by the hardware clock rtc0"),
        "{}",
        told.summary
    );
    assert!(told.summary.contains("this machine stood still for 1 day"), "{}", told.summary);
    assert!(told.why[0].contains("issued less than 1 day ago are not valid yet"), "{:?}", told.why);
    assert_eq!(details(told).paused_ms, Some(DAY.unsigned_abs()));
    assert!(details(told).since.is_some());
}

#[test]
fn web_servers_alone_never_wake_anybody_however_many_agree() {
    let mut scene = Scene::new();
    for at in [500, 5500] {
        scene.compares(at, Http, "192.0.2.1:80", -DAY - 7000);
    }
    scene.tick(5750);
    assert_eq!(scene.last().severity, Severity::Warning);
    assert!(
        scene.last().why[1].contains("the server may be the one that is wrong"),
        "{:?}",
        scene.last().why
    );
    for at in [6000, 9000] {
        scene.compares(at, Http, "192.0.2.2:80", -DAY - 6500);
        scene.compares(at, Http, "192.0.2.3:80", -DAY - 6500);
    }
    scene.passes(9250, 10_000);
    let told = scene.last();
    assert_eq!((told.state, told.severity), (State::Updated, Severity::Warning));
    assert_eq!(told.cause.as_ref().expect("the clock").confidence, Confidence::Likely);
    assert!(told.summary.ends_with("and 2 other clocks agree)."), "{}", told.summary);
    assert!(told.why[1].ends_with("name an NTP server with --ntp."), "{:?}", told.why);
    assert!(
        told.remedies[0].to_string().starts_with("compare with a server you trust first"),
        "{:?}",
        told.remedies
    );
    assert_eq!(scene.opened(Kind::ClockSkewed).len(), 1);
}

#[test]
fn equal_web_servers_that_are_asked_in_turns_are_no_news() {
    let mut scene = Scene::new();
    for round in 0..40 {
        let at = 500 + round * 1000;
        let name = ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"][round as usize % 3];
        // To the second, as such dates are.
        scene.compares(at, Http, name, -DAY - 500 + (round as i64 % 2) * 900);
        scene.tick(at + 250);
    }
    // One when the first is heard twice, and one when there are three of them.
    assert!(scene.told.len() <= 3, "{:#?}", scene.told.iter().map(|told| &told.summary).collect::<Vec<_>>());
}

#[test]
fn a_hardware_clock_alone_opens_nothing_unless_the_two_run_apart() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", DAY);
    scene.passes(750, 30_000);
    assert_eq!(scene.told, []);
    // The wall clock gains a second every ten.
    let mut scene = Scene::new();
    for round in 0..=12 {
        scene.compares(500 + round * 10_000, Rtc, "rtc0", 22_000 + round as i64 * 1000);
        scene.tick(750 + round * 10_000);
    }
    let told = scene.opened(Kind::ClockSkewed);
    assert_eq!((told.len(), told[0].severity), (1, Severity::Warning));
}

#[test]
fn a_clock_of_the_year_2000_is_wrong_by_the_day_the_kernel_was_built() {
    let mut scene = Scene::new();
    scene.compares(400, Rtc, "rtc0", 0);
    scene.built(500, 20 * 365);
    scene.tick(750);
    let told = scene.last();
    assert_eq!((told.kind, told.state, told.severity), (Kind::ClockSkewed, State::Open, Severity::Critical));
    assert_eq!(
        told.summary,
        "The wall clock is at least 7300 days behind: it shows a time before the build date of this kernel, 6.12 (2045-10-04)."
    );
    scene.sets_clock(5000, "date", 21 * 365 * DAY);
    scene.passes(5250, 9000);
    let told = scene.told.iter().rfind(|told| told.kind == Kind::ClockSkewed).expect("told");
    assert_eq!(told.state, State::Resolved);
    assert!(told.summary.ends_with("any more: it was set forward 7665 days."), "{}", told.summary);
}

#[test]
fn what_a_time_daemon_set_is_not_to_be_set_by_it_again() {
    let mut scene = Scene::new();
    scene.tick(700_000);
    scene.sets_clock(701_000, "chronyd", 935_000);
    scene.compares(702_000, Ntp, "a", 935_000);
    scene.tick(702_250);
    let told = scene.last();
    assert_eq!((told.kind, told.severity), (Kind::ClockStepped, Severity::Critical));
    assert!(told.remedies[0].to_string().ends_with("chronyc sources -v"), "{:?}", told.remedies);
    assert!(
        !told.remedies.iter().any(|remedy| remedy.to_string().contains("makestep")),
        "{:?}",
        told.remedies
    );
}

#[test]
fn a_hardware_clock_in_local_time_is_harmless() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", -7_200_000);
    scene.compares(600, Kernel, "kernel", 0);
    scene.passes(750, 5000);
    assert_eq!(scene.told, []);
    // And said to be, when something else is wrong.
    scene.compares(6000, Ntp, "a", 40_000);
    scene.tick(6250);
    assert!(
        scene
            .last()
            .why
            .iter()
            .any(|why| why
                .starts_with("The hardware clock rtc0 is 2 h ahead of UTC as local time is: harmless.")),
        "{:?}",
        scene.last().why
    );
}

#[test]
fn drift_is_told_with_since_when() {
    let mut scene = Scene::new();
    // 500 ppm: 43.2 s a day.
    for minute in 0..=20 {
        scene.compares(minute * 60_000, Ntp, "a", 20_000 + minute as i64 * 30);
    }
    scene.tick(1_200_500);
    assert_eq!(scene.told, []);
    for minute in 21..=400 {
        scene.compares(minute * 60_000, Ntp, "a", 20_000 + minute as i64 * 30);
        scene.tick(minute * 60_000 + 500);
    }
    let told = scene.opened(Kind::ClockSkewed);
    let ppm = details(told[0]).drift_ppm.expect("told by six hours of readings");
    assert!((ppm - 500.0).abs() < 1.0, "{ppm}");
    assert!(
        told[0].why[1].contains("gains 43.1 s a day") || told[0].why[1].contains("gains 43.2 s a day"),
        "{:?}",
        told[0].why
    );
    // 30 s at 500 ppm are 16 h 40 min.
    assert!(details(told[0]).since.is_some());
}

#[test]
fn a_correction_ends_it_and_says_by_what() {
    let mut scene = Scene::new();
    scene.compares(500, Ntp, "a", 935_000);
    scene.tick(750);
    scene.sets_clock(5000, "chronyd", -935_000);
    scene.passes(5250, 9000);
    let last = |kind| scene.told.iter().rfind(|told| told.kind == kind).expect("told");
    let told = last(Kind::ClockSkewed);
    assert_eq!(told.state, State::Resolved);
    assert_eq!(
        told.summary,
        "The wall clock is right again by NTP server a (0 ms ahead): it was set back 15 min 35 s."
    );
    let step = last(Kind::ClockStepped);
    assert_eq!((step.severity, step.state), (Severity::Info, State::Resolved));
    assert!(step.summary.contains("is right now by NTP server a"), "{}", step.summary);
}
