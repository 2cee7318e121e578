//! What is said about a stalled handshake: one sentence, the why, the evidence in order of time, and what
//! to do about it.

use ebpf_probes::probes::tls::{ADOPTED, CLIENT, CLIENT_CERTIFICATE, Handshake, stage};

use super::{
    situation::{Situation, Speaks},
    stall::unread,
    suspects::{Blame, Relation, Suspect},
};
use crate::{
    domains::{
        connect::outcome,
        tls::{Role, Stage, session_ends},
    },
    fact::{BEFORE_START, Endpoint, Process},
    known::context::{SeenThread, Snapshot},
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, TlsDetails},
        report::Report,
    },
    rules::{
        drops::fate,
        resolvers,
        text::{self, duration, on_the_wire, place},
        threads::thread_words,
    },
    text::shown,
};

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

pub(super) struct Says<'a> {
    pub(super) situation: &'a Situation,
    pub(super) hs: &'a Handshake,
    pub(super) now_ns: u64,
    pub(super) ended: Option<&'a Handshake>,
    pub(super) view: &'a View<'a>,
}

impl Says<'_> {
    fn report(&self) -> Report {
        let (hs, now_ns) = (self.hs, self.now_ns);
        let owner = if unread(hs) || hs.reader.process == 0 { hs.owner } else { hs.reader };
        let process = self.view.world.known.named(&owner);
        let cause = self.cause();
        let unread_now = self.situation.waiting.values().filter(|unread| **unread).count() as u64;
        let snapshot = self.snapshot();
        let threads: Vec<_> = snapshot
            .map(|seen| seen.threads.iter().map(|thread| thread.shown.clone()).take(THREADS).collect())
            .unwrap_or_default();
        let left_out = snapshot.map_or(0, |seen| {
            seen.threads_left_out + seen.threads.len().saturating_sub(threads.len()) as u32
        });
        Report {
            kind: Kind::TlsHandshakeStalled,
            subject: format!("{} {}", self.situation.service, self.situation.key),
            severity: self.situation.severity(),
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
                sni: self.situation.sni.as_ref().map(|name| name.text.clone()),
                sni_invalid: self.situation.sni.as_ref().and_then(|name| name.invalid),
                local: self.local(),
                peer: self.peer(),
                since_before_start: self.is_adopted(),
                stall_ms: now_ns.saturating_sub(hs.moved_ns) / 1_000_000,
                read_after_ms: (!unread(hs) && hs.read_ns >= hs.moved_ns)
                    .then(|| hs.read_ns.saturating_sub(hs.moved_ns) / 1_000_000),
                waiting: self.situation.waiting.len() as u64,
                unread: unread_now,
                hello_acknowledged: None,
                threads,
                threads_left_out: left_out,
                obstacle: self.obstacle().and_then(|obstacle| self.obstacle_details(&obstacle)).map(Box::new),
            }),
            process,
            cause: Some(cause),
        }
    }

    pub(super) fn is_client(&self) -> bool {
        self.hs.role == CLIENT
    }

    /// It was under way before culprit started.
    pub(super) fn is_adopted(&self) -> bool {
        self.hs.flags & ADOPTED != 0
    }

    pub(super) fn peer(&self) -> Endpoint {
        session_ends(&self.view.world.known, self.hs, &self.hs.owner).1
    }

    /// This host's end.
    pub(super) fn local(&self) -> Endpoint {
        session_ends(&self.view.world.known, self.hs, &self.hs.owner).0
    }

    fn stage(&self) -> Stage {
        match self.hs.stage {
            _ if unread(self.hs) => Stage::ClientHelloUnread,
            stage::HELLO => Stage::AwaitingServerHello,
            stage::SERVER_FLIGHT => Stage::AwaitingClientFinish,
            _ => Stage::AwaitingServerFinish,
        }
    }

    /// What the peer waits for, or waited for.
    fn owed(&self) -> &'static str {
        match (self.stage(), self.ended.is_some()) {
            (Stage::ClientHelloUnread, false) => "has not read the ClientHello",
            (Stage::ClientHelloUnread, true) => "did not read the ClientHello",
            (Stage::AwaitingServerHello, false) => "has not answered the ClientHello",
            (Stage::AwaitingServerHello, true) => "did not answer the ClientHello",
            (Stage::AwaitingClientFinish, false) => "has not answered the ServerHello",
            (Stage::AwaitingClientFinish, true) => "did not answer the ServerHello",
            (_, false) if self.certified() => "has not answered the client's certificate and Finished",
            (_, true) if self.certified() => "did not answer the client's certificate and Finished",
            (_, false) => "has not answered the client's Finished",
            (_, true) => "did not answer the client's Finished",
        }
    }

    /// The client has sent a certificate.
    fn certified(&self) -> bool {
        self.hs.flags & CLIENT_CERTIFICATE != 0
    }

    /// The process that owes the message, or the service when it is not known.
    pub(super) fn who(&self, process: Option<&Process>) -> String {
        process.map_or_else(
            || match self.is_client() {
                true => "a client of this host".to_owned(),
                false => format!("the service at {}", on_the_wire(&self.local())),
            },
            text::process,
        )
    }

    /// The look at the process of this very handshake.
    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        let process = if unread(self.hs) { self.hs.owner.process } else { self.hs.reader.process };
        let seen = self.situation.snapshot.as_deref()?;
        (seen.process == process || seen.asked == process).then_some(seen)
    }

    /// The thread that owes the message, in words.
    pub(super) fn thread(&self) -> String {
        self.view.world.known.thread(&self.hs.reader)
    }

    pub(super) fn blame(&self) -> Option<&Blame> {
        self.situation.blame.as_ref()
    }

    pub(super) fn seen(&self) -> Option<&SeenThread> {
        let tid = self.hs.reader.thread;
        self.snapshot()?.threads.iter().find(|thread| thread.shown.tid == tid && tid != 0)
    }

    pub(super) fn cause(&self) -> Cause {
        let world = self.view.world;
        if let Some(obstacle) = self.obstacle() {
            return self.obstacle_cause(&obstacle);
        }
        let Some(blame) = self.blame() else {
            let kind = if unread(self.hs) { CauseKind::Unread } else { CauseKind::NoneSeen };
            let confidence = match kind {
                // It is unread, whatever else there is; set aside is what may be why.
                CauseKind::Unread
                    if self.situation.left_out.operations.is_empty()
                        && world.known.narrowed().is_empty()
                        && !self.is_adopted() =>
                {
                    Confidence::Certain
                }
                CauseKind::Unread => Confidence::Likely,
                _ => self.situation.left_out.confidence(),
            };
            return Cause { kind, confidence, ..Cause::default() };
        };
        let mut cause =
            Cause { kind: blame.suspect.kind(), confidence: blame.confidence, ..Cause::default() };
        match &blame.suspect {
            Suspect::Connect(op, _) => {
                let connect = &op.connect;
                let end = op.ended_ns.unwrap_or(self.now_ns).min(self.now_ns);
                let became = op.ended_ns.map_or("pending", |_| outcome(connect).0.name());
                let elapsed_ns = end.saturating_sub(connect.started_ns);
                cause = Cause {
                    kind: cause.kind,
                    confidence: cause.confidence,
                    ..text::cause(connect, world, became, elapsed_ns)
                };
                if blame.relation != Relation::SameThread {
                    cause.process = world.known.named(&connect.owner);
                }
            }
            Suspect::Lookup(op) => {
                let end = op.ended_ns.unwrap_or(self.now_ns).min(self.now_ns);
                cause.destination = Some(world.known.at(op.server, 53, &op.owner));
                let outcome = match op.ended_ns {
                    None => "pending",
                    Some(_) if op.failed => "failed",
                    Some(_) => "answered",
                };
                cause.outcome = Some(outcome.to_owned());
                cause.query = Some(format!("{} {}", op.query_type, op.name));
                cause.elapsed_ms = Some(end.saturating_sub(op.started_ns) / 1_000_000);
                if blame.relation != Relation::SameThread {
                    cause.process = world.known.named(&op.owner);
                }
            }
            Suspect::Peer(socket, seen_ns) => {
                let remote = crate::records::address_bytes(socket.remote.ip());
                cause.destination = Some(world.known.at(remote, socket.remote.port(), &self.hs.reader));
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
            (Some(_), _) if blame.suspect.owner().is_some_and(|owner| owner.thread == 0) => "it".into(),
            (Some(other), _) => match &other.thread {
                Some(name) => format!("thread {} ({name}) of it", other.tid),
                None => format!("thread {} of it", other.tid),
            },
            // No thread has read it: it is the process that began what is waited for.
            _ if unread(self.hs) => blame
                .suspect
                .owner()
                .map_or_else(|| "the process".to_owned(), |owner| world.known.thread(owner)),
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
                        format!("{ip} does not answer ARP or NDP on {}", shown(&silent.device))
                    }
                    (None, None) => fate(&op.connect, world),
                    (None, Some(_)) => {
                        let how = outcome(&op.connect).0.name().replace('_', " ");
                        format!(
                            "{how} after {}, {}",
                            duration(cause.elapsed_ms.unwrap_or(0) * 1_000_000),
                            fate(&op.connect, world)
                        )
                    }
                };
                format!("{who} {verb} for a connect to {to}: {fate}")
            }
            Suspect::Lookup(op) => {
                let asked = text::count(op.queries.into(), "query", "queries");
                let fate = match (resolvers::upstream(op, world), op.ended_ns) {
                    (Some(upstream), ended_ns) => upstream.words(ended_ns.is_some()),
                    (None, Some(_)) => "answered late".to_owned(),
                    (None, None) => "no answer".to_owned(),
                };
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
        let who = self.who(process);
        let stall = duration(self.now_ns.saturating_sub(self.hs.moved_ns));
        let peer = on_the_wire(&self.peer());
        let owed = self.owed();
        let sni = self.situation.sni.as_ref().map(|sni| format!(" ({sni})")).unwrap_or_default();
        let since = if self.is_adopted() { BEFORE_START } else { "" };
        let head = format!("{who} {owed} of {peer}{sni} for {stall}{since}");
        if let Some(obstacle) = self.obstacle() {
            return format!("{head}: {}.", self.obstacle_words(&obstacle));
        }
        match self.blame() {
            Some(blame) => format!("{head}: {}.", self.wait(blame)),
            None if unread(self.hs) => format!("{head}: {}.", self.idle().words()),
            None => format!("{head}: {}.", self.nothing_seen()),
        }
    }

    /// What the thread does instead of what was looked for.
    fn nothing_seen(&self) -> String {
        if self.situation.speaks() == Speaks::HardlyTls {
            return format!(
                "it has read it and waits for more; port {} has not been seen to answer a ClientHello, and may \
                 speak no TLS",
                self.hs.tuple.local_port
            );
        }
        if let Some(held) = Some(self.idle()).filter(|idle| idle.is_held()) {
            return held.words();
        }
        let left = &self.situation.left_out;
        let network = match left.confidence() {
            Confidence::Certain if self.ended.is_some() => {
                "no connect, lookup or request of the process delayed it".to_owned()
            }
            Confidence::Certain => "no connect, lookup or request of the process delays it".to_owned(),
            _ => match left.operations.len() + left.more {
                0 => "no connect, lookup or request of the process was seen to delay it".to_owned(),
                set_aside => format!(
                    "{} of the process {} under way and not blamed",
                    text::count(set_aside as u64, "operation", "operations"),
                    if set_aside == 1 { "is" } else { "are" },
                ),
            },
        };
        match self.seen() {
            Some(seen) => {
                format!("when looked at, {} was {}; {network}", self.thread(), thread_words(seen))
            }
            None => network,
        }
    }
}
