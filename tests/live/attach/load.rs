//! What it costs to start, and what culprit reports when it cannot keep up. These tests make load or measure, so they
//! run one at a time, after all others.

mod busy;

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::{
    harness::{
        Culprit, Fact, Netns,
        culprit::Ended,
        port, slow,
        sockets::listen,
        tls::{Identity, handshake},
    },
    needs,
    tls::handshakes::step,
};

/// How many connects are a burst: more than a ring of one MiB holds. An emulated machine makes hundreds a second.
fn burst_size() -> u64 {
    if slow() > 1.0 { 5_000 } else { 20_000 }
}

/// Refused connects, as fast as one thread can, while `culprit` looks on or does not.
fn burst(args: &str, asleep: bool) -> Ended {
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace(&format!("--probes connect --port {} {args}", to.port()));
    if asleep {
        culprit.running().signal(Signal::STOP);
    }
    netns.enter(move || {
        for _ in 0..burst_size() {
            TcpStream::connect(to).expect_err("nothing listens");
        }
    });
    if asleep {
        culprit.running().signal(Signal::CONT);
    }
    let ended = culprit.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    ended
}

/// Each connect makes two records: each was emitted or counted as lost, none twice. Of what the kernel left out, only how
/// much it was at most is known.
#[track_caller]
fn adds_up(ended: &Ended) -> u64 {
    let emitted =
        ended.facts.iter().filter(|fact| ["connect_started", "connect_ended"].contains(&fact.kind())).count();
    let all = ended.summary["lost"].as_u64().expect("a number");
    let missed = missed(ended);
    let lost = all - missed;
    let seen = emitted as u64 + lost;
    let expected = 2 * burst_size();
    assert!(
        seen <= expected && seen + missed >= expected,
        "{seen} and {missed} missed of {expected}: {}\n{}",
        ended.summary,
        ended.stderr
    );
    lost
}

/// Runs of programs that the kernel left out.
fn missed(ended: &Ended) -> u64 {
    let losses = ended.summary["lost_by"].as_array().expect("a list");
    let missed = losses.iter().filter(|loss| loss["reason"] == "missed");
    missed.map(|loss| loss["count"].as_u64().expect("a number")).sum()
}

/// The kernel leaves out what begins on a processor while the same program runs there: where tracepoints may be
/// preempted, busy processes do so to each other all the time.
#[test]
fn connects_the_kernel_does_not_show_are_counted_and_never_reported_as_stalled() {
    needs!(Perl);
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace(&format!("--probes connect --port {}", to.port()));
    let script = format!(
        "use IO::Socket::INET; my $end = time + 8; \
         while (time < $end) {{ IO::Socket::INET->new(PeerAddr => '{to}', Timeout => 1) }}"
    );
    let processes: Vec<_> = (0..5)
        .map(|_| {
            let mut perl = Command::new("perl");
            perl.args(["-e", &script]);
            netns.spawn(perl)
        })
        .collect();
    for mut process in processes {
        process.wait();
    }
    // Longer than it takes for one that is still pending to send its SYN again and to count as stalled.
    thread::sleep(Duration::from_secs(4));
    let ended = culprit.stop();
    let of = |outcome: &str| {
        let is = |fact: &&Fact| fact.kind() == "connect_ended" && fact.text("outcome") == outcome;
        ended.facts.iter().filter(is).count() as u64
    };
    assert!(of("refused") > 0, "{}", ended.summary);
    assert_eq!(of("failed") + of("aborted"), 0, "{}", ended.summary);
    assert!(of("unseen") <= missed(&ended), "{} unseen: {}", of("unseen"), ended.summary);
    let stalled: Vec<_> =
        ended.incidents.iter().filter(|incident| incident.text("/kind") == "connect_stalled").collect();
    assert!(stalled.is_empty(), "{stalled:?}");
}

#[test]
fn in_a_burst_of_connects_each_is_emitted_or_counted_as_lost() {
    needs!();
    let ended = burst("", false);
    let lost = adds_up(&ended);
    if lost == 0 {
        assert!(ended.stderr.contains("none lost"), "{}", ended.stderr);
    }
}

#[test]
fn losses_of_a_ring_that_is_not_read_are_counted_to_the_last_record() {
    needs!();
    let ended = burst("--ring-mib 1", true);
    let lost = adds_up(&ended);
    assert!(lost > 0, "1 MiB cannot hold them all: {}", ended.summary);
    assert_eq!(ended.summary["lost_by"][0]["reason"], "ring_full");
    assert!(ended.stderr.contains(&format!("{lost} LOST")), "{}", ended.stderr);
}

#[test]
fn it_attaches_within_a_second() {
    needs!(MeasuredTime);
    // Other programs of this machine may run beside it: the best of a few tries is what it costs.
    let best = (0..5).map(|_| {
        let before = Instant::now();
        let culprit = Culprit::trace("");
        let took = before.elapsed();
        culprit.stop();
        took
    });
    let best = best.min().expect("five tries");
    assert!(best.as_secs_f64() <= 1.0, "{best:?}");
}

#[test]
fn it_stays_within_forty_mebibytes() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    netns.enter(move || {
        for _ in 0..1000 {
            TcpStream::connect(to).expect_err("nothing listens");
        }
    });
    culprit.settle(&netns);
    let status = std::fs::read_to_string(format!("/proc/{}/status", culprit.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib <= 40 * 1024, "{kib} KiB");
}

/// More than there are handshakes followed at most, each of which shows one byte that may begin a ClientHello.
#[test]
fn hellos_that_never_end_do_not_keep_others_from_being_seen_for_long() {
    needs!(Openssl, MeasuredTime);
    // Each is one of its client and one of its server.
    const MANY: usize = 9_000;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("any process may");
    let (netns, identity) = (Netns::make(), Identity::make());
    let at = SocketAddr::new(netns.loopback(), port());
    let service = SocketAddr::new(netns.loopback(), port());
    let server = identity.server(&netns, service, "");
    let listener = listen(&netns, at);
    let culprit = Culprit::trace("--probes tls");
    let held = netns.enter(move || {
        let begin = |_| {
            let mut stream = TcpStream::connect(at).expect("it listens");
            stream.write_all(&[0x16]).expect("room");
            (stream, listener.accept().expect("a client").0)
        };
        (0..MANY).map(begin).collect::<Vec<_>>()
    });
    // As long as a ClientHello may take to come.
    std::thread::sleep(Duration::from_secs(11));
    let mut client = identity.client(|_| ());
    netns.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        handshake(&mut client, &mut stream).expect("they agree");
    });
    assert_eq!(step(&culprit, "server", service, "handshake_done").pid(), server.pid());
    step(&culprit, "client", service, "handshake_done");
    drop(held);
    let ended = culprit.stop();
    let lost = ended.summary["lost_by"].as_array().expect("what was lost").clone();
    assert!(lost.iter().any(|lost| lost["reason"] == "map_full"), "{}", ended.summary);
}
