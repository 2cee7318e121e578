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
        remedy::Remedy,
    },
    enrich::context::Posture,
    fact::Process,
    rules::{
        neighbours,
        text::{self, address},
    },
    text::{shell::Command, shown},
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

    pub(super) fn remedies(&self, process: Option<&Process>) -> Vec<Remedy> {
        let pid = process.map_or(0, |process| process.pid);
        let Some(blame) = self.blame() else {
            let go_on = Command::new("kill").arg("-CONT").arg(pid);
            let stacks =
                Command::new("gdb").arg("-p").arg(pid).arg("-batch").arg("-ex").arg("thread apply all bt");
            return match self.posture() {
                Posture::Stopped => vec![go_on.into()],
                _ if unread(self.hs) && self.idle_service().contains("stopped") => {
                    vec![Remedy::from("once it is clear who stopped it: ").and(go_on)]
                }
                _ if unread(self.hs) => vec![
                    "give the service more threads, or shorten what they are busy with".into(),
                    Remedy::from("see what they do: ")
                        .and(Command::new("ps").words("-L -o tid,stat,wchan:32,comm -p").arg(pid))
                        .and(" or ")
                        .and(stacks),
                ],
                _ => vec![
                    Remedy::from("see where it is: ")
                        .and(stacks)
                        .and(" (or ")
                        .and(Command::new("jstack").arg(pid))
                        .and(", ")
                        .and(Command::new("py-spy").words("dump -p").arg(pid))
                        .and(")"),
                ],
            };
        };
        let cause = self.cause();
        let Some(to) = cause.destination else { return vec![] };
        let (ip, port) = (to.ip, to.port);
        match &blame.suspect {
            Suspect::Connect(_, Some((ip, silent))) => vec![
                text::silent_neighbour(*ip, &silent.device),
                format!("or correct the address that is fetched from: {}", address(&to)).into(),
            ],
            Suspect::Connect(op, None) => {
                let mut remedies = vec![if op.connect.drops > 0 {
                    text::allow_here(ip, port)
                } else {
                    format!("allow egress tcp/{port} to {ip}").into()
                }];
                if port == HTTP {
                    remedies.extend(self.fetch_remedies(process));
                } else {
                    let whose = process.map_or("the process".into(), |process| shown(&process.comm));
                    remedies.push(
                        format!(
                            "give that connect a short timeout, or move it out of the handshake of {whose}"
                        )
                        .into(),
                    );
                }
                remedies
            }
            Suspect::Lookup(op) => vec![
                // By options: a name may look like one, or like a server.
                Command::new("dig")
                    .arg(format!("@{ip}"))
                    .arg("-t")
                    .arg(&op.query_type)
                    .arg("-q")
                    .arg(&op.name.text)
                    .into(),
                format!(
                    "allow udp/53 and tcp/53 to {ip}, or name a resolver that answers in /etc/resolv.conf"
                )
                .into(),
            ],
            Suspect::Peer(socket, _) => vec![
                format!("look at the service at {}: it accepts and does not answer", address(&to)).into(),
                Remedy::from(format!("(descriptor {} of {pid}) ", socket.fd))
                    .and(Command::new("ss").arg("-tnoi").arg(format!("dst {ip} dport = :{port}"))),
                "give that request a short timeout".into(),
            ],
        }
    }

    /// How to do without the fetch.
    fn fetch_remedies(&self, process: Option<&Process>) -> Vec<Remedy> {
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
        vec![chain.into(), off.into()]
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
