//! A stage for rules: records as the kernel and the sweep would write them, in milliseconds from the
//! beginning, and the incidents that come of them.

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, IPPROTO_TCP, Kind as Record, LostRecord, Owner, ProbeId, Stat, Tuple},
    probes::{
        clock::{self, ClockMoved, ClockRecord, ClockSuspended},
        connect::{Connect, ConnectRecord, DropRecord, Dropped, phase},
        neigh::{self, ClaimRecord, NeighRecord, UnheardRecord, WaiterRecord},
        tls::{CLIENT, Handshake, SERVER, TLS_BYTES_HEAD, TlsRecord, UNREAD, stage},
    },
};

use crate::{
    domains::decode,
    fact::{LeapKind, Probes, Reading, ReferenceKind, Thread},
    known::{
        bounded::Table,
        context::{ClockThresholds, Context, Exposed, Posture, ProcessContext, SeenThread, Snapshot},
        select::Select,
    },
    pipeline::{Item, Pipeline},
    pipeline::{
        Request,
        incident::{Cause, Incident, Kind, State},
    },
    records::encode,
    rules::RULES,
};

pub(super) const PROCESS: u32 = 1017;
/// Where scenes begin, in nanoseconds since boot.
const BEGAN: u64 = 100_000_000_000;
/// REALTIME − BOOTTIME there.
const WALL: i64 = 1_760_000_000_000_000_000;

pub(super) struct Scene {
    pipeline: Pipeline,
    pub(super) emitted: Vec<Incident>,
    pub(super) requests: Vec<Request>,
    /// REALTIME − BOOTTIME at the last look at the clocks.
    looked_ns: i64,
    /// Who sets the clock.
    author: u32,
}

pub(super) fn ns(ms: u64) -> u64 {
    BEGAN + ms * 1_000_000
}

fn header<T>(at: u64, kind: Record) -> Header {
    Header { boot_ns: ns(at), kind: kind.0, len: size_of::<T>() as u32 }
}

pub(super) fn owner(process: u32, thread: u32) -> Owner {
    Owner {
        process,
        thread,
        netns: ebpf_probes::abi::Netns::numbered(1),
        comm: *b"raven\0\0\0\0\0\0\0\0\0\0\0",
        ..Owner::default()
    }
}

pub(super) fn v4(last: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last]
}

/// A connect of `thread` to 192.0.2.`to`:80 that began at `at`.
pub(super) fn connect(cookie: u64, thread: u32, to: u8, at: u64) -> Connect {
    Connect {
        cookie,
        owner: owner(PROCESS, thread),
        tuple: Tuple {
            remote: v4(to),
            remote_port: 80,
            family: 2,
            protocol: IPPROTO_TCP,
            ..Tuple::default()
        },
        started_ns: ns(at),
        syns: 1,
        phase: phase::SYN_SENT,
        ..Connect::default()
    }
}

/// A ClientHello that came at `at` and was read by `thread` one millisecond later.
pub(super) fn hello(cookie: u64, thread: u32, at: u64) -> Handshake {
    Handshake {
        cookie,
        owner: owner(PROCESS, thread),
        tuple: Tuple {
            local: v4(1),
            remote: v4(9),
            local_port: 443,
            remote_port: 50_000 + cookie as u16,
            family: 2,
            protocol: IPPROTO_TCP,
        },
        started_ns: ns(at),
        moved_ns: ns(at),
        read_ns: ns(at + 1),
        reader: owner(PROCESS, thread),
        stage: stage::HELLO,
        role: SERVER,
        ..Handshake::default()
    }
}

/// A ClientHello that was not read.
pub(super) fn unread_hello(cookie: u64, at: u64) -> Handshake {
    let unknown = Owner { netns: ebpf_probes::abi::Netns::numbered(1), ..Owner::default() };
    Handshake { owner: unknown, reader: Owner::default(), read_ns: 0, flags: UNREAD, ..hello(cookie, 0, at) }
}

/// The client's side: the server's flight was read, and the client owes its own.
pub(super) fn flight(cookie: u64, thread: u32, at: u64) -> Handshake {
    let mut hs = hello(cookie, thread, at);
    (hs.role, hs.stage, hs.tuple.local_port, hs.tuple.remote_port) =
        (CLIENT, stage::SERVER_FLIGHT, 50_000, 443);
    hs
}

/// Its MAC, as a record holds it.
pub(super) fn mac(last: u8) -> [u8; 8] {
    if last == 0 { [0; 8] } else { [2, 0, 0, 0, 0, last, 0, 0] }
}

/// The entry of 192.0.2.`host` on eth0 goes from one state and MAC to another.
pub(super) fn entry(host: u8, from: (u32, u8), to: (u32, u8)) -> NeighRecord {
    NeighRecord {
        address: v4(host),
        device: *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0",
        old_mac: mac(from.1),
        new_mac: mac(to.1),
        netns: 1,
        ifindex: 2,
        cause: neigh::cause::UPDATED,
        old_state: from.0,
        new_state: to.0,
        family: 2,
        mac_len: 6,
        ..NeighRecord::default()
    }
}

/// A packet of `cookie` waits for 192.0.2.`host`.
pub(super) fn waiter(cookie: u64, host: u8) -> WaiterRecord {
    WaiterRecord {
        address: v4(host),
        tuple: connect(cookie, 1, host, 0).tuple,
        owner: owner(PROCESS, 1),
        cookie,
        netns: 1,
        ifindex: 2,
        queued: 1,
        ..WaiterRecord::default()
    }
}

/// The `unanswered`th SYN-ACK for port 443 to 192.0.2.`host`, whose MAC is cached as 1 and seen as 2 since
/// `seen`, was sent again.
pub(super) fn unheard(host: u8, port: u16, unanswered: u32, seen: u64) -> UnheardRecord {
    UnheardRecord {
        tuple: Tuple {
            local: v4(1),
            remote: v4(host),
            local_port: 443,
            remote_port: port,
            family: 2,
            protocol: IPPROTO_TCP,
        },
        cached_mac: mac(1),
        seen_mac: mac(2),
        seen_since_ns: ns(seen),
        state_since_ns: ns(seen) - 60_000_000_000,
        mac_since_ns: ns(seen) - 60_000_000_000,
        netns: 1,
        ifindex: 2,
        state: neigh::state::STALE,
        what: neigh::unheard::SYN_ACK,
        unanswered,
        seen: unanswered,
        ..UnheardRecord::default()
    }
}

/// A thread as a snapshot shows it.
pub(super) fn thread(tid: u32, posture: Posture, sockets: &[u64]) -> SeenThread {
    let shown = Thread { tid, comm: "raven".into(), state: "S".into(), ..Thread::default() };
    SeenThread { shown, posture, sockets: sockets.to_vec(), ..SeenThread::default() }
}

/// What an incident advises, as it is written.
pub(super) fn advice(incident: &Incident) -> String {
    incident.remedies.iter().map(|remedy| format!("{remedy}\n")).collect()
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with_reasons(&[("SKB_DROP_REASON_NETFILTER_DROP", 8)])
    }

    /// On a kernel with these drop reasons.
    pub(super) fn with_reasons(drop_reasons: &[(&str, u32)]) -> Self {
        Self::with(drop_reasons, Select::default(), ClockThresholds::default())
    }

    /// With these filters.
    pub(super) fn filtered(select: Select) -> Self {
        Self::with(&[], select, ClockThresholds::default())
    }

    /// With these thresholds for the wall clock.
    pub(super) fn with_clock(clock: ClockThresholds) -> Self {
        Self::with(&[], Select::default(), clock)
    }

    fn with(drop_reasons: &[(&str, u32)], select: Select, clock: ClockThresholds) -> Self {
        let mut scene = Self {
            pipeline: Pipeline::new(RULES),
            emitted: vec![],
            requests: vec![],
            looked_ns: WALL,
            author: 4711,
        };
        scene.apply(&Context::Origin {
            version: "0".into(),
            kernel: "6".into(),
            node: "node-7".into(),
            probes: Probes {
                attached: vec!["connect".into(), "tls".into(), "dns".into(), "clock".into()],
                degraded: vec![],
            },
            drop_reasons: drop_reasons.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
            netns: ebpf_probes::abi::Netns::numbered(1),
            select,
            time_zone: Some("Europe/Berlin".into()),
            dns_stall_ms: None,
            clock,
        });
        scene.apply(&Context::Clock { boot_ns: BEGAN, offset_ns: WALL });
        scene.process(PROCESS, &[], 0);
        scene
    }

    /// A process, its ancestors, and when it was started.
    pub(super) fn process(&mut self, pid: u32, ancestors: &[u32], started: u64) {
        self.apply(&Context::Process(ProcessContext {
            pid,
            comm: "raven".into(),
            exe: Some("/usr/bin/raven".into()),
            ancestors: ancestors.to_vec(),
            started_ns: if started == 0 { 1 } else { ns(started) },
            ..ProcessContext::default()
        }));
    }

    pub(super) fn apply(&mut self, context: &Context) {
        self.emitted.extend(self.pipeline.step(Item::Context(context)).incidents);
    }

    pub(super) fn record(&mut self, record: &Bytes) {
        let Ok(event) = decode(record) else { return };
        let step = self.pipeline.step(Item::Event(&event));
        self.emitted.extend(step.incidents);
        self.requests.extend(step.requests);
    }

    pub(super) fn connect(&mut self, at: u64, kind: Record, connect: Connect) {
        let len = size_of::<ConnectRecord>() as u32;
        let header = Header { boot_ns: ns(at), kind: kind.0, len };
        self.record(&encode(ConnectRecord { header, connect }));
    }

    /// So many records of a probe do not arrive.
    pub(super) fn loses(&mut self, at: u64, probe: ProbeId, stat: Stat, count: u64) {
        let header = header::<LostRecord>(at, Record::LOST);
        self.record(&encode(LostRecord { header, probe: probe.0, stat: stat as u32, count }));
    }

    /// How full a table is.
    #[track_caller]
    pub(super) fn table(&self, name: &str) -> Table {
        self.pipeline.tables().into_iter().find(|table| table.name == name).expect("a table of this name")
    }

    /// A packet of a connect is not delivered.
    pub(super) fn dropped(&mut self, at: u64, dropped: Dropped) {
        self.record(&encode(DropRecord {
            header: header::<DropRecord>(at, Record::CONNECT_DROP_PLACE),
            dropped,
        }));
    }

    pub(super) fn tls(&mut self, at: u64, kind: Record, handshake: Handshake) {
        let len = size_of::<TlsRecord>() as u32;
        let header = Header { boot_ns: ns(at), kind: kind.0, len };
        self.record(&encode(TlsRecord { header, handshake }));
    }

    /// Bytes of a hello.
    pub(super) fn bytes(&mut self, at: u64, cookie: u64, hello: u32, data: &[u8]) {
        let len = (TLS_BYTES_HEAD + data.len()) as u32;
        let mut record = encode(Header { boot_ns: ns(at), kind: Record::TLS_BYTES.0, len }).to_vec();
        record.extend(cookie.to_ne_bytes());
        record.extend(hello.to_ne_bytes());
        record.extend([0; 4]);
        record.extend(data);
        self.record(&record.into());
    }

    pub(super) fn neigh(&mut self, at: u64, record: NeighRecord) {
        let header = header::<NeighRecord>(at, Record::NEIGH_CHANGE);
        self.record(&encode(NeighRecord { header, ..record }));
    }

    pub(super) fn waiter(&mut self, at: u64, record: WaiterRecord) {
        let header = header::<WaiterRecord>(at, Record::NEIGH_WAITER);
        self.record(&encode(WaiterRecord { header, ..record }));
    }

    pub(super) fn unheard(&mut self, at: u64, record: UnheardRecord) {
        let header = header::<UnheardRecord>(at, Record::NEIGH_UNHEARD);
        self.record(&encode(UnheardRecord { header, ..record }));
    }

    /// MAC `claimed` claims 192.0.2.`host`, whose MAC 1 was confirmed at `confirmed`.
    pub(super) fn claim(&mut self, at: u64, host: u8, claimed: u8, confirmed: u64) {
        self.record(&encode(ClaimRecord {
            header: header::<ClaimRecord>(at, Record::NEIGH_CLAIM),
            address: v4(host),
            cached_mac: mac(1),
            claimed_mac: mac(claimed),
            confirmed_ns: ns(confirmed),
            netns: 1,
            ifindex: 2,
            state: neigh::state::REACHABLE,
            ..ClaimRecord::default()
        }));
    }

    /// A call of `who` sets the length of a tick.
    pub(super) fn sets_tick(&mut self, at: u64, who: &str, tick: i64) {
        let mut owner = owner(self.author, self.author);
        owner.comm = [0; 16];
        owner.comm[..who.len()].copy_from_slice(who.as_bytes());
        self.record(&encode(ClockRecord {
            header: header::<ClockRecord>(at, Record::CLOCK_SET),
            owner,
            entered_ns: ns(at),
            call: clock::call::CLOCK_ADJTIME,
            modes: clock::mode::TICK,
            tick,
            flags: clock::flag::TICK,
            ..ClockRecord::default()
        }));
        self.apply(&Context::Tick { boot_ns: ns(at), tick_us: tick });
    }

    /// A call of `who` moves the clock.
    pub(super) fn sets_clock(&mut self, at: u64, who: &str, delta_ms: i64) {
        let mut owner = owner(self.author, self.author);
        owner.comm = [0; 16];
        owner.comm[..who.len()].copy_from_slice(who.as_bytes());
        let mut record = ClockRecord {
            header: header::<ClockRecord>(at, Record::CLOCK_SET),
            owner,
            entered_ns: ns(at),
            after_ns: delta_ms.saturating_mul(1_000_000),
            call: clock::call::CLOCK_SETTIME,
            flags: clock::flag::OFFSETS | clock::flag::STEP,
            parent: 4700,
            parent_comm: *b"bash\0\0\0\0\0\0\0\0\0\0\0\0",
            ..ClockRecord::default()
        };
        record.exe[0][..who.len()].copy_from_slice(who.as_bytes());
        record.exe[1][..3].copy_from_slice(b"bin");
        self.record(&encode(record));
    }

    /// The clock is found to have moved since a look 250 ms before.
    pub(super) fn clock_moved(&mut self, at: u64, delta_ms: i64, was_set: bool) {
        let before_ns = self.looked_ns;
        self.looked_ns = self.pipeline.world().offset_ns().saturating_add(delta_ms.saturating_mul(1_000_000));
        self.record(&encode(ClockMoved {
            header: header::<ClockMoved>(at, Record::CLOCK_MOVED),
            looked_ns: ns(at - 250),
            before_ns,
            after_ns: self.looked_ns,
            was_set: u32::from(was_set),
            pad: 0,
        }));
    }

    /// The machine is found to have slept since a look 250 ms before.
    pub(super) fn slept(&mut self, at: u64, slept_ms: i64) {
        self.record(&encode(ClockSuspended {
            header: header::<ClockSuspended>(at, Record::CLOCK_SUSPENDED),
            looked_ns: ns(at - 250),
            slept_ns: slept_ms.saturating_mul(1_000_000),
        }));
    }

    /// A reference clock says that the wall clock is so far ahead of it.
    pub(super) fn compares(&mut self, at: u64, kind: ReferenceKind, name: &str, ahead_ms: i64) {
        let error_ns = if kind == ReferenceKind::Ntp { 20_000_000 } else { 1_000_000_000 };
        let utc_ns = self.pipeline.world().offset_ns().saturating_sub(ahead_ms.saturating_mul(1_000_000));
        let reading = Reading { boot_ns: ns(at), kind, name: name.into(), utc_ns, error_ns };
        self.apply(&Context::Reference(reading));
    }

    /// The kernel was built so many days after what the clock shows.
    pub(super) fn built(&mut self, at: u64, days: i64) {
        let shown = i64::try_from(ns(at)).expect("small") + self.pipeline.world().offset_ns();
        let utc_ns = shown + days * 86_400_000_000_000;
        let day = crate::domains::clock::timestamp(0, utc_ns).expect("a date").strftime("%Y-%m-%d");
        self.apply(&Context::Built { name: format!("6.12 ({day})"), utc_ns });
    }

    /// `who` arms a leap second by a call, or disarms it; the kernel says so, too.
    pub(super) fn arms(&mut self, at: u64, who: &str, kind: Option<LeapKind>) {
        let mut owner = owner(4711, 4711);
        owner.comm = [0; 16];
        owner.comm[..who.len()].copy_from_slice(who.as_bytes());
        let status = match kind {
            Some(LeapKind::Insert) => clock::status::INSERT,
            Some(LeapKind::Delete) => clock::status::DELETE,
            None => 0,
        };
        self.record(&encode(ClockRecord {
            header: header::<ClockRecord>(at, Record::CLOCK_SET),
            owner,
            entered_ns: ns(at),
            call: clock::call::CLOCK_ADJTIME,
            modes: clock::mode::STATUS,
            status,
            flags: clock::flag::LEAP,
            parent: 1,
            parent_comm: *b"systemd\0\0\0\0\0\0\0\0\0",
            ..ClockRecord::default()
        }));
        self.apply(&Context::LeapState { boot_ns: ns(at), armed: kind, tai_s: 37 });
    }

    /// The kernel's TAI − UTC becomes another.
    pub(super) fn tai(&mut self, at: u64, tai_s: i32) {
        self.apply(&Context::LeapState { boot_ns: ns(at), armed: None, tai_s });
    }

    /// Milliseconds from the scene's beginning to midnight by the clock as it stands.
    pub(super) fn midnight(&self) -> u64 {
        let day = 86_400_000_000_000;
        let shown = i64::try_from(BEGAN).expect("small") + self.pipeline.world().offset_ns();
        u64::try_from((day - shown.rem_euclid(day)) / 1_000_000).expect("positive")
    }

    /// A call of process `pid` moves the clock.
    pub(super) fn sets_clock_as(&mut self, at: u64, (who, pid): (&str, u32), delta_ms: i64) {
        self.author = pid;
        self.sets_clock(at, who, delta_ms);
        self.author = 4711;
    }

    /// A call of process `pid` moves the clock: the name of its thread, which is its parent's too, and its program's.
    pub(super) fn sets_clock_by(
        &mut self,
        at: u64,
        pid: u32,
        comm: [u8; 16],
        program: [u8; 16],
        delta_ms: i64,
    ) {
        let mut record = ClockRecord {
            header: header::<ClockRecord>(at, Record::CLOCK_SET),
            owner: Owner { comm, ..owner(pid, pid) },
            entered_ns: ns(at),
            after_ns: delta_ms.saturating_mul(1_000_000),
            call: clock::call::CLOCK_SETTIME,
            flags: clock::flag::OFFSETS | clock::flag::STEP,
            parent: 4700,
            parent_comm: comm,
            ..ClockRecord::default()
        };
        record.exe[0][..16].copy_from_slice(&program);
        record.exe[1][..3].copy_from_slice(b"opt");
        self.record(&encode(record));
    }

    /// A client's handshake ends.
    pub(super) fn ends_handshake(&mut self, at: u64, handshake: Handshake) {
        self.tls(at, Record::TLS_PHASE, Handshake { moved_ns: ns(at), ..handshake });
    }

    /// The answer to who is exposed: these began at such moments, and those are gone.
    pub(super) fn finds(&mut self, at: u64, started: &[(u32, u64)], gone: &[u32]) {
        let started = started.iter().map(|(pid, began)| ProcessContext {
            pid: *pid,
            comm: "worker".into(),
            started_ns: ns(*began),
            ..ProcessContext::default()
        });
        let exposed = Exposed { boot_ns: ns(at), started: started.collect(), more: 0, gone: gone.to_vec() };
        self.apply(&Context::Exposed(Box::new(exposed)));
    }

    /// Half a second's ticks from `from` to `to`.
    pub(super) fn passes(&mut self, from: u64, to: u64) {
        for at in (from..=to).step_by(500) {
            self.tick(at);
        }
    }

    /// The connect waits, as the sweep says before it says which handshakes stall.
    pub(super) fn waits(&mut self, at: u64, connect: Connect) {
        self.connect(at, Record::CONNECT_WAITING, connect);
    }

    /// The connect is given up.
    pub(super) fn gives_up(&mut self, at: u64, connect: Connect) {
        self.connect(at, Record::CONNECT_END, Connect { phase: phase::CALLED, ..connect });
    }

    /// The handshake stalls, and the sweep is over.
    pub(super) fn stalls(&mut self, at: u64, handshakes: &[Handshake]) {
        for handshake in handshakes {
            self.tls(at, Record::TLS_PENDING, *handshake);
        }
        self.tick(at);
    }

    pub(super) fn tick(&mut self, at: u64) {
        self.record(&encode(Header { boot_ns: ns(at), kind: Record::TICK.0, len: 16 }));
    }

    /// The answer to a look.
    pub(super) fn sees(&mut self, at: u64, threads: Vec<SeenThread>) {
        let snapshot = Snapshot { boot_ns: ns(at), process: PROCESS, threads, ..Snapshot::default() };
        self.apply(&Context::Snapshot(Box::new(snapshot)));
    }

    /// The server answers.
    pub(super) fn moves(&mut self, at: u64, handshake: Handshake) {
        let answered = Handshake { stage: stage::SERVER_FLIGHT, moved_ns: ns(at), ..handshake };
        self.tls(at, Record::TLS_PHASE, answered);
    }

    /// The stream ends.
    pub(super) fn ends(&mut self) {
        self.emitted.extend(self.pipeline.finish());
    }

    pub(super) fn opened(&self, kind: Kind) -> Vec<&Incident> {
        self.emitted
            .iter()
            .filter(|incident| incident.kind == kind && incident.state == State::Open)
            .collect()
    }

    /// The last thing reported.
    #[track_caller]
    pub(super) fn last(&self) -> &Incident {
        self.emitted.last().expect("something was emitted")
    }

    /// The cause that was reported last.
    #[track_caller]
    pub(super) fn cause(&self) -> &Cause {
        self.last().cause.as_ref().expect("every incident has one here")
    }
}
