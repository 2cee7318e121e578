use super::*;
use crate::{
    fact::ReferenceKind::{Http, Kernel, Ntp, Rtc},
    known::context::{ClockThresholds, Context},
    pipeline::incident::{ClockSkewedDetails, Incident, State},
    rules::scene::{Scene, advice},
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
    let emitted = scene.last();
    assert_eq!(
        (emitted.kind, emitted.state, emitted.severity),
        (Kind::ClockSkewed, State::Open, Severity::Critical)
    );
    assert_eq!(emitted.summary, "The wall clock is 15 min 35 s ahead by NTP server 192.0.2.9:123 (± 20 ms).");
    assert!(emitted.why[0].contains("SigV4: RequestTimeTooSkewed"), "{:?}", emitted.why);
    assert!(emitted.why[1].starts_with("It was so when culprit first looked"), "{:?}", emitted.why);
    assert!(emitted.why[2].contains("(Europe/Berlin) has no part in it"), "{:?}", emitted.why);
    assert_eq!(emitted.cause.as_ref().expect("the clock").confidence, Confidence::Certain);
    assert_eq!((details(emitted).reference.ahead_ns, &details(emitted).since), (935_000_000_000, &None));
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
fn half_a_minute_is_a_warning_and_less_is_worth_knowing_by_an_exact_clock() {
    for (ahead_ms, expected) in [
        (490, None),
        (600, Some(Severity::Info)),
        (29_900, Some(Severity::Info)),
        (31_000, Some(Severity::Warning)),
        (-300_100, Some(Severity::Critical)),
    ] {
        let mut scene = Scene::new();
        scene.compares(500, Ntp, "a", ahead_ms);
        scene.passes(750, 3000);
        assert_eq!(scene.emitted.first().map(|emitted| emitted.severity), expected, "{ahead_ms}");
        assert_eq!(scene.emitted.len(), usize::from(expected.is_some()));
    }
}

#[test]
fn web_servers_and_a_hardware_clock_are_not_exact() {
    let mut scene = Scene::new();
    for (at, name) in [(500, "192.0.2.1:80"), (600, "192.0.2.2:80"), (700, "192.0.2.3:80")] {
        scene.compares(at, Http, name, 29_000);
        scene.compares(at + 5_000, Http, name, 29_000);
    }
    scene.compares(6_000, Rtc, "rtc0", 29_000);
    scene.passes(6_250, 9_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn from_where_on_it_matters_is_the_users_choice() {
    let clock = ClockThresholds { warning_ms: 1_000, critical_ms: 2_000, ..ClockThresholds::default() };
    for (ahead_ms, expected) in [
        (400, None),
        (900, Some(Severity::Info)),
        (1_500, Some(Severity::Warning)),
        (-2_500, Some(Severity::Critical)),
    ] {
        let mut scene = Scene::with_clock(clock);
        scene.compares(500, Ntp, "a", ahead_ms);
        scene.passes(750, 3000);
        assert_eq!(scene.emitted.first().map(|emitted| emitted.severity), expected, "{ahead_ms}");
    }
}

#[test]
fn a_small_error_is_over_below_half_of_what_it_opened_at() {
    let mut scene = Scene::new();
    scene.compares(500, Ntp, "a", 900);
    scene.compares(70_000, Ntp, "a", 300);
    scene.tick(70_250);
    assert_ne!(scene.last().state, State::Resolved);
    scene.compares(140_000, Ntp, "a", 200);
    scene.ends();
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn the_difference_between_tai_and_utc_is_called_by_its_name() {
    for (ahead_ms, named) in [(37_000, true), (-36_800, true), (36_000, false)] {
        let mut scene = Scene::new();
        scene.compares(500, Ntp, "a", ahead_ms);
        scene.tick(750);
        let why = scene.last().why.join("\n");
        assert_eq!(why.contains("37 s is the difference between TAI and UTC"), named, "{ahead_ms}: {why}");
    }
}

#[test]
fn a_hardware_clock_in_local_time_that_was_read_as_utc_is_named() {
    let mut scene = Scene::new();
    scene.compares(400, Rtc, "rtc0", 0);
    scene.compares(500, Ntp, "a", 2 * 3_600_000);
    scene.tick(750);
    let emitted = scene.last();
    let why = emitted.why.join("\n");
    assert!(why.contains("the hardware clock rtc0 shows the same: that holds local time"), "{why}");
    assert!(crate::rules::scene::advice(emitted).contains("timedatectl set-local-rtc 0"), "{emitted:#?}");
}

#[test]
fn a_machine_that_stood_still_for_a_day_is_reported_with_when() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", 0);
    scene.compares(600, Kernel, "kernel", 0);
    scene.compares(10_500, Rtc, "rtc0", -DAY);
    scene.tick(10_750);
    let emitted = scene.last();
    assert_eq!((emitted.kind, emitted.severity), (Kind::ClockSkewed, Severity::Critical));
    assert!(
        emitted.summary.starts_with("The wall clock is 1 day behind by the hardware clock rtc0"),
        "{}",
        emitted.summary
    );
    assert!(emitted.summary.contains("this machine stood still for 1 day"), "{}", emitted.summary);
    assert!(emitted.why[0].contains("issued less than 1 day ago are not valid yet"), "{:?}", emitted.why);
    assert_eq!(details(emitted).paused_ms, Some(DAY.unsigned_abs()));
    assert!(details(emitted).since.is_some());
}

#[test]
fn web_servers_alone_never_page_however_many_agree() {
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
    let emitted = scene.last();
    assert_eq!((emitted.state, emitted.severity), (State::Updated, Severity::Warning));
    assert_eq!(emitted.cause.as_ref().expect("the clock").confidence, Confidence::Likely);
    assert!(emitted.summary.ends_with("and 2 other clocks agree)."), "{}", emitted.summary);
    assert!(emitted.why[1].ends_with("name an NTP server with --ntp."), "{:?}", emitted.why);
    assert!(
        emitted.remedies[0].to_string().starts_with("compare with a server you trust first"),
        "{:?}",
        emitted.remedies
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
    assert!(
        scene.emitted.len() <= 3,
        "{:#?}",
        scene.emitted.iter().map(|emitted| &emitted.summary).collect::<Vec<_>>()
    );
}

#[test]
fn a_hardware_clock_alone_opens_nothing_unless_the_two_run_apart() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", DAY);
    scene.passes(750, 30_000);
    assert_eq!(scene.emitted, []);
    // The wall clock gains a second every ten.
    let mut scene = Scene::new();
    for round in 0..=12 {
        scene.compares(500 + round * 10_000, Rtc, "rtc0", 22_000 + round as i64 * 1000);
        scene.tick(750 + round * 10_000);
    }
    let emitted = scene.opened(Kind::ClockSkewed);
    assert_eq!((emitted.len(), emitted[0].severity), (1, Severity::Warning));
}

#[test]
fn a_clock_of_the_year_2000_is_wrong_by_the_day_the_kernel_was_built() {
    let mut scene = Scene::new();
    scene.compares(400, Rtc, "rtc0", 0);
    scene.built(500, 20 * 365);
    scene.tick(750);
    let emitted = scene.last();
    assert_eq!(
        (emitted.kind, emitted.state, emitted.severity),
        (Kind::ClockSkewed, State::Open, Severity::Critical)
    );
    assert_eq!(
        emitted.summary,
        "The wall clock is at least 7300 days behind: it shows a time before the build date of this kernel, 6.12 (2045-10-04)."
    );
    scene.sets_clock(5000, "date", 21 * 365 * DAY);
    scene.passes(5250, 9000);
    let emitted = scene.emitted.iter().rfind(|emitted| emitted.kind == Kind::ClockSkewed).expect("emitted");
    assert_eq!(emitted.state, State::Resolved);
    assert!(emitted.summary.ends_with("any more: it was set forward 7665 days."), "{}", emitted.summary);
}

#[test]
fn what_a_time_daemon_set_is_not_to_be_set_by_it_again() {
    let mut scene = Scene::new();
    scene.tick(700_000);
    scene.sets_clock(701_000, "chronyd", 935_000);
    scene.compares(702_000, Ntp, "a", 935_000);
    scene.tick(702_250);
    let emitted = scene.last();
    assert_eq!((emitted.kind, emitted.severity), (Kind::ClockStepped, Severity::Critical));
    assert!(emitted.remedies[0].to_string().ends_with("chronyc sources -v"), "{:?}", emitted.remedies);
    assert!(
        !emitted.remedies.iter().any(|remedy| remedy.to_string().contains("makestep")),
        "{:?}",
        emitted.remedies
    );
}

#[test]
fn a_hardware_clock_in_local_time_is_harmless() {
    let mut scene = Scene::new();
    scene.compares(500, Rtc, "rtc0", -7_200_000);
    scene.compares(600, Kernel, "kernel", 0);
    scene.passes(750, 5000);
    assert_eq!(scene.emitted, []);
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
fn drift_is_reported_with_since_when() {
    let mut scene = Scene::new();
    // 500 ppm: 43.2 s a day.
    for minute in 0..=20 {
        scene.compares(minute * 60_000, Ntp, "a", 20_000 + minute as i64 * 30);
    }
    scene.tick(1_200_500);
    assert_eq!(scene.last().severity, Severity::Info);
    for minute in 21..=400 {
        scene.compares(minute * 60_000, Ntp, "a", 20_000 + minute as i64 * 30);
        scene.tick(minute * 60_000 + 500);
    }
    let warned = scene.emitted.iter().find(|emitted| emitted.severity == Severity::Warning);
    let emitted = warned.expect("it has become half a minute");
    let ppm = details(emitted).drift_ppm.expect("known from six hours of readings");
    assert!((ppm - 500.0).abs() < 1.0, "{ppm}");
    assert!(
        emitted.why[1].contains("gains 43.1 s a day") || emitted.why[1].contains("gains 43.2 s a day"),
        "{:?}",
        emitted.why
    );
    // 30 s at 500 ppm are 16 h 40 min.
    assert!(details(emitted).since.is_some());
}

#[test]
fn a_correction_ends_it_and_says_by_what() {
    let mut scene = Scene::new();
    scene.compares(500, Ntp, "a", 935_000);
    scene.tick(750);
    scene.sets_clock(5000, "chronyd", -935_000);
    scene.passes(5250, 9000);
    let last = |kind| scene.emitted.iter().rfind(|emitted| emitted.kind == kind).expect("emitted");
    let emitted = last(Kind::ClockSkewed);
    assert_eq!(emitted.state, State::Resolved);
    assert_eq!(
        emitted.summary,
        "The wall clock is right again by NTP server a (0 ms ahead): it was set back 15 min 35 s."
    );
    let step = last(Kind::ClockStepped);
    assert_eq!((step.severity, step.state), (Severity::Info, State::Resolved));
    assert!(step.summary.contains("is right now by NTP server a"), "{}", step.summary);
}

#[test]
fn a_tick_that_drives_the_clock_away_is_named_with_who_set_it_and_set_right_first() {
    let mut scene = Scene::new();
    scene.sets_tick(100, "adjtimex", 11_000);
    scene.compares(500, Ntp, "192.0.2.9:123", 31_000);
    scene.tick(750);
    let emitted = scene.last();
    let why = emitted.why.join(" ");
    assert!(why.contains("It runs 10 % fast since adjtimex["), "{why}");
    assert!(why.contains("set tick 11000 (10000 is right) at "), "{why}");
    let by = emitted.cause.as_ref().and_then(|cause| cause.process.as_ref()).expect("its author");
    assert_eq!(by.comm, "adjtimex");
    assert_eq!(
        advice(emitted).lines().next(),
        Some("have it run at the right rate first: adjtimex --tick 10000")
    );
}

#[test]
fn a_tick_that_takes_the_offset_away_says_how_long_that_takes() {
    let mut scene = Scene::new();
    scene.sets_tick(100, "chronyd", 9_000);
    scene.compares(500, Ntp, "192.0.2.9:123", 31_000);
    scene.tick(750);
    let emitted = scene.last();
    let why = emitted.why.join(" ");
    assert!(why.contains("It is being slewed back: chronyd["), "{why}");
    assert!(why.contains("it runs 10 % slow; that takes 5 min 10 s more."), "{why}");
    assert_eq!(emitted.cause.as_ref().and_then(|cause| cause.process.as_ref()), None);
    assert!(!advice(emitted).contains("--tick"), "{}", advice(emitted));
}

#[test]
fn a_tick_set_before_culprit_started_is_named_without_an_author() {
    let mut scene = Scene::new();
    scene.apply(&Context::Tick { boot_ns: 0, tick_us: 9_900 });
    scene.compares(500, Ntp, "192.0.2.9:123", -31_000);
    scene.tick(750);
    let why = scene.last().why.join(" ");
    assert!(why.contains("It runs 1 % slow: its tick is 9900 (10000 is right)."), "{why}");
}
