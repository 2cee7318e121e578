//! What the conclusion rests on, in order of time.

use ebpf_probes::probes::tls::stage;

use super::{
    aside::Why,
    obstacle::What,
    say::Says,
    stall::unread,
    suspects::{Blame, Suspect},
};
use crate::{
    domains::connect::outcome,
    fact::Process,
    known::context::{SeenThread, Snapshot},
    rules::{
        drops::fate,
        text::{self, address, on_the_wire, place},
        threads::thread_words,
    },
    text::shown,
};

impl Says<'_> {
    pub(super) fn evidence(&self, process: Option<&Process>) -> Vec<(u64, String)> {
        let hs = self.hs;
        let peer = on_the_wire(&self.peer());
        let sni = self.situation.sni.as_ref().map(|sni| format!(" for {sni}")).unwrap_or_default();
        let mut seen = vec![if self.is_adopted() {
            let (bytes, port) = (text::count(hs.hello_len.into(), "byte", "bytes"), hs.tuple.local_port);
            let what = format!(
                "{bytes} came from {peer}, before culprit started: by port {port} a ClientHello, answered by nothing"
            );
            (hs.started_ns, what)
        } else if self.is_client() {
            (hs.started_ns, format!("ClientHello sent to {peer}{sni}"))
        } else {
            let local = self.local();
            let to = local.wire.map(|_| format!(" to {}", on_the_wire(&local))).unwrap_or_default();
            (hs.started_ns, format!("ClientHello{sni} came from {peer}{to}"))
        }];
        if hs.moved_ns > hs.started_ns.saturating_add(1_000_000) && hs.stage != stage::HELLO {
            let what = if self.is_client() { "the server's answer came" } else { "the client's flight came" };
            seen.push((hs.moved_ns, what.into()));
        }
        if !unread(hs) && hs.read_ns >= hs.moved_ns && !self.is_adopted() {
            seen.push((hs.read_ns, format!("read by {}", self.thread())));
        }
        if let Some(blame) = self.blame() {
            self.blame_evidence(blame, &mut seen);
            seen.extend(self.fetch_past().into_iter().flat_map(|past| past.seen));
        }
        if let Some(snapshot) = self.snapshot() {
            seen.push((snapshot.boot_ns, self.snapshot_words(snapshot)));
        }
        self.not_blamed(&mut seen);
        if let Some(ended) = self.ended {
            let who = self.who(process);
            let what = match ended.stage {
                stage::CLOSED => "the connection was closed before the handshake was done".into(),
                stage::ALERT => "the handshake ended by an alert".into(),
                _ => format!("{who} went on"),
            };
            seen.push((self.now_ns, what));
        }
        seen
    }

    /// Connects that were pending before; and, when nothing is blamed, whatever was set aside, with the reason.
    fn not_blamed(&self, seen: &mut Vec<(u64, String)>) {
        let (hs, world) = (self.hs, self.view.world);
        if self.blame().is_none() {
            for aside in &self.situation.left_out.operations {
                let text = format!("not blamed: {} {}", self.operation(&aside.what), self.reason(aside.why));
                seen.push((aside.started_ns, text));
            }
            return;
        }
        let bystanders = world
            .connect_ops()
            .filter(|op| op.ended_ns.is_none() && op.connect.owner.process == hs.reader.process)
            .filter(|op| op.connect.started_ns < hs.read_ns.max(hs.moved_ns) && hs.reader.process != 0);
        let mut bystanders: Vec<_> = bystanders.copied().collect();
        bystanders.sort_by_key(|op| (op.connect.started_ns, op.connect.cookie));
        for op in bystanders.into_iter().take(3) {
            let what = self.operation(&Suspect::Connect(op, None));
            seen.push((op.connect.started_ns, format!("not blamed: {what} {}", self.reason(Why::Earlier))));
        }
    }

    /// `thread 44's connect to 192.0.2.64:80`.
    fn operation(&self, suspect: &Suspect) -> String {
        let world = self.view.world;
        match suspect {
            Suspect::Connect(op, _) => {
                let connect = &op.connect;
                let to = world.known.destination(connect);
                format!("{}'s connect to {}", world.known.thread(&connect.owner), place(&to))
            }
            Suspect::Lookup(op) => {
                let server = address(&world.known.at(op.server, 53, &op.owner));
                let thread = world.known.thread(&op.owner);
                format!("{thread}'s lookup of {} {} at {server}", op.query_type, op.name)
            }
            Suspect::Peer(socket, _) => format!("the answer of {} (descriptor {})", socket.remote, socket.fd),
        }
    }

    fn reason(&self, why: Why) -> String {
        match why {
            Why::Earlier if unread(self.hs) && self.hs.established_ns != 0 => {
                "has been under way since before this connection was established".into()
            }
            Why::Earlier if unread(self.hs) => "has been under way since before this ClientHello came".into(),
            Why::Earlier => "has been under way since before this handshake".into(),
            Why::AnotherHandshake => "was begun by a thread that serves another handshake".into(),
            Why::ThreadElsewhere => format!("is not what {} was seen waiting for", self.thread()),
            Why::Late => "began only late in the stall".into(),
        }
    }

    fn blame_evidence(&self, blame: &Blame, seen: &mut Vec<(u64, String)>) {
        let world = self.view.world;
        match &blame.suspect {
            Suspect::Connect(op, silent) => {
                let connect = &op.connect;
                let to = world.known.destination(connect);
                let by = world.known.named(&connect.owner).map_or_else(String::new, |by| match &by.thread {
                    Some(name) => format!("{}[{}·{} {}]", shown(&by.comm), by.pid, by.tid, shown(name)),
                    None if connect.owner.thread == 0 => format!("{}[{}]", shown(&by.comm), by.pid),
                    None => format!("{}[{}·{}]", shown(&by.comm), by.pid, by.tid),
                });
                seen.push((connect.started_ns, format!("{by} began to connect to {}", place(&to))));
                if let Some((ip, silent)) = silent {
                    seen.push((
                        silent.since_ns,
                        format!(
                            "{ip} is asked for by ARP or NDP on {} and does not answer",
                            shown(&silent.device)
                        ),
                    ));
                }
                match op.ended_ns {
                    Some(ended) => {
                        let how = outcome(connect).0.name().replace('_', " ");
                        seen.push((ended, format!("the connect ended: {how}, {}", fate(connect, world))));
                    }
                    None => {
                        seen.push((op.seen_ns, format!("still connecting: {}", fate(connect, world))));
                    }
                }
            }
            Suspect::Lookup(op) => {
                let server = world.known.at(op.server, 53, &op.owner);
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
            None => {
                let obstacle = match self.obstacle().map(|obstacle| obstacle.what) {
                    Some(What::Waits(thread, _) | What::SilentClient(thread, _)) => Some(thread),
                    _ => None,
                };
                match obstacle.or(self.in_it(snapshot)).or(snapshot.threads.first()) {
                    Some(thread) => format!("thread {}: {}", thread.shown.tid, thread_words(thread)),
                    None if snapshot.unfinished => {
                        "looking at the process did not end within a second".into()
                    }
                    None => "the process is gone".into(),
                }
            }
        }
    }

    /// The thread that waits on what is blamed, where it is not known which thread owes the answer.
    fn in_it<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s SeenThread> {
        let cookie = match &self.blame()?.suspect {
            Suspect::Connect(op, _) => op.connect.cookie,
            Suspect::Lookup(op) => op.cookie,
            Suspect::Peer(socket, _) => socket.cookie,
        };
        snapshot.threads.iter().find(|thread| thread.sockets.contains(&cookie))
    }
}
