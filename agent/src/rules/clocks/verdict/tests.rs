//! Which clock is believed, by what the others say.

use super::*;
use crate::known::context::Context;

const NOW: u64 = 1_000 * SECOND_NS;

fn world(said: &[(ReferenceKind, &str, i64)]) -> World {
    let mut world = World::default();
    world.apply_context(&Context::Clock { boot_ns: 0, offset_ns: 0 });
    // Each was heard twice, so that HTTP servers count.
    for at in [NOW - 30 * SECOND_NS, NOW] {
        for (kind, name, ahead_s) in said {
            world.apply_context(&Context::Reference(Reading {
                boot_ns: at,
                kind: *kind,
                name: (*name).into(),
                utc_ns: -ahead_s * SECOND_NS as i64,
                error_ns: if *kind == ReferenceKind::Ntp { 20_000_000 } else { SECOND_NS },
            }));
        }
    }
    world.domains.clock.is_metadata_in_tests("169.254.169.254:80");
    world
}

fn verdict(said: &[(ReferenceKind, &str, i64)]) -> Option<(i64, Confidence)> {
    let verdict = judge(&world(said), NOW)?;
    Some((verdict.ahead_ns / SECOND_NS as i64, verdict.confidence))
}

use Confidence::{Certain, Likely, Possible};
use ReferenceKind::{Http, Kernel, Ntp, Rtc};

type Case<'a> = (&'a [(ReferenceKind, &'a str, i64)], Option<(i64, Confidence)>);

#[test]
fn who_is_believed() {
    let web = |ahead| (Http, "192.0.2.1:80", ahead);
    let other = |ahead| (Http, "192.0.2.2:80", ahead);
    let third = |ahead| (Http, "192.0.2.3:80", ahead);
    let metadata = |ahead| (Http, "169.254.169.254:80", ahead);
    let cases: &[Case] = &[
        (&[], None),
        // A configured server against a kernel that believes itself.
        (&[(Ntp, "a", 935), (Kernel, "kernel", 0)], Some((935, Certain))),
        // Two servers that contradict each other: the one that finds nothing wrong.
        (&[(Ntp, "a", 935), (Ntp, "b", 0)], Some((0, Likely))),
        (&[(Ntp, "a", 935), (Ntp, "b", 0), (Ntp, "c", 935)], Some((935, Likely))),
        // A single web server is hardly a witness, against a synchronised kernel none.
        (&[web(-86_400 - 7)], Some((-86_407, Possible))),
        (&[web(-86_407), (Kernel, "kernel", 0)], Some((0, Possible))),
        (&[web(-86_407), other(-86_406), (Kernel, "kernel", 0)], Some((0, Possible))),
        (&[web(-86_407), other(-86_406), third(-86_407), (Kernel, "kernel", 0)], Some((-86_407, Likely))),
        (&[web(-86_407), (Rtc, "rtc0", -86_406), (Kernel, "kernel", 0)], Some((-86_407, Likely))),
        (&[metadata(-86_407), web(-86_407), (Kernel, "kernel", 0)], Some((-86_407, Likely))),
        // A hardware clock that drifted without a time daemon.
        (&[(Rtc, "rtc0", 100), (Kernel, "kernel", 0)], Some((0, Possible))),
        (&[(Rtc, "rtc0", 100)], Some((100, Possible))),
        // Local time is no wrong clock.
        (&[(Rtc, "rtc0", -2 * 3600)], None),
        (&[(Rtc, "rtc0", 5 * 3600 + 1800), (Kernel, "kernel", 0)], Some((0, Possible))),
        (&[web(3600)], None),
        (&[web(3600), other(3600)], Some((3600, Possible))),
    ];
    for (said, expected) in cases {
        let (found, expected) = (verdict(said), *expected);
        let same = found.is_some() == expected.is_some()
            && found
                .zip(expected)
                .is_none_or(|(found, expected)| found.0.abs_diff(expected.0) <= 1 && found.1 == expected.1);
        assert!(same, "{said:?}: {found:?}, not {expected:?}");
    }
}

#[test]
fn one_machine_has_one_voice_however_many_ports_it_has() {
    let ports = [(Http, "192.0.2.1:80", -7000), (Http, "192.0.2.1:81", -7000), (Http, "192.0.2.1:82", -7000)];
    assert_eq!(verdict(&ports), Some((-7000, Possible)));
    // Of IPv6 any host may have a /64.
    let many = [
        (Http, "[2001:db8::1]:80", -7000),
        (Http, "[2001:db8::2]:80", -7000),
        (Http, "[2001:db8::3]:80", -7000),
    ];
    assert_eq!(verdict(&many), Some((-7000, Possible)));
    let three = [(Http, "192.0.2.1:80", -7000), (Http, "192.0.2.2:80", -7000), (Http, "192.0.2.3:80", -7000)];
    assert_eq!(verdict(&three), Some((-7000, Likely)));
}

#[test]
fn what_a_verdict_rests_on_is_said() {
    let ground = |said: &[(ReferenceKind, &str, i64)]| judge(&world(said), NOW).map(|verdict| verdict.ground);
    assert_eq!(ground(&[(Rtc, "rtc0", 7000), (Rtc, "rtc1", 7000)]), Some(Ground::HardwareAlone));
    assert_eq!(
        ground(&[(Http, "192.0.2.1:80", 7000), (Http, "192.0.2.2:80", 7000)]),
        Some(Ground::HttpAlone)
    );
    assert_eq!(ground(&[(Http, "192.0.2.1:80", 7000), (Rtc, "rtc0", 7000)]), Some(Ground::Firm));
    assert_eq!(ground(&[(Ntp, "a", 7000)]), Some(Ground::Firm));
}

#[test]
fn a_hardware_clock_that_was_written_has_no_voice_any_more() {
    let mut world = world(&[(Rtc, "rtc0", 0)]);
    let day = 86_400 * SECOND_NS as i64;
    // The wall clock was set back by a day, and then the hardware clock.
    world.apply_context(&Context::Clock { boot_ns: NOW + SECOND_NS, offset_ns: -day });
    let reading =
        |at, utc_ns| Reading { boot_ns: at, kind: Rtc, name: "rtc0".into(), utc_ns, error_ns: SECOND_NS };
    world.apply_context(&Context::Reference(reading(NOW + 2 * SECOND_NS, 0)));
    world.apply_context(&Context::Reference(reading(NOW + 12 * SECOND_NS, -day)));
    assert_eq!(judge(&world, NOW + 13 * SECOND_NS), None);
    // Of the step, it said before: it is wrong by a day.
    let after = After { began_ns: NOW + SECOND_NS, by_daemon: true };
    let verdict = judge_after(&world, NOW + 13 * SECOND_NS, after).expect("what it said");
    assert_eq!((verdict.ahead_ns, verdict.ground), (-day, Ground::HardwareAlone));
}

#[test]
fn a_clock_written_together_with_a_step_that_was_undone_shows_no_machine_that_stood_still() {
    let mut world = world(&[(Rtc, "rtc0", 0), (Kernel, "kernel", 0)]);
    let day = 86_400 * SECOND_NS as i64;
    world.apply_context(&Context::Clock { boot_ns: NOW + SECOND_NS, offset_ns: day });
    world.apply_context(&Context::Clock { boot_ns: NOW + 3 * SECOND_NS, offset_ns: 0 });
    let reading = Reading {
        boot_ns: NOW + 9 * SECOND_NS,
        kind: Rtc,
        name: "rtc0".into(),
        utc_ns: day,
        error_ns: SECOND_NS,
    };
    world.apply_context(&Context::Reference(reading));
    assert_eq!(world.references().leap(), None);
    assert_eq!(judge(&world, NOW + 9 * SECOND_NS).map(|verdict| verdict.ahead_ns), Some(0));
}

#[test]
fn the_kernel_and_servers_of_this_machine_cannot_speak_for_a_step_they_followed() {
    let mut world = world(&[(Kernel, "kernel", 0), (Http, "192.0.2.1:80", 0), (Ntp, "a", 0)]);
    let hour = 3600 * SECOND_NS as i64;
    world.apply_context(&Context::Clock { boot_ns: NOW + SECOND_NS, offset_ns: hour });
    for (kind, name) in [(Kernel, "kernel"), (Http, "192.0.2.1:80"), (Ntp, "a"), (Http, "192.0.2.2:80")] {
        for at in [NOW + 6 * SECOND_NS, NOW + 12 * SECOND_NS] {
            let reading = Reading { boot_ns: at, kind, name: name.into(), utc_ns: hour, error_ns: SECOND_NS };
            world.apply_context(&Context::Reference(reading));
        }
    }
    let after = After { began_ns: NOW + SECOND_NS, by_daemon: false };
    let verdict = judge_after(&world, NOW + 13 * SECOND_NS, after).expect("what they said before");
    assert_eq!(verdict.ahead_ns, hour, "{verdict:?}");
    assert_eq!(verdict.against, [], "{verdict:?}");
}

#[test]
fn an_hour_by_which_the_clock_was_just_set_is_no_time_zone() {
    let mut world = world(&[(Rtc, "rtc0", 0)]);
    let hour = 3600 * SECOND_NS as i64;
    world.apply_context(&Context::Clock { boot_ns: NOW + SECOND_NS, offset_ns: hour });
    let verdict = judge(&world, NOW + 2 * SECOND_NS).expect("the hardware clock");
    assert_eq!((verdict.ahead_ns, verdict.zones), (hour, vec![]));
}

#[test]
fn no_clock_is_right_that_shows_a_time_before_the_kernel_was_built() {
    let year = 365 * 86_400 * SECOND_NS as i64;
    let built = |world: &mut World| {
        let wall = i64::try_from(NOW).expect("small");
        world.apply_context(&Context::Built { name: "6.12 (2025-11-05)".into(), utc_ns: wall + year });
    };
    let mut alone = world(&[(Rtc, "rtc0", 0)]);
    built(&mut alone);
    let verdict = judge(&alone, NOW).expect("the build date");
    assert_eq!((verdict.ahead_ns, verdict.ground, verdict.confidence), (-year, Ground::Built, Certain));
    // Who knows better says by how much.
    let mut asked = world(&[(Ntp, "a", -2 * 365 * 86_400)]);
    built(&mut asked);
    let verdict = judge(&asked, NOW).expect("the server");
    assert_eq!((verdict.ahead_ns, verdict.ground), (-2 * year, Ground::Firm));
    // And a clock that finds nothing wrong is wrong.
    let mut lies = world(&[(Ntp, "a", 0)]);
    built(&mut lies);
    assert_eq!(judge(&lies, NOW).map(|verdict| verdict.ground), Some(Ground::Built));
}

#[test]
fn equal_clocks_that_take_turns_are_named_as_before() {
    let verdict = judge(&world(&[(Http, "192.0.2.1:80", 0), (Http, "192.0.2.2:80", 0)]), NOW).expect("both");
    let (first, other) = (verdict.source.clone(), verdict.others[0].clone());
    let mut same = verdict.clone();
    same.still_by(&first);
    assert_eq!(same, verdict);
    let mut other_first = verdict;
    other_first.still_by(&other);
    assert_eq!((other_first.source, other_first.others), (other, vec![first]));
}

#[test]
fn a_server_that_hands_out_an_old_date_counts_for_nothing() {
    let mut world = World::default();
    world.apply_context(&Context::Clock { boot_ns: 0, offset_ns: 0 });
    for at in [0, 10, 20] {
        let reading = Reading {
            boot_ns: at * SECOND_NS,
            kind: Http,
            name: "192.0.2.1:80".into(),
            // The same date each time.
            utc_ns: -(at as i64) * SECOND_NS as i64 - 9000 * SECOND_NS as i64,
            error_ns: SECOND_NS,
        };
        world.apply_context(&Context::Reference(reading));
        assert_eq!(judge(&world, at * SECOND_NS), None);
    }
}

#[test]
fn a_machine_that_stood_still_is_believed_to_even_if_the_kernel_thinks_it_is_right() {
    let mut world = world(&[(Kernel, "kernel", 0), (Rtc, "rtc0", 0)]);
    let day = 86_400 * SECOND_NS as i64;
    let at = NOW + 10 * SECOND_NS;
    let reading = |kind, name: &str, utc_ns| Reading {
        boot_ns: at,
        kind,
        name: name.into(),
        utc_ns,
        error_ns: SECOND_NS,
    };
    world.apply_context(&Context::Reference(reading(Rtc, "rtc0", day)));
    world.apply_context(&Context::Reference(reading(Kernel, "kernel", 0)));
    let verdict = judge(&world, at).expect("readings");
    assert_eq!((verdict.ahead_ns, verdict.confidence), (-day, Likely));
    assert_eq!(verdict.leap.map(|leap| leap.missed_ns), Some(day));
    assert_eq!(verdict.against, [(Kernel, "kernel".to_owned())]);
}

#[test]
fn a_hardware_clock_in_local_time_is_named_and_harmless() {
    let world = world(&[(Kernel, "kernel", 0), (Rtc, "rtc0", -7200)]);
    let verdict = judge(&world, NOW).expect("the kernel");
    assert_eq!(verdict.ahead_ns, 0);
    assert_eq!(verdict.zones, [((Rtc, "rtc0".to_owned()), -7200 * SECOND_NS as i64)]);
}

/// What is known at [`NOW`] of a clock whose tick was set 44 s before, by another one read 55 s before.
fn aged(kind: ReferenceKind, tick_us: i64) -> (i64, u64) {
    let mut world = World::default();
    world.apply_context(&Context::Clock { boot_ns: 0, offset_ns: 0 });
    world.apply_context(&Context::Tick { boot_ns: NOW - 44 * SECOND_NS, tick_us });
    world.apply_context(&Context::Reference(Reading {
        boot_ns: NOW - 55 * SECOND_NS,
        kind,
        name: "a".into(),
        utc_ns: -SECOND_NS.cast_signed(),
        error_ns: 0,
    }));
    let verdict = judge(&world, NOW).expect("one that is believed");
    (verdict.ahead_ns / 1_000_000, verdict.error_ns / 1_000_000)
}

#[test]
fn a_reading_ages_by_the_rate_at_which_a_wrong_tick_has_the_clock_run() {
    // 44 s of a clock that is ten percent fast are 40 s.
    assert_eq!(aged(Ntp, 11_000), (1000 + 4000, 85));
    assert_eq!(aged(Ntp, 9_000).0, 1000 - 4888);
    // A tick that a time daemon's frequency would make up for, and what the same clock says of itself.
    assert_eq!((aged(Ntp, 10_004).0, aged(Kernel, 11_000).0), (1000, 1000));
}
