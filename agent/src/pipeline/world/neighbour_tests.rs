//! What is emitted of sequences of records, and what is not.

use ebpf_probes::{
    abi::{IPPROTO_TCP, Owner, Tuple},
    probes::neigh::{
        ClaimRecord, NeighRecord, UnheardRecord, WaiterRecord, cause, flag,
        state::{DELAY, FAILED, INCOMPLETE, NOARP, NONE, PERMANENT, PROBE, REACHABLE, STALE},
        unheard,
    },
};

use super::World;
use crate::{
    domains::{
        Event, Fact, Record, What,
        neighbour::{self, NeighbourCause, NeighbourChanged, Retransmitted, mac, state_name},
    },
    records,
};

const NO_MAC: u8 = 0;
const A: u8 = 1;
const B: u8 = 2;

/// One record: what made it, its flags, the state and the MAC the entry has then, and its count of probes.
type Step = (u32, u32, u32, u8, u32);

/// A world that watches one entry of eth0.
#[derive(Default)]
struct Watched {
    world: World,
    now_ns: u64,
    state: u32,
    mac: u8,
    facts: Vec<Fact>,
}

impl Watched {
    fn apply(&mut self, what: Record) {
        let event = Event { boot_ns: self.now_ns, what };
        self.world.apply(&event, |fact| self.facts.push(fact));
    }

    fn step(&mut self, (cause, flags, state, mac, probes): Step) {
        let bytes = |mac| if mac == NO_MAC { [0; 8] } else { [2, 0, 0, 0, 0, mac, 0, 0] };
        let mut record = NeighRecord {
            address: records::address_bytes([10, 0, 1, 90].into()),
            device: *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0",
            netns: 7,
            ifindex: 2,
            old_mac: bytes(self.mac),
            new_mac: bytes(mac),
            state_since_ns: self.now_ns,
            cause,
            flags,
            old_state: self.state,
            new_state: state,
            probes,
            mac_len: 6,
            ..NeighRecord::default()
        };
        if flags & flag::BY_HAND != 0 {
            record.owner = Owner { process: 4711, thread: 4711, ..Owner::default() };
        }
        (self.state, self.mac) = (state, mac);
        // A tenth of a millisecond: what one system call does in two steps.
        self.now_ns += 100_000;
        self.apply(Record::Neighbour(neighbour::Record::Change(record)));
    }

    fn waiter(&mut self, cookie: u64, remote_port: u16) {
        let tuple = Tuple { remote_port, protocol: IPPROTO_TCP, ..Tuple::default() };
        let address = records::address_bytes([10, 0, 1, 90].into());
        let record = WaiterRecord {
            address,
            tuple,
            cookie,
            netns: 7,
            ifindex: 2,
            queued: 1,
            ..WaiterRecord::default()
        };
        self.apply(Record::Neighbour(neighbour::Record::Waiter(record)));
    }

    fn later(&mut self) {
        self.now_ns += 1_000_000_000;
        self.apply(Record::Tick);
    }

    fn changes(&self) -> Vec<&NeighbourChanged> {
        self.facts
            .iter()
            .filter_map(|fact| match &fact.what {
                What::Neighbour(neighbour::What::NeighbourChanged(change)) => Some(change),
                _ => None,
            })
            .collect()
    }
}

/// What a sequence of records comes to: the meanings emitted, in JSON's words.
fn meanings(steps: &[Step]) -> Vec<String> {
    let mut watched = Watched::default();
    steps.iter().for_each(|step| watched.step(*step));
    watched.later();
    let name = |change: &NeighbourChanged| {
        serde_json::to_value(change.transition).expect("JSON").as_str().expect("a word").to_owned()
    };
    watched.changes().into_iter().map(name).collect()
}

const UPDATED: u32 = cause::UPDATED;
const TIMER: u32 = cause::TIMER;
const SENT: u32 = cause::SENT;
const REMOVED: u32 = cause::REMOVED;
const FIRST: u32 = flag::FIRST;
const BY_HAND: u32 = flag::BY_HAND;
const FAILED_BETWEEN: u32 = flag::FAILED_BETWEEN;

const ASKED: Step = (SENT, FIRST, INCOMPLETE, NO_MAC, 4);
const ANSWERED: Step = (UPDATED, 0, REACHABLE, A, 4);

#[test]
fn records_become_one_fact_a_change_of_meaning() {
    let table: &[(&str, &[Step], &[&str])] = &[
        ("a resolution", &[ASKED, ANSWERED], &["resolving", "resolved"]),
        (
            "an entry's clockwork",
            &[
                ASKED,
                ANSWERED,
                (TIMER, 0, STALE, A, 0),
                (SENT, 0, DELAY, A, 0),
                (TIMER, 0, PROBE, A, 1),
                (TIMER, 0, PROBE, A, 2),
                (UPDATED, 0, REACHABLE, A, 2),
            ],
            &["resolving", "resolved"],
        ),
        (
            "unanswered questions",
            &[
                ASKED,
                (TIMER, 0, INCOMPLETE, NO_MAC, 5),
                (TIMER, 0, INCOMPLETE, NO_MAC, 6),
                (TIMER, 0, FAILED, NO_MAC, 6),
            ],
            &["resolving", "failed"],
        ),
        (
            "unanswered questions for traffic that goes on",
            &[
                ASKED,
                (TIMER, 0, INCOMPLETE, NO_MAC, 5),
                (SENT, FAILED_BETWEEN, INCOMPLETE, NO_MAC, 4),
                (TIMER, 0, INCOMPLETE, NO_MAC, 5),
                (UPDATED, 0, REACHABLE, B, 5),
            ],
            &["resolving", "failed", "resolved"],
        ),
        (
            "a failed entry that is asked for again",
            &[ASKED, (TIMER, 0, FAILED, NO_MAC, 6), (SENT, 0, INCOMPLETE, NO_MAC, 4), ANSWERED],
            &["resolving", "failed", "resolving", "resolved"],
        ),
        (
            "an unanswered confirmation",
            &[ASKED, ANSWERED, (TIMER, 0, PROBE, A, 1), (TIMER, 0, FAILED, A, 3)],
            &["resolving", "resolved", "failed"],
        ),
        (
            "an unanswered confirmation, asked for again",
            &[ASKED, ANSWERED, (TIMER, 0, PROBE, A, 1), (SENT, FAILED_BETWEEN, INCOMPLETE, A, 4)],
            &["resolving", "resolved", "failed"],
        ),
        (
            "another MAC",
            &[ASKED, ANSWERED, (UPDATED, 0, STALE, B, 0), (SENT, 0, DELAY, B, 0)],
            &["resolving", "resolved", "mac_changed"],
        ),
        (
            "another MAC after a failure",
            &[
                ASKED,
                ANSWERED,
                (TIMER, 0, FAILED, A, 3),
                (SENT, 0, INCOMPLETE, A, 4),
                (UPDATED, 0, REACHABLE, B, 4),
            ],
            &["resolving", "resolved", "failed", "resolving", "mac_changed"],
        ),
        ("who asked us", &[(UPDATED, FIRST, STALE, A, 0), (SENT, 0, DELAY, A, 0)], &["learned"]),
        ("an entry older than culprit", &[(TIMER, FIRST, STALE, A, 0), (SENT, 0, DELAY, A, 0)], &[]),
        (
            "an entry set by hand, even to what it was",
            &[
                (UPDATED, BY_HAND, PERMANENT, B, 0),
                (UPDATED, BY_HAND, STALE, B, 0),
                (REMOVED, 0, NONE, NO_MAC, 0),
            ],
            &["set", "set", "removed"],
        ),
        (
            "a removal by hand",
            &[ASKED, ANSWERED, (UPDATED, BY_HAND, FAILED, A, 0), (REMOVED, 0, NONE, NO_MAC, 0)],
            &["resolving", "resolved", "removed"],
        ),
        (
            "a failure by hand",
            &[ASKED, ANSWERED, (UPDATED, BY_HAND, FAILED, A, 0)],
            &["resolving", "resolved", "set"],
        ),
        (
            "a failure by hand, asked for at once",
            &[ASKED, ANSWERED, (UPDATED, BY_HAND, FAILED, A, 0), (SENT, 0, INCOMPLETE, A, 4)],
            &["resolving", "resolved", "set", "resolving"],
        ),
        (
            "garbage",
            &[ASKED, ANSWERED, (TIMER, 0, STALE, A, 0), (REMOVED, 0, NONE, NO_MAC, 0)],
            &["resolving", "resolved", "removed"],
        ),
        ("an entry made and never used", &[(REMOVED, FIRST, NONE, NO_MAC, 0)], &[]),
        (
            "no more resolution",
            &[ASKED, ANSWERED, (UPDATED, 0, NOARP, A, 0), (UPDATED, 0, NOARP, A, 0)],
            &["resolving", "resolved", "noarp"],
        ),
        (
            "a packet that came too late",
            &[ASKED, (cause::DEAD, 0, INCOMPLETE, NO_MAC, 0)],
            &["resolving", "packet_dropped"],
        ),
    ];
    for (name, steps, expected) in table {
        assert_eq!(meanings(steps), *expected, "{name}");
    }
}

#[test]
fn a_failure_counts_the_questions_and_not_the_kernel_s_setting() {
    let mut watched = Watched::default();
    let ticks = [(TIMER, 0, INCOMPLETE, NO_MAC, 5), (TIMER, 0, INCOMPLETE, NO_MAC, 6)];
    let again = [(SENT, FAILED_BETWEEN, INCOMPLETE, NO_MAC, 4), ticks[0], (TIMER, 0, FAILED, NO_MAC, 0)];
    [ASKED].iter().chain(&ticks).chain(&again).for_each(|step| watched.step(*step));
    let counts: Vec<_> = watched.changes().iter().map(|change| (change.failed, change.unanswered)).collect();
    assert_eq!(counts, [(false, None), (true, Some(3)), (true, Some(2))]);
}

#[test]
fn a_failure_of_which_not_all_was_seen_counts_nothing() {
    let mut watched = Watched::default();
    watched.step((TIMER, FIRST, INCOMPLETE, NO_MAC, 5));
    watched.step((TIMER, 0, FAILED, NO_MAC, 6));
    assert_eq!(watched.changes().last().expect("emitted").unanswered, None);
}

#[test]
fn a_removal_by_hand_names_its_author_and_what_was_lost() {
    let mut watched = Watched::default();
    for step in [ASKED, ANSWERED, (UPDATED, BY_HAND, FAILED, A, 0), (REMOVED, 0, NONE, NO_MAC, 0)] {
        watched.step(step);
    }
    let removed = watched.changes().last().copied().expect("emitted").clone();
    assert_eq!((removed.cause, removed.failed), (NeighbourCause::Removed, false));
    assert_eq!(removed.old_state.as_deref(), Some("REACHABLE"));
    assert_eq!(removed.old_mac.as_deref(), Some("02:00:00:00:00:01"));
    let process = watched.facts.last().and_then(|fact| fact.process.as_ref());
    assert_eq!(process.map(|process| process.pid), Some(4711));
}

#[test]
fn a_failure_by_hand_is_reported_with_the_moment_it_happened() {
    let mut watched = Watched::default();
    watched.step((UPDATED, BY_HAND, FAILED, A, 0));
    let at = watched.now_ns;
    assert!(watched.facts.is_empty());
    watched.later();
    assert_eq!(watched.facts.iter().map(|fact| fact.boot_ns).collect::<Vec<_>>(), [at]);
}

#[test]
fn a_waiter_is_reported_once_while_it_waits() {
    let mut watched = Watched::default();
    watched.step(ASKED);
    for _ in 0..3 {
        watched.waiter(11, 80);
        watched.waiter(0, 80);
        watched.waiter(0, 81);
        watched.step((TIMER, 0, INCOMPLETE, NO_MAC, 5));
    }
    let waiters = |watched: &Watched| {
        watched
            .facts
            .iter()
            .filter(|fact| matches!(fact.what, What::Neighbour(neighbour::What::NeighbourPacketQueued(_))))
            .count()
    };
    assert_eq!(waiters(&watched), 3);
    watched.step((SENT, FAILED_BETWEEN, INCOMPLETE, NO_MAC, 4));
    watched.waiter(11, 80);
    assert_eq!(waiters(&watched), 4);
}

#[test]
fn silence_is_remembered_of_records_that_are_not_reported() {
    let mut watched = Watched::default();
    watched.step(ASKED);
    watched.step((TIMER, 0, INCOMPLETE, NO_MAC, 5));
    let address = records::address_bytes([10, 0, 1, 90].into());
    assert!(
        watched
            .world
            .silent_neighbour(ebpf_probes::abi::Netns::numbered(7), address, watched.now_ns)
            .is_some()
    );
    watched.step(ANSWERED);
    assert!(
        watched
            .world
            .silent_neighbour(ebpf_probes::abi::Netns::numbered(7), address, watched.now_ns)
            .is_none()
    );
}

#[test]
fn who_does_not_hear_us_and_who_does_after_all_are_two_kinds() {
    let mut watched = Watched::default();
    for what in [unheard::SYN_ACK, unheard::ANSWERED] {
        let record = UnheardRecord { what, unanswered: 3, ..UnheardRecord::default() };
        watched.apply(Record::Neighbour(neighbour::Record::Unheard(record)));
    }
    watched.apply(Record::Neighbour(neighbour::Record::Claim(ClaimRecord::default())));
    let [Fact { what: What::Neighbour(neighbour::What::NeighbourRetransmit(unheard)), .. }, heard, claimed] =
        &watched.facts[..]
    else {
        panic!("{:?}", watched.facts);
    };
    assert_eq!((unheard.packet, unheard.unanswered), (Retransmitted::SynAck, 3));
    assert!(matches!(heard.what, What::Neighbour(neighbour::What::NeighbourRecovered(_))));
    assert!(matches!(claimed.what, What::Neighbour(neighbour::What::NeighbourClaimed(_))));
}

#[test]
fn states_are_written_as_ip_neigh_writes_them() {
    assert_eq!(state_name(STALE), "STALE");
    assert_eq!(state_name(0), "NONE");
}

#[test]
fn an_address_of_zeros_is_none() {
    assert_eq!(mac(&[0; 8], 6), None);
    assert_eq!(mac(&[2, 0, 0, 0, 0, 1, 0, 0], 6).as_deref(), Some("02:00:00:00:00:01"));
}
