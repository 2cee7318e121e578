//! What is said about a stalled handshake: one sentence, the why, the evidence in order of time, and what
//! to do about it.

use ebpf_probes::{
    abi::ProbeId,
    probes::tls::{CLIENT, Handshake, stage},
};

use super::{
    Situation,
    blame::{Blame, Relation, Suspect},
    unread,
};
use crate::{
    correlate::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, Severity, TlsDetails},
        report::Report,
    },
    enrich::{
        connect::outcome,
        context::{Posture, SeenThread, Snapshot},
    },
    fact::{Endpoint, Process, Role, Stage},
    rules::text::{self, address, duration, place},
};

/// Plain HTTP: where issuer certificates, CRLs and OCSP answers come from (RFC 5280 §4.2.2.1, §4.2.1.13).
const HTTP: u16 = 80;
/// Threads shown at most.
const THREADS: usize = 8;

/// The account of a situation at `now_ns`; `ended` is the handshake as it was when it moved.
pub(super) fn report(
    situation: &Situation,
    now_ns: u64,
    ended: Option<&Handshake>,
    view: &View<'_>,
) -> Report {
    let says = Says { situation, hs: &situation.lead, now_ns, ended, view };
    says.report()
}

struct Says<'a> {
    situation: &'a Situation,
    hs: &'a Handshake,
    now_ns: u64,
    ended: Option<&'a Handshake>,
    view: &'a View<'a>,
}

impl Says<'_> {
    fn report(&self) -> Report {
        let (hs, now_ns) = (self.hs, self.now_ns);
        let owner = if unread(hs) || hs.reader.process == 0 { hs.owner } else { hs.reader };
        let process = self.view.world.named(&owner);
        let cause = self.cause();
        let unread_now = self.situation.waiting.values().filter(|unread| **unread).count() as u64;
        let snapshot = self.situation.snapshot.as_deref();
        let shown: Vec<_> = snapshot
            .map(|seen| seen.threads.iter().map(|thread| thread.shown.clone()).take(THREADS).collect())
            .unwrap_or_default();
        let left_out = snapshot
            .map_or(0, |seen| seen.threads_left_out + seen.threads.len().saturating_sub(shown.len()) as u32);
        Report {
            kind: Kind::TlsHandshakeStalled,
            subject: format!("{} {}", self.situation.service, self.situation.key),
            severity: Severity::Critical,
            began_ns: self.situation.began_ns,
            count: self.situation.count,
            summary: self.summary(process.as_ref()),
            why: self.why(&cause),
            caused_by: self.caused_by(),
            remedies: self.remedies(process.as_ref()),
            evidence: self.evidence(process.as_ref()),
            details: Details::TlsHandshakeStalled(TlsDetails {
                role: if self.is_client() { Role::Client } else { Role::Server },
                stage: self.stage(),
                sni: self.situation.sni.clone(),
                local: self.view.world.own_end(&hs.tuple),
                peer: self.peer(),
                stall_ms: now_ns.saturating_sub(hs.moved_ns) / 1_000_000,
                read_after_ms: (!unread(hs) && hs.read_ns >= hs.moved_ns)
                    .then(|| hs.read_ns.saturating_sub(hs.moved_ns) / 1_000_000),
                waiting: self.situation.waiting.len() as u64,
                unread: unread_now,
                threads: shown,
                threads_left_out: left_out,
            }),
            process,
            cause: Some(cause),
        }
    }

    fn is_client(&self) -> bool {
        self.hs.role == CLIENT
    }

    fn peer(&self) -> Endpoint {
        self.view.world.at(self.hs.tuple.remote, self.hs.tuple.remote_port, self.hs.owner.netns)
    }

    fn stage(&self) -> Stage {
        match self.hs.stage {
            _ if unread(self.hs) => Stage::ClientHelloUnread,
            stage::HELLO => Stage::AwaitingServerHello,
            stage::SERVER_FLIGHT => Stage::AwaitingClientFinish,
            _ => Stage::AwaitingServerFinish,
        }
    }

    /// What the peer waits for.
    fn owed(&self) -> &'static str {
        match self.stage() {
            Stage::ClientHelloUnread => "has not read the ClientHello",
            Stage::AwaitingServerHello => "has not answered the ClientHello",
            Stage::AwaitingClientFinish => "has not answered the ServerHello",
            _ => "has not answered the client's certificate and Finished",
        }
    }

    /// The thread that owes the message, in words.
    fn thread(&self) -> String {
        format!("thread {}", self.hs.reader.thread)
    }

    fn blame(&self) -> Option<&Blame> {
        self.situation.blame.as_ref()
    }

    fn seen(&self) -> Option<&SeenThread> {
        let tid = self.hs.reader.thread;
        self.situation.snapshot.as_deref()?.threads.iter().find(|thread| thread.shown.tid == tid)
    }

    fn cause(&self) -> Cause {
        let world = self.view.world;
        let netns = self.hs.reader.netns;
        let Some(blame) = self.blame() else {
            let kind = if unread(self.hs) { CauseKind::Unread } else { CauseKind::NoneSeen };
            return Cause { kind, confidence: Confidence::Certain, ..Cause::default() };
        };
        let mut cause =
            Cause { kind: blame.suspect.kind(), confidence: blame.confidence, ..Cause::default() };
        match &blame.suspect {
            Suspect::Connect(op, _) => {
                let connect = &op.connect;
                let end = op.ended_ns.unwrap_or(self.now_ns).min(self.now_ns);
                cause.destination =
                    Some(world.at(connect.tuple.remote, connect.tuple.remote_port, connect.owner.netns));
                cause.outcome = Some(op.ended_ns.map_or("pending", |_| outcome(connect).0.name()).to_owned());
                cause.syn_retransmits = Some(connect.retries);
                cause.dropped_by_host = Some(connect.drops);
                cause.drop_reason =
                    (connect.drops > 0).then(|| world.drop_reason(connect.drop_reason)).flatten();
                cause.elapsed_ms = Some(end.saturating_sub(connect.started_ns) / 1_000_000);
                if blame.relation != Relation::SameThread {
                    cause.process = world.named(&connect.owner);
                }
            }
            Suspect::Lookup(op) => {
                let end = op.ended_ns.unwrap_or(self.now_ns).min(self.now_ns);
                cause.destination = Some(world.at(op.server, 53, op.owner.netns));
                let outcome = match op.ended_ns {
                    None => "pending",
                    Some(_) if op.failed => "failed",
                    Some(_) => "answered",
                };
                cause.outcome = Some(outcome.to_owned());
                cause.query = Some(format!("{} {}", op.query_type, op.name));
                cause.elapsed_ms = Some(end.saturating_sub(op.started_ns) / 1_000_000);
                if blame.relation != Relation::SameThread {
                    cause.process = world.named(&op.owner);
                }
            }
            Suspect::Peer(socket, seen_ns) => {
                let remote = crate::event::address_bytes(socket.remote.ip());
                cause.destination = Some(world.at(remote, socket.remote.port(), netns));
                cause.outcome = Some("established".to_owned());
                let asked = seen_ns.saturating_sub(u64::from(socket.sent_ms_ago) * 1_000_000);
                cause.elapsed_ms = Some(self.now_ns.saturating_sub(asked) / 1_000_000);
            }
        }
        cause
    }

    /// What is waited for, and by whom: the sentence's second half.
    fn wait(&self, blame: &Blame) -> String {
        let world = self.view.world;
        let cause = self.cause();
        let to = cause.destination.as_ref().map(place).unwrap_or_default();
        let who = match (&cause.process, blame.relation) {
            (Some(helper), Relation::Helper) => format!("its helper {}", text::process(helper)),
            (Some(other), _) => format!("thread {} of it", other.tid),
            _ => self.thread(),
        };
        let over = self.ended.is_some();
        let verb = match (blame.confidence, over) {
            (Confidence::Possible, false) => "may be waiting",
            (Confidence::Possible, true) => "may have waited",
            (_, false) => "is waiting",
            (_, true) => "waited",
        };
        match &blame.suspect {
            Suspect::Connect(op, silent) => {
                let fate = match (silent, op.ended_ns) {
                    (Some((ip, silent)), _) => {
                        format!("{ip} does not answer ARP or NDP on {}", silent.device)
                    }
                    (None, None) => text::fate(&op.connect, world),
                    (None, Some(_)) => {
                        let how = outcome(&op.connect).0.name().replace('_', " ");
                        format!(
                            "{how} after {}, {}",
                            duration(cause.elapsed_ms.unwrap_or(0) * 1_000_000),
                            text::fate(&op.connect, world)
                        )
                    }
                };
                format!("{who} {verb} for a connect to {to}: {fate}")
            }
            Suspect::Lookup(op) => {
                let asked = text::count(op.queries.into(), "query", "queries");
                let fate = if op.ended_ns.is_some() { "answered late" } else { "no answer" };
                format!(
                    "{who} {verb} for the DNS server {to} to look up {} {}: {asked}, {fate}",
                    op.query_type, op.name
                )
            }
            Suspect::Peer(socket, _) => {
                let heard = if socket.received_bytes == 0 {
                    "not a byte has come back"
                } else {
                    "nothing has come back since"
                };
                format!("{who} {verb} for {to}, which accepted the connection and does not answer: {heard}")
            }
        }
    }

    fn summary(&self, process: Option<&Process>) -> String {
        let who = process.map_or_else(|| "this host".to_owned(), text::process);
        let stall = duration(self.now_ns.saturating_sub(self.hs.moved_ns));
        let peer = address(&self.peer());
        let owed = match self.ended {
            None => self.owed().to_owned(),
            Some(_) => self.owed().replacen("has not", "did not", 1).replacen("read", "read", 1).replacen(
                "did not answered",
                "did not answer",
                1,
            ),
        };
        let sni = self.situation.sni.as_ref().map(|sni| format!(" ({sni})")).unwrap_or_default();
        let head = format!("{who} {owed} of {peer}{sni} for {stall}");
        match self.blame() {
            Some(blame) => format!("{head}: {}.", self.wait(blame)),
            None if unread(self.hs) => format!("{head}: {}.", self.idle_service()),
            None => format!("{head}: {}.", self.nothing_seen()),
        }
    }

    /// Why nobody reads.
    fn idle_service(&self) -> String {
        let Some(snapshot) = self.situation.snapshot.as_deref() else {
            return "no thread has read it".into();
        };
        if !snapshot.threads.is_empty()
            && snapshot.threads.iter().all(|thread| thread.posture == Posture::Stopped)
        {
            return "the process is stopped".into();
        }
        match snapshot.accepted {
            Some(true) => "the connection is accepted, and no thread is free to read from it".into(),
            Some(false) => "it waits in the accept queue, and no thread accepts".into(),
            None => "no thread has read it".into(),
        }
    }

    /// What the thread does instead, when it does nothing on the network.
    fn nothing_seen(&self) -> String {
        match self.seen() {
            Some(seen) => format!(
                "when looked at, {} was {}; the process did nothing on the network meanwhile",
                self.thread(),
                thread_words(seen)
            ),
            None => "the process did nothing on the network meanwhile".into(),
        }
    }

    fn why(&self, cause: &Cause) -> Vec<String> {
        let mut why = Vec::new();
        match self.blame() {
            Some(Blame { suspect: Suspect::Connect(op, silent), relation, .. }) => {
                if op.connect.tuple.remote_port == HTTP {
                    why.push(
                        "Plain HTTP inside a handshake is nearly always an issuer-certificate (AIA), CRL or OCSP fetch.".into(),
                    );
                }
                if silent.is_some() {
                    why.push(
                        "Below the connect a neighbour does not answer: no packet leaves for it.".into(),
                    );
                } else if op.connect.drops > 0 {
                    why.push(
                        "It is this host's own kernel that drops the packets: no other machine is to blame."
                            .into(),
                    );
                } else if op.ended_ns.is_none() {
                    why.push("Silence is what a firewall that drops, a missing route back or a dead host looks like; a closed port would have refused.".into());
                }
                if *relation == Relation::SameProcess && self.posture() == Posture::EventLoop {
                    why.push(
                        "The handshake's thread runs an event loop and goes on serving others meanwhile."
                            .into(),
                    );
                }
            }
            Some(Blame { suspect: Suspect::Lookup(_), .. }) => {
                why.push("A resolver that is silent costs its whole timeout (glibc: 5 s a try) inside each handshake.".into());
            }
            Some(Blame { suspect: Suspect::Peer(..), .. }) => {
                why.push(
                    "The network is fine as far as that peer: it is the service there that owes the answer."
                        .into(),
                );
            }
            None => why.extend(self.idle_why()),
        }
        if self.situation.count > 1 {
            let unread = self.situation.waiting.values().filter(|unread| **unread).count();
            let behind = if unread > 0 && !unread_key(self.situation) {
                format!("; {unread} of those that wait are unread behind it")
            } else {
                String::new()
            };
            why.push(format!("{} handshakes so far{behind}.", self.situation.count));
        }
        if cause.confidence == Confidence::Possible && self.blame().is_some() {
            why.push("It fits in time and place, and so may other things: not proven.".into());
        }
        if !self.view.world.sees(ProbeId::Connect) || !self.view.world.sees(ProbeId::Dns) {
            why.push(
                "The connect or dns probe is not attached: what they would have seen is missing here.".into(),
            );
        }
        why
    }

    fn posture(&self) -> Posture {
        self.seen().map_or(Posture::Unknown, |thread| thread.posture)
    }

    /// What the threads of a process that blames nobody are doing, the commonest first.
    fn idle_why(&self) -> Vec<String> {
        let Some(snapshot) = self.situation.snapshot.as_deref() else { return vec![] };
        let mut groups: Vec<(String, usize)> = Vec::new();
        for thread in &snapshot.threads {
            let what = thread_words(thread);
            match groups.iter_mut().find(|(known, _)| *known == what) {
                Some((_, count)) => *count += 1,
                None => groups.push((what, 1)),
            }
        }
        groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        groups.truncate(3);
        let all = snapshot.threads.len();
        groups
            .into_iter()
            .map(|(what, number)| match (number, all) {
                (1, 1) => format!("Its only thread: {what}."),
                (number, _) => format!("{number} of {all} threads: {what}."),
            })
            .collect()
    }

    /// Other incidents that explain what nobody reads.
    fn caused_by(&self) -> Vec<String> {
        if self.blame().is_some() {
            return vec![];
        }
        let process = self.hs.owner.process;
        let mut ids: Vec<String> = self
            .view
            .world
            .connect_ops()
            .filter(|op| unread(self.hs) && op.ended_ns.is_none() && op.connect.owner.process == process)
            .filter_map(|op| self.view.store.claimed(op.connect.cookie))
            .filter(|id| *id != self.situation.id)
            .map(str::to_owned)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn remedies(&self, process: Option<&Process>) -> Vec<String> {
        let pid = process.map_or(0, |process| process.pid);
        let Some(blame) = self.blame() else {
            return match self.posture() {
                Posture::Stopped => vec![format!("kill -CONT {pid}")],
                _ if unread(self.hs) && self.idle_service().contains("stopped") => {
                    vec![format!("kill -CONT {pid}, once it is clear who stopped it")]
                }
                _ if unread(self.hs) => vec![
                    "give the service more threads, or shorten what they are busy with".into(),
                    format!(
                        "see what they do: cat /proc/{pid}/task/*/wchan; gdb -p {pid} -batch -ex 'thread apply all bt'"
                    ),
                ],
                _ => vec![format!(
                    "see where it is: gdb -p {pid} -batch -ex 'thread apply all bt' (or jstack {pid}, py-spy dump -p {pid})"
                )],
            };
        };
        let cause = self.cause();
        let Some(to) = cause.destination else { return vec![] };
        let (ip, port) = (to.ip, to.port);
        match &blame.suspect {
            Suspect::Connect(_, Some((ip, silent))) => vec![
                format!("ip neigh show {ip} dev {}; is {ip} up and on that link?", silent.device),
                format!("or correct the address that is fetched from: {}", address(&to)),
            ],
            Suspect::Connect(op, None) => {
                let mut remedies = vec![if op.connect.drops > 0 {
                    format!("allow egress tcp/{port} to {ip} in this host's own firewall (nft list ruleset)")
                } else {
                    format!("allow egress tcp/{port} to {ip}")
                }];
                if port == HTTP {
                    remedies.extend(self.fetch_remedies(process));
                } else {
                    remedies.push(format!(
                        "give that connect a short timeout, or move it out of the handshake of {}",
                        process.map_or("the process", |process| &process.comm)
                    ));
                }
                remedies
            }
            Suspect::Lookup(op) => vec![
                format!("dig @{ip} {} {}", op.query_type, op.name),
                format!(
                    "allow udp/53 and tcp/53 to {ip}, or name a resolver that answers in /etc/resolv.conf"
                ),
            ],
            Suspect::Peer(socket, _) => vec![
                format!("look at the service at {}: it accepts and does not answer", address(&to)),
                format!("ss -tnoi 'dst {ip} dport = :{port}' (descriptor {} of {pid})", socket.fd),
                "give that request a short timeout".into(),
            ],
        }
    }

    /// How to do without the fetch.
    fn fetch_remedies(&self, process: Option<&Process>) -> Vec<String> {
        let program = process.and_then(|process| process.exe.as_deref()).unwrap_or_default();
        let off = match program.rsplit('/').next().unwrap_or_default() {
            "java" => "turn the fetch off: -Dcom.sun.security.enableAIAcaIssuers=false, -Dcom.sun.net.ssl.checkRevocation=false".into(),
            "dotnet" => "turn the fetch off: X509ChainPolicy.DisableCertificateDownloads = true, RevocationMode = NoCheck".into(),
            _ => "staple OCSP, or turn the fetch off in the program's TLS settings".to_owned(),
        };
        let chain = if self.is_client() {
            format!(
                "install the full chain on {}, so that nothing has to be fetched, or the missing intermediate here",
                self.peer().ip
            )
        } else {
            "install the full chain on this host, so that nothing has to be fetched".into()
        };
        vec![chain, off]
    }

    fn evidence(&self, process: Option<&Process>) -> Vec<(u64, String)> {
        let (hs, world) = (self.hs, self.view.world);
        let peer = address(&self.peer());
        let sni = self.situation.sni.as_ref().map(|sni| format!(" for {sni}")).unwrap_or_default();
        let mut seen = vec![if self.is_client() {
            (hs.started_ns, format!("ClientHello sent to {peer}{sni}"))
        } else {
            (hs.started_ns, format!("ClientHello{sni} came from {peer}"))
        }];
        if hs.moved_ns > hs.started_ns.saturating_add(1_000_000) && hs.stage != stage::HELLO {
            let what = if self.is_client() { "the server's answer came" } else { "the client's flight came" };
            seen.push((hs.moved_ns, what.into()));
        }
        if !unread(hs) && hs.read_ns >= hs.moved_ns {
            seen.push((hs.read_ns, format!("read by {}", self.thread())));
        }
        if let Some(blame) = self.blame() {
            self.blame_evidence(blame, &mut seen);
        }
        if let Some(snapshot) = self.situation.snapshot.as_deref() {
            seen.push((snapshot.boot_ns, self.snapshot_words(snapshot)));
        }
        let bystanders = world
            .connect_ops()
            .filter(|op| op.ended_ns.is_none() && op.connect.owner.process == hs.reader.process)
            .filter(|op| op.connect.started_ns < hs.read_ns.max(hs.moved_ns) && hs.reader.process != 0);
        let mut bystanders: Vec<_> = bystanders.copied().collect();
        bystanders.sort_by_key(|op| (op.connect.started_ns, op.connect.cookie));
        for op in bystanders.into_iter().take(3) {
            let to = world.at(op.connect.tuple.remote, op.connect.tuple.remote_port, op.connect.owner.netns);
            let text = format!(
                "not blamed: thread {} has been connecting to {} since before",
                op.connect.owner.thread,
                place(&to)
            );
            seen.push((op.connect.started_ns, text));
        }
        if let Some(ended) = self.ended {
            let who = process.map_or_else(|| "this host".into(), text::process);
            let what = match ended.stage {
                stage::CLOSED => "the connection was closed before the handshake was done".into(),
                stage::ALERT => "the handshake ended by an alert".into(),
                _ => format!("{who} went on"),
            };
            seen.push((self.now_ns, what));
        }
        seen
    }

    fn blame_evidence(&self, blame: &Blame, seen: &mut Vec<(u64, String)>) {
        let world = self.view.world;
        match &blame.suspect {
            Suspect::Connect(op, silent) => {
                let connect = &op.connect;
                let to = world.at(connect.tuple.remote, connect.tuple.remote_port, connect.owner.netns);
                let by = format!(
                    "{}[{}·{}]",
                    crate::event::comm(&connect.owner.comm),
                    connect.owner.process,
                    connect.owner.thread
                );
                seen.push((connect.started_ns, format!("{by} began to connect to {}", place(&to))));
                if let Some((ip, silent)) = silent {
                    seen.push((
                        silent.since_ns,
                        format!("{ip} is asked for by ARP or NDP on {} and does not answer", silent.device),
                    ));
                }
                match op.ended_ns {
                    Some(ended) => {
                        let how = outcome(connect).0.name().replace('_', " ");
                        seen.push((
                            ended,
                            format!("the connect ended: {how}, {}", text::fate(connect, world)),
                        ));
                    }
                    None => {
                        seen.push((op.seen_ns, format!("still connecting: {}", text::fate(connect, world))))
                    }
                }
            }
            Suspect::Lookup(op) => {
                let server = world.at(op.server, 53, op.owner.netns);
                seen.push((
                    op.started_ns,
                    format!(
                        "thread {} asked {} for {} {}",
                        op.owner.thread,
                        address(&server),
                        op.query_type,
                        op.name
                    ),
                ));
                if let Some(ended) = op.ended_ns {
                    seen.push((
                        ended,
                        if op.failed { "the lookup failed" } else { "the answer came" }.into(),
                    ));
                }
            }
            Suspect::Peer(socket, seen_ns) => {
                let asked = seen_ns.saturating_sub(u64::from(socket.sent_ms_ago) * 1_000_000);
                let sent = socket.acked_bytes.saturating_sub(1);
                seen.push((
                    asked,
                    format!(
                        "last data to {} (descriptor {}): {sent} bytes acknowledged, {} received",
                        socket.remote, socket.fd, socket.received_bytes
                    ),
                ));
            }
        }
    }

    fn snapshot_words(&self, snapshot: &Snapshot) -> String {
        match self.seen() {
            Some(thread) => format!("{}: {}", self.thread(), thread_words(thread)),
            None if snapshot.threads.is_empty() => "the process is gone".into(),
            None => {
                let threads = text::count(snapshot.threads.len() as u64, "thread", "threads");
                format!("{threads}: {}", thread_words(&snapshot.threads[0]))
            }
        }
    }
}

fn unread_key(situation: &Situation) -> bool {
    situation.key == "unread"
}

/// What a thread was seen doing: `asleep in poll on … (do_sys_poll)`.
fn thread_words(thread: &SeenThread) -> String {
    let shown = &thread.shown;
    let mut words = match thread.posture {
        Posture::Running => "running".to_owned(),
        Posture::Disk => "in uninterruptible sleep".into(),
        Posture::Stopped => "stopped".into(),
        _ => "asleep".into(),
    };
    if let Some(call) = &shown.syscall {
        words.push_str(&format!(" in {call}"));
    }
    if !shown.waits_on.is_empty() {
        words.push_str(&format!(" on {}", shown.waits_on.join(", ")));
    }
    match thread.posture {
        Posture::EventLoop => words.push_str(" (its event loop)"),
        Posture::Threads => words.push_str(" (waiting for another thread)"),
        _ => {}
    }
    match &shown.wchan {
        Some(wchan) if shown.syscall.is_none() => words.push_str(&format!(" in the kernel's {wchan}")),
        _ => {}
    }
    words
}
