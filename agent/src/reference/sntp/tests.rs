//! A server on the loopback that answers as a test asks.

use std::{net::UdpSocket, thread};

use super::*;
use crate::{clockwatch::Sample, reference::server};

/// Seconds from 1900 to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// Answers `count` questions in its own thread; what `answer` makes of a good answer is sent, if anything.
pub(crate) fn fake(count: usize, answer: impl Fn(Vec<u8>) -> Option<Vec<u8>> + Send + 'static) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    thread::spawn(move || {
        let mut question = [0; 100];
        for _ in 0..count {
            let (len, from) = socket.recv_from(&mut question).expect("a question");
            if let Some(answer) = answer(right(&question[..len], 0)) {
                socket.send_to(&answer, from).expect("sent");
            }
        }
        // A client that still waits does not hear that the port is closed.
        thread::sleep(2 * TIMEOUT);
    });
    server(&address.to_string()).expect("a server")
}

/// The answer of a stratum 2 server with this much seconds added to the wall clock.
fn right(question: &[u8], ahead: i64) -> Vec<u8> {
    assert_eq!((question.len(), question[0] & 0x07), (48, 3), "a client's question");
    let mut answer = vec![0; 48];
    (answer[0], answer[1], answer[2], answer[3]) = (0x24, 2, 6, 0xec);
    answer[4..8].copy_from_slice(&0x0000_8000_u32.to_be_bytes());
    answer[8..12].copy_from_slice(&0x0000_4000_u32.to_be_bytes());
    answer[24..32].copy_from_slice(&question[40..48]);
    let now = stamp(ahead);
    answer[32..40].copy_from_slice(&now);
    answer[40..48].copy_from_slice(&now);
    answer
}

/// The wall clock and so many seconds, as NTP writes it.
fn stamp(ahead: i64) -> [u8; 8] {
    let look = Sample::now();
    let ns = (look.real_ns + look.boot_ns as i64 + ahead * SECOND_NS) as u64;
    let sec = (ns / 1_000_000_000 + NTP_TO_UNIX) << 32;
    (sec | (((ns % 1_000_000_000) << 32) / 1_000_000_000)).to_be_bytes()
}

/// Asks a server whose answers are changed like this.
fn asked(change: impl Fn(&mut Vec<u8>) + Send + 'static) -> Result<Reading, Refusal> {
    let server = fake(1, move |mut answer| {
        change(&mut answer);
        Some(answer)
    });
    let answer = ask(&server);
    if let Err(Refusal { failure, .. }) = &answer {
        assert_eq!(failure.name, server.to_string());
    }
    answer
}

fn why(change: impl Fn(&mut Vec<u8>) + Send + 'static) -> (String, bool) {
    let refusal = asked(change).expect_err("no reading");
    (refusal.failure.why, refusal.kiss)
}

#[test]
fn a_right_answer_agrees_with_the_wall_clock() {
    let reading = asked(|_| ()).expect("a reading");
    let apart = reading.utc_ns.abs_diff(Sample::now().real_ns);
    assert!(apart <= reading.error_ns, "{apart} of {}", reading.error_ns);
    // Half of a root delay of half a second, and a root dispersion of a quarter.
    assert!((500_000_000..1_100_000_000).contains(&reading.error_ns), "{}", reading.error_ns);
    assert_eq!(reading.kind, ReferenceKind::Ntp);
    assert!(reading.boot_ns <= boot_ns());
}

#[test]
fn a_server_is_read_however_far_the_wall_clock_is_off() {
    const YEAR: i64 = 365 * 86_400;
    // 20 years on is beyond the turn of NTP's era.
    for ahead in [935, -935, 20 * YEAR, -20 * YEAR] {
        let server = fake(1, move |mut answer| {
            for at in [32, 40] {
                answer[at..at + 8].copy_from_slice(&stamp(ahead));
            }
            Some(answer)
        });
        let reading = ask(&server).unwrap_or_else(|refusal| panic!("{ahead}: {refusal:?}"));
        let apart = (reading.utc_ns - ahead * SECOND_NS).abs_diff(Sample::now().real_ns);
        assert!(apart <= reading.error_ns, "{ahead}: {apart} of {}", reading.error_ns);
    }
}

#[test]
fn a_slow_answer_has_a_large_error_and_is_right_within_it() {
    let server = fake(1, |answer| {
        thread::sleep(Duration::from_millis(300));
        Some(answer)
    });
    let reading = ask(&server).expect("a reading");
    let apart = reading.utc_ns.abs_diff(Sample::now().real_ns);
    assert!(apart >= 100_000_000 && apart <= reading.error_ns, "{apart} of {}", reading.error_ns);
    assert!(reading.error_ns >= 650_000_000, "{}", reading.error_ns);
}

#[test]
fn a_silent_server_is_given_up() {
    let refusal = ask(&fake(1, |_| None)).expect_err("no answer");
    assert_eq!((refusal.failure.why.as_str(), refusal.kiss), ("no answer within 1 s", false));
}

#[test]
fn a_closed_port_is_reported_at_once() {
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("an address");
    let refusal = ask(&server(&free.to_string()).expect("a server")).expect_err("nothing there");
    assert_eq!(refusal.failure.why, "nothing answers at that port");
}

#[test]
fn a_name_that_cannot_be_resolved_is_reported() {
    let refusal = ask(&server("name.invalid").expect("a server")).expect_err("no such name");
    assert!(refusal.failure.why.starts_with("its name cannot be resolved: "), "{}", refusal.failure.why);
}

#[test]
fn bad_answers_are_named_with_what_is_wrong() {
    assert_eq!(why(|answer| answer.truncate(47)).0, "the answer is shorter than 48 bytes");
    assert_eq!(why(Vec::clear).0, "the answer is shorter than 48 bytes");
    assert_eq!(why(|answer| answer[31] ^= 1).0, "the answer is not to our question");
    assert_eq!(why(|answer| answer[0] = 0x23).0, "the answer is not a server's (mode)");
    assert_eq!(why(|answer| answer[0] = 0x3c).0, "the answer is of another version of NTP");
    assert_eq!(why(|answer| answer[0] |= 0xc0).0, "it is not synchronised itself");
    assert_eq!(why(|answer| answer[1] = 16).0, "it is not synchronised itself");
    assert_eq!(why(|answer| answer[40..48].fill(0)).0, "the answer has no time of sending");
    assert_eq!(why(|answer| answer[8] = 1).0, "it may itself be wrong by 16 s or more");
    assert_eq!(why(|answer| answer[16..24].fill(0xff)).0, "its clock was set later than it answered");
}

#[test]
fn times_that_contradict_each_other_are_no_reading() {
    let contradict = "its times of receiving and sending contradict each other";
    assert_eq!(why(|answer| answer[32..40].fill(0)).0, contradict);
    assert_eq!(why(|answer| answer[32..40].copy_from_slice(&stamp(-60))).0, contradict);
    assert_eq!(why(|answer| answer[32..40].copy_from_slice(&stamp(60))).0, contradict);
}

#[test]
fn a_kiss_of_death_is_reported_and_an_unsynchronised_server_is_none() {
    let kissed = |code: &'static [u8; 4]| {
        why(move |answer| {
            answer[1] = 0;
            answer[12..16].copy_from_slice(code);
        })
    };
    assert_eq!(kissed(b"RATE"), ("it is asked too often (kiss-o'-death RATE)".into(), true));
    assert_eq!(kissed(b"DENY"), ("it refuses us (kiss-o'-death DENY)".into(), true));
    assert_eq!(kissed(b"X\x1b[m"), ("it gives no time (kiss-o'-death X\\u{1b}[m)".into(), true));
    assert_eq!(kissed(b"INIT"), ("it is not synchronised itself".into(), false));
    assert_eq!(kissed(&[0; 4]), ("it is not synchronised itself".into(), false));
}

#[test]
fn questions_do_not_give_the_time_away_and_differ() {
    let (sender, questions) = std::sync::mpsc::channel();
    let server = fake(2, move |answer| {
        sender.send(answer[24..32].to_vec()).expect("something listens");
        Some(answer)
    });
    assert!(ask(&server).is_ok() && ask(&server).is_ok());
    let seconds: Vec<u32> = questions
        .try_iter()
        .map(|stamp| u32::from_be_bytes(stamp[..4].try_into().expect("four bytes")))
        .collect();
    assert_eq!(seconds.len(), 2);
    assert!(seconds[0].abs_diff(seconds[1]) > 5, "{seconds:?}");
}
