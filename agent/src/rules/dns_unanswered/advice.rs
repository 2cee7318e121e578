//! Why lookups get no answer, and what to do about it: by what was found out about the server, and about the program.

use super::say::Says;
use crate::{
    fact::Process,
    pipeline::{
        incident::{DnsOutcome, DnsReason},
        remedy::Remedy,
    },
    rules::{drops, neighbours, resolvers},
    text::host::host,
};

impl Says<'_> {
    pub(super) fn why(&self) -> Vec<String> {
        let mut why = Vec::new();
        match self.reason {
            _ if !self.group.explained_by.is_empty() => {
                why.push(neighbours::why(&self.group.explained_by, self.view).to_owned());
            }
            DnsReason::EdnsUnanswered | DnsReason::LongAnswerLost => {
                why.extend(self.edns().map(|edns| edns.why().to_owned()));
            }
            DnsReason::UpstreamUnanswered => why.push(resolvers::BEHIND.into()),
            DnsReason::HalfUnanswered => why.push(resolvers::HALF.into()),
            DnsReason::TcpUnanswered => {
                why.push("An answer that is too long for UDP comes truncated, and the resolver asks for it again over TCP port 53.".into());
                if let Some(verdict) = self.verdict() {
                    why.push(verdict.why);
                }
            }
            DnsReason::Failing if !self.is_reached() => why.push(
                "It gives no answer: each lookup waits for its timeout before another server is asked, or is given up."
                    .into(),
            ),
            DnsReason::Failing => why.push(
                "The server is reached, and cannot find out, or only late: its own upstream, or the servers of these \
                 names, do not answer it, or their signatures (DNSSEC) do not hold."
                    .into(),
            ),
            DnsReason::Unanswered if self.answers() => why.push(
                "The server is up and reached: either this packet was lost on the way, or it waits itself for the servers \
                 of this name."
                    .into(),
            ),
            DnsReason::Unanswered | DnsReason::ServerSilent => why.push(
                "Silence is what a firewall that drops, a server that is down or a missing route back looks like; a \
                 closed port would have refused. It costs a resolver's whole timeout (glibc: 5 s a try) each time."
                    .into(),
            ),
        }
        if let Some(address) = self.found.reverse_of {
            why.push(format!(
                "It looks up the name of {address} (PTR): a server that does so for each client says nothing to it before \
                 that is answered."
            ));
        }
        if !self.found.searched.is_empty() {
            let names: Vec<_> = self.found.searched.iter().map(|name| host(name)).collect();
            why.push(format!(
                "{} of its search list {} asked for first and {} not exist: {}.",
                if names.len() == 1 { "1 name".to_owned() } else { format!("{} names", names.len()) },
                if names.len() == 1 { "was" } else { "were" },
                if names.len() == 1 { "does" } else { "do" },
                names.join(", ")
            ));
        }
        for narrowed in self.view.world.known.narrowed() {
            why.push(format!(
                "Only {narrowed} were watched: what else was asked and answered is missing here."
            ));
        }
        why
    }

    /// The server has answered at all.
    fn is_reached(&self) -> bool {
        [DnsOutcome::Slow, DnsOutcome::Servfail].iter().any(|how| self.group.outcomes.contains_key(how))
    }

    fn verdict(&self) -> Option<drops::Verdict> {
        drops::verdict(&self.found.connect.as_ref()?.connect, self.view.world)
    }

    pub(super) fn remedies(&self, process: Option<&Process>) -> Vec<Remedy> {
        let (world, op) = (self.view.world, self.op);
        let ip = self.group.server();
        let mut remedies = match (self.reason, &self.found.upstream) {
            _ if !self.group.explained_by.is_empty() => {
                neighbours::remedies(&self.group.explained_by, self.view)
            }
            (DnsReason::UpstreamUnanswered, Some(upstream)) => resolvers::behind(upstream, world),
            (DnsReason::HalfUnanswered, _) => resolvers::half_lost(),
            (DnsReason::EdnsUnanswered | DnsReason::LongAnswerLost, _) => self.without_edns(process),
            (DnsReason::TcpUnanswered, _) => match self.verdict() {
                Some(verdict) => verdict.remedies,
                None => vec![
                    format!("allow tcp/53 to {ip} in the firewalls and security groups on the way").into(),
                    resolvers::dig(op, &["+tcp"], world),
                ],
            },
            (DnsReason::Failing, _) if !self.is_reached() => resolvers::silent(op, world),
            (DnsReason::Failing, _) => vec![
                Remedy::from("see whether it is the signatures, which this leaves out: ")
                    .and(resolvers::dig(op, &["+cd"], world)),
                format!("see which servers {ip} asks and whether they answer, or name a resolver that answers in /etc/resolv.conf")
                    .into(),
            ],
            (DnsReason::Unanswered, _) if self.answers() => vec![
                Remedy::from("see whether the name's own servers answer: ")
                    .and(resolvers::dig(op, &["+trace"], world)),
                Remedy::from("and the server: ").and(resolvers::dig(op, &[], world)),
            ],
            _ => resolvers::silent(op, world),
        };
        if !self.found.searched.is_empty() {
            remedies.push(
                "write the name with a dot at its end, or lower ndots in /etc/resolv.conf (of a pod: dnsConfig.options)"
                    .into(),
            );
        }
        if self.found.reverse_of.is_some() {
            remedies.extend(process.and_then(reverse_off).map(Remedy::from));
        }
        remedies
    }
}

impl Says<'_> {
    /// What to do where EDNS is what makes the difference.
    fn without_edns(&self, process: Option<&Process>) -> Vec<Remedy> {
        let (world, op, ip) = (self.view.world, self.op, self.group.server());
        let long = self.reason == DnsReason::LongAnswerLost;
        let pass = match long {
            true => format!(
                "let answers of {ip} beyond 512 bytes pass, fragments too, on the way (no DNS inspection with a maximum \
                 length), and allow tcp/53"
            ),
            false => format!(
                "let UDP port 53 with EDNS pass on the way to {ip}: no DNS inspection that refuses OPT records or limits \
                 a message to 512 bytes"
            ),
        };
        vec![
            Remedy::from("a query without EDNS is answered: ").and(resolvers::dig(
                op,
                &["+noedns", "+ignore"],
                world,
            )),
            Remedy::from("and one with it is not: ").and(resolvers::dig(op, &["+edns=0", "+ignore"], world)),
            until_then(process, ip, long).into(),
            pass.into(),
        ]
    }
}

/// How a program does without EDNS, in the words of its own configuration.
fn until_then(process: Option<&Process>, ip: std::net::IpAddr, long: bool) -> String {
    let exe = process.map(|process| process.exe.as_deref().unwrap_or(&process.comm)).unwrap_or_default();
    match (exe.rsplit('/').next().unwrap_or_default(), long) {
        ("named", false) => format!("until then: server {ip} {{ edns no; }}; in named.conf"),
        ("named", true) => "until then: edns-udp-size 512; in the options of named.conf".into(),
        ("unbound", _) => "until then: edns-buffer-size: 512 in the server section of unbound.conf".into(),
        ("dnsmasq", _) => "until then: edns-packet-max=512 in dnsmasq.conf, and no dnssec or add-subnet".into(),
        _ => "until then: take edns0 out of \"options edns0 trust-ad\" in /etc/resolv.conf (glibc); for a Go program set \
              GODEBUG=netedns0=0"
            .into(),
    }
}

/// How a server that looks up the names of its clients does without: in the words of its own configuration.
fn reverse_off(process: &Process) -> Option<&'static str> {
    let program = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).unwrap_or(&process.comm);
    Some(match program {
        "mariadbd" | "mysqld" => {
            "turn the lookup off: skip_name_resolve=ON below [mysqld]; grants then go by addresses alone"
        }
        "postgres" => {
            "turn the lookup off: log_hostname = off in postgresql.conf, and addresses instead of names in pg_hba.conf"
        }
        "sshd" | "sshd-session" => "turn the lookup off: UseDNS no in sshd_config",
        _ => return None,
    })
}
