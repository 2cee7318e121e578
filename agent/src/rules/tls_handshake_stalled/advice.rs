//! Why a handshake stalls, in two or three sentences, and what to do about it with the real values.

use ebpf_probes::abi::ProbeId;

use super::{
    Situation,
    blame::{Blame, Relation, Suspect},
    evidence::thread_words,
    say::Says,
    unread,
};
use crate::{
    correlate::{
        View,
        incident::{Cause, Confidence},
    },
    enrich::context::Posture,
    fact::Process,
    rules::{neighbours, text::address},
};

/// Plain HTTP: where issuer certificates, CRLs and OCSP answers come from (RFC 5280 §4.2.2.1, §4.2.1.13).
const HTTP: u16 = 80;

impl Says<'_> {
    pub(super) fn why(&self, cause: &Cause) -> Vec<String> {
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
    pub(super) fn caused_by(&self) -> Vec<String> {
        if let Some(blame) = self.blame() {
            return explained(&blame.suspect, self.view);
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

    pub(super) fn remedies(&self, process: Option<&Process>) -> Vec<String> {
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
}

fn unread_key(situation: &Situation) -> bool {
    situation.key == "unread"
}

/// Incidents about the neighbour underneath what is waited for.
pub(super) fn explained(suspect: &Suspect, view: &View<'_>) -> Vec<String> {
    match suspect {
        Suspect::Connect(op, _) => neighbours::explaining(&op.connect, view),
        Suspect::Lookup(_) | Suspect::Peer(..) => vec![],
    }
}
