//! The store, with real files: what it survives, and what it refuses.

use std::{
    fs,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    deliveries::Subscriptions,
    read::{Found, Query},
    write::Options,
    *,
};
use crate::{
    fact::Endpoint,
    outputs::{
        Rendered, STORE, WEBHOOK,
        queue::{Counts, Sink},
    },
    pipeline::incident::{ConnectStalledDetails, Details, Incident, Kind, SCHEMA, Severity, State},
};

pub(in crate::outputs) fn incident(number: u32, state: State) -> Incident {
    let at = format!("2026-11-21T10:00:{:02}Z", number % 60);
    Incident {
        schema: SCHEMA,
        id: format!("01M7YXD271WZS0KCJEEW{number:06}"),
        kind: if number.is_multiple_of(2) { Kind::ConnectStalled } else { Kind::ConnectFailing },
        state,
        severity: if number.is_multiple_of(3) { Severity::Critical } else { Severity::Warning },
        began_at: at.clone(),
        opened_at: at.clone(),
        resolved_at: (state == State::Resolved).then_some(at),
        duration_ms: 1,
        count: 1,
        node: "node".into(),
        process: None,
        summary: format!("raven's connect number {number} is unanswered"),
        why: vec![],
        cause: None,
        caused_by: vec![],
        remedies: vec![],
        evidence: vec![],
        details: Details::ConnectStalled(ConnectStalledDetails {
            destination: Endpoint { ip: [10, 0, 0, 1].into(), port: 80, name: None, wire: None },
            pending_ms: 1,
            waiting: 1,
            syn_retransmits: 0,
            dropped_by_host: 0,
            drop_reason: None,
            since_before_start: false,
            destinations: 1,
            worst: vec![],
            validates: vec![],
        }),
    }
}

struct Room {
    directory: tempfile::TempDir,
    keep: Retention,
    urls: Vec<String>,
}

impl Room {
    fn new() -> Self {
        let keep = Retention { age: Duration::from_secs(3600), bytes: 1 << 30 };
        Self { directory: tempfile::tempdir().expect("a directory"), keep, urls: vec![] }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("below/culprit.db")
    }

    fn open(&self) -> Store {
        let (store, aside) = Store::open(&self.path()).expect("room");
        assert_eq!(aside, None);
        store
    }

    fn writer(&self, store: &Store) -> Writer {
        let subscriptions = Subscriptions { urls: self.urls.clone(), severity: Severity::Critical };
        let options = Arc::new(Mutex::new(Options { retention: self.keep, subscriptions }));
        Writer::new(store.clone(), options, Counts::new(WEBHOOK), Box::new(|_| {})).expect("room")
    }
}

fn put(writer: &mut Writer, incidents: impl IntoIterator<Item = Incident>) -> Arc<Counts> {
    let counts = Counts::new(STORE);
    let rendered: Vec<_> = incidents.into_iter().map(Rendered::new).collect();
    writer.take(&rendered, &counts);
    counts
}

fn ids(store: &Store, query: &Query) -> Vec<u32> {
    let (kept, _) = store.incidents(query).expect("readable");
    kept.iter().map(|kept| kept.id[20..].parse().expect("a number")).collect()
}

#[test]
fn incidents_are_found_by_what_they_are_newest_first() {
    let room = Room::new();
    let store = room.open();
    let mut writer = room.writer(&store);
    put(&mut writer, (0..10).map(|number| incident(number, State::Open)));
    put(&mut writer, (0..5).map(|number| incident(number, State::Resolved)));
    let all = Query::default();
    assert_eq!(ids(&store, &all), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(ids(&store, &Query { open: Some(true), ..all.clone() }), [9, 8, 7, 6, 5]);
    assert_eq!(ids(&store, &Query { severity: Severity::Critical, ..all.clone() }), [9, 6, 3, 0]);
    let failing = vec!["connect_failing".to_owned()];
    assert_eq!(ids(&store, &Query { kinds: failing, open: Some(false), ..all.clone() }), [3, 1]);
    assert_eq!(ids(&store, &Query { text: Some("NUMBER 7".into()), ..all.clone() }), [7]);
    let at = |seconds: i64| Some(1_795_255_200_000 + seconds * 1000);
    assert_eq!(ids(&store, &Query { since_ms: at(3), until_ms: at(6), ..all.clone() }), [6, 5, 4, 3]);
    let (page, more) = store.incidents(&Query { limit: 3, ..all.clone() }).expect("readable");
    assert!(more && page.len() == 3);
    let before = Some(page[2].id.clone());
    assert_eq!(ids(&store, &Query { before, limit: 3, ..all }), [6, 5, 4]);
}

#[test]
fn an_incident_is_found_by_the_end_of_its_id() {
    let room = Room::new();
    let store = room.open();
    let mut writer = room.writer(&store);
    put(&mut writer, [incident(111_234, State::Open), incident(221_234, State::Open)]);
    assert!(matches!(store.incident("111234"), Ok(Found::One(kept)) if kept.text.contains("number 111234")));
    assert!(matches!(store.incident("01m7yxd271wzs0kcjeew221234"), Ok(Found::One(_))));
    assert!(matches!(store.incident("1234"), Ok(Found::Several(ids)) if ids.len() == 2));
    assert!(matches!(store.incident("9999"), Ok(Found::Nothing)));
    assert!(matches!(store.incident("%"), Ok(Found::Nothing)));
}

#[test]
fn what_was_open_when_the_daemon_went_is_closed_by_the_next() {
    let room = Room::new();
    let store = room.open();
    put(&mut room.writer(&store), [incident(1, State::Open), incident(2, State::Resolved)]);
    drop(store);
    let store = room.open();
    let _writer = room.writer(&store);
    assert!(ids(&store, &Query { open: Some(true), ..Query::default() }).is_empty());
    let Ok(Found::One(kept)) = store.incident("000001") else { panic!("it is gone") };
    let json: serde_json::Value = serde_json::from_str(&kept.json).expect("JSON");
    assert_eq!(json["state"], "resolved");
    assert!(json["resolved_at"].is_string());
    assert!(json["why"][0].as_str().is_some_and(|why| why.contains("culprit stopped watching")));
    assert!(kept.text.contains("culprit stopped watching"));
    let headline = kept.text.lines().find(|line| line.contains("since")).expect("a headline");
    assert!(headline.contains("watched until culprit stopped"), "{headline}");
}

#[test]
fn a_damaged_store_is_set_aside_and_a_new_one_begun() {
    let room = Room::new();
    for damage in [0, 1] {
        let store = room.open();
        put(&mut room.writer(&store), (0..50).map(|number| incident(number, State::Open)));
        drop(store);
        let mut bytes = fs::read(room.path()).expect("a file");
        match damage {
            0 => bytes[..100].fill(0xa5),
            // A page in the middle.
            _ => bytes[8192..12288].fill(0xa5),
        }
        fs::write(room.path(), &bytes).expect("room");
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(beside(&room.path(), suffix));
        }
        let (store, aside) = Store::open(&room.path()).expect("a new one");
        let aside = aside.expect("it was damaged");
        assert_eq!(fs::read(&aside).expect("it is still there"), bytes);
        assert!(ids(&store, &Query::default()).is_empty());
        put(&mut room.writer(&store), [incident(1, State::Open)]);
        assert_eq!(ids(&store, &Query::default()), [1]);
        drop(store);
        fs::remove_file(room.path()).expect("it is there");
        fs::remove_file(aside).expect("it is there");
    }
}

#[test]
fn a_store_damaged_while_it_is_open_costs_no_incident_that_comes() {
    let room = Room::new();
    let store = room.open();
    let mut writer = room.writer(&store);
    put(&mut writer, (0..200).map(|number| incident(number, State::Open)));
    store.writer().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("it was whole");
    let len = fs::metadata(room.path()).expect("a file").len() as usize;
    fs::write(room.path(), vec![0xa5; len]).expect("room");
    assert!(store.incidents(&Query::default()).is_err_and(|error| error.is_damage()));
    let counts = put(&mut writer, [incident(7, State::Open)]);
    assert_eq!(counts.emitted.load(Relaxed), 1);
    assert_eq!(ids(&store, &Query::default()), [7]);
}

#[test]
fn another_daemon_s_store_another_s_database_and_a_newer_one_are_left_alone() {
    let room = Room::new();
    let store = room.open();
    assert!(matches!(Store::open(&room.path()), Err(Error::Taken(_))));
    drop(store);
    let connection = Connection::open(room.path()).expect("a database");
    connection.pragma_update(None, "user_version", schema::VERSION + 1).expect("a number");
    let newer = Store::open(&room.path()).err().expect("refused").to_string();
    assert!(newer.contains("use a newer culprit"), "{newer}");
    drop(connection);
    let other = room.directory.path().join("other.db");
    Connection::open(&other)
        .and_then(|connection| connection.execute_batch("CREATE TABLE accounts (id)"))
        .expect("a database");
    let foreign = Store::open(&other).err().expect("refused").to_string();
    assert!(foreign.contains("this is no store of culprit's"), "{foreign}");
    let nowhere = Store::open(Path::new("/proc/nowhere/culprit.db")).err().expect("refused").to_string();
    assert!(nowhere.starts_with("/proc/nowhere: ") && nowhere.contains("--store"), "{nowhere}");
    let absent = Store::look(&room.directory.path().join("absent.db")).err().expect("refused").to_string();
    assert!(absent.contains("there is no store"), "{absent}");
}

#[test]
fn a_store_of_the_first_version_is_brought_up_with_what_it_holds() {
    let room = Room::new();
    fs::create_dir_all(room.path().parent().expect("a directory")).expect("room");
    let connection = Connection::open(room.path()).expect("a database");
    schema::earlier(&connection, 1).expect("made");
    let row = "INSERT INTO incidents VALUES ('01M7YXD271WZS0KCJEEW000042', 'connect_stalled', 2, 0, 1, 1, 1, 1, '{}', 'old')";
    connection.execute(row, []).expect("written");
    drop(connection);
    let store = room.open();
    assert_eq!(ids(&store, &Query::default()), [42]);
    let version = |store: &Store| {
        store.reader().pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).expect("a number")
    };
    assert_eq!((version(&store), store.waiting_deliveries(&[]).expect("a table")), (schema::VERSION, (0, 0)));
}

#[test]
fn incidents_of_earlier_versions_are_served_in_the_names_of_today() {
    let room = Room { urls: vec!["http://a/".into()], ..Room::new() };
    fs::create_dir_all(room.path().parent().expect("a directory")).expect("room");
    let connection = Connection::open(room.path()).expect("a database");
    schema::earlier(&connection, 3).expect("made");
    let (old, new): (Vec<_>, Vec<_>) = renamed::examples().into_iter().unzip();
    for (number, incident) in old.iter().enumerate() {
        let row = "INSERT INTO incidents VALUES (?1, ?2, 2, 0, 1, 1, 1, 1, ?3, 'the text of then', NULL)";
        let kind = incident["kind"].as_str().expect("a kind");
        let id = format!("01M7YXD271WZS0KCJEEW{number:06}");
        connection.execute(row, (&id, kind, incident.to_string())).expect("written");
        let row =
            "INSERT INTO deliveries (url, incident, body, queued_lived_ms) VALUES ('http://a/', ?1, ?2, 1)";
        connection.execute(row, (&id, incident.to_string())).expect("written");
    }
    drop(connection);
    let served = |store: &Store| {
        let (mut kept, _) = store.incidents(&Query::default()).expect("readable");
        kept.reverse();
        for one in &kept {
            assert_eq!(one.text, "the text of then");
            let Ok(Found::One(same)) = store.incident(&one.id) else { panic!("{} is gone", one.id) };
            assert_eq!(same, *one);
        }
        kept.into_iter()
            .map(|kept| serde_json::from_str(&kept.json).expect("JSON"))
            .collect::<Vec<serde_json::Value>>()
    };
    // One that may only look at it changes nothing in it.
    let looked = Store::look(&room.path()).expect("readable");
    assert_eq!(served(&looked), new);
    drop(looked);
    let store = room.open();
    assert_eq!(served(&store), new);
    let delivery = store.next_delivery("http://a/").expect("readable").expect("it waits");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&delivery.body).expect("JSON"), new[0]);
    // It is in the file, not in how it is read.
    let rows: Vec<String> = store
        .reader()
        .prepare("SELECT json FROM incidents ORDER BY id")
        .and_then(|mut all| all.query_map([], |row| row.get(0))?.collect())
        .expect("readable");
    let rows: Vec<serde_json::Value> =
        rows.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    assert_eq!(rows, new);
}

#[test]
fn a_wall_clock_that_jumps_ahead_empties_no_store() {
    let room = Room::new();
    let store = room.open();
    put(&mut room.writer(&store), [incident(1, State::Resolved)]);
    // A year later, by a clock that may be wrong.
    let year = 365 * 86_400_000;
    let seen: i64 = retain::fact(&store.writer(), "seen_wall_ms").expect("readable").expect("noted");
    let (age, _) = retain::begin(&store.writer(), seen + year).expect("noted");
    let keep = Retention { age: Duration::from_secs(2 * 86_400), ..room.keep };
    assert_eq!(retain::forget(&store.writer(), age, keep).expect("done"), 0);
    // What the store has lived through counts.
    let (age, _) = retain::begin(&store.writer(), seen + 2 * year).expect("noted");
    let keep = Retention { age: Duration::from_secs(86_400), ..room.keep };
    assert_eq!(retain::forget(&store.writer(), age, keep).expect("done"), 1);
}

#[test]
fn a_store_stays_within_its_size_and_forgets_the_oldest() {
    let room = Room { keep: Retention { age: Duration::from_secs(3600), bytes: 1 << 20 }, ..Room::new() };
    let store = room.open();
    let mut writer = room.writer(&store);
    for batch in 0..40 {
        put(&mut writer, (0..100).map(|number| incident(batch * 100 + number, State::Resolved)));
    }
    assert!(store.holds().expect("readable").bytes > 1 << 20);
    let mut writer = room.writer(&store);
    let holds = store.holds().expect("readable");
    assert!(holds.bytes <= 1 << 20 && holds.incidents > 100, "{holds:?}");
    assert_eq!(ids(&store, &Query { limit: 1, ..Query::default() }), [3999]);
    // Room that was given back is used again: the file does not grow for ever.
    store.writer().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("written");
    let file = fs::metadata(room.path()).expect("a file").len();
    assert!(file < 4 << 20, "{file}");
    put(&mut writer, [incident(5000, State::Open)]);
}

#[test]
fn deliveries_wait_in_order_and_only_for_what_is_worth_it() {
    let room = Room { urls: vec!["http://a/".into(), "http://b/".into()], ..Room::new() };
    let store = room.open();
    let mut writer = room.writer(&store);
    // 3 is critical, 1 is not; an update that says nothing new is not reported.
    put(&mut writer, [1, 3].map(|number| incident(number, State::Open)));
    put(&mut writer, [incident(3, State::Updated), incident(3, State::Resolved)]);
    let mut states = Vec::new();
    while let Some(delivery) = store.next_delivery("http://a/").expect("readable") {
        let body: serde_json::Value = serde_json::from_str(&delivery.body).expect("JSON");
        states.push((delivery.incident[20..].to_owned(), body["state"].as_str().unwrap_or("").to_owned()));
        store.delivered(delivery.number).expect("written");
    }
    let wanted = [("000003", "open"), ("000003", "resolved")];
    assert_eq!(states, wanted.map(|(id, state)| (id.to_owned(), state.to_owned())));
    assert_eq!(store.waiting_deliveries(&room.urls).expect("readable"), (2, 0));
    // A URL that is no longer named has nothing to wait for.
    assert_eq!(store.waiting_deliveries(&["http://a/".into()]).expect("readable"), (0, 2));
}
