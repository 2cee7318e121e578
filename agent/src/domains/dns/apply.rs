//! DNS lookups: queries matched with answers, names remembered, silence reported.

use std::{collections::VecDeque, net::IpAddr};

use ebpf_probes::{
    abi::{IPPROTO_UDP, Owner, Tuple},
    probes::{
        connect::Connect,
        dns::{DnsWire, PROBE},
    },
    spec::Probe,
};
use simple_dns::{
    Packet, PacketFlag,
    rdata::{A, AAAA, RData},
};

use super::{
    DnsMessage, LookupOp, Record, What,
    streams::Streams,
    words::{named, rcode_name, type_name},
};
use crate::{
    domains::{Domain, Emitted, ms},
    fact::{Endpoint, Protocol},
    known::{
        Answer, Known,
        bounded::{Bounded, Table},
        wire,
    },
    records,
    text::host::Name,
};

/// Lookups under way remembered at most.
const LOOKUPS: usize = 4096;
/// Sockets whose questions go elsewhere than asked, remembered at most.
const WIRES: usize = 1024;
/// Silence is reported after this long, and again each time it has doubled; then the lookup is forgotten.
const FIRST_NS: u64 = 1_000_000_000;
const FORGET_NS: u64 = 60_000_000_000;

/// Lookups that took longer than this are remembered for a while after their end.
const SLOW_NS: u64 = 100_000_000;
/// How many.
const ENDED: usize = 256;

/// What is remembered of lookups.
pub struct Memory {
    pending: Bounded<(u64, u16), Lookup>,
    ended: VecDeque<LookupOp>,
    streams: Streams,
    /// Whither the questions of a socket go, where that is not the server asked for.
    wires: Bounded<u64, DnsWire>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            pending: Bounded::new(LOOKUPS),
            ended: VecDeque::new(),
            streams: Streams::default(),
            wires: Bounded::new(WIRES),
        }
    }
}

#[derive(Clone)]
struct Lookup {
    owner: Owner,
    tuple: Tuple,
    name: Name,
    query_type: String,
    started_ns: u64,
    queries: u32,
    report_at_ns: u64,
    /// Whither it went, where that is not the server asked for.
    wire: Option<DnsWire>,
}

impl Lookup {
    /// The server that was asked.
    fn server(&self, known: &Known) -> Endpoint {
        server(known, &self.tuple, &self.owner, self.wire.as_ref())
    }

    fn operation(&self, cookie: u64) -> LookupOp {
        LookupOp {
            cookie,
            owner: self.owner,
            server: self.tuple.remote,
            name: self.name.clone(),
            query_type: self.query_type.clone(),
            started_ns: self.started_ns,
            queries: self.queries,
            ended_ns: None,
            failed: false,
        }
    }
}

/// The server asked for, and whither the question really went.
fn server(known: &Known, tuple: &Tuple, owner: &Owner, record: Option<&DnsWire>) -> Endpoint {
    let asked = known.remote(tuple, owner);
    let wire = record.and_then(|record| wire(&asked, record.translated, &record.wire));
    Endpoint { wire, ..asked }
}

fn protocol(tuple: &Tuple) -> Protocol {
    if tuple.protocol == IPPROTO_UDP { Protocol::Udp } else { Protocol::Tcp }
}

fn apply(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    message: &DnsMessage,
    facts: &mut Vec<Emitted<What>>,
) {
    if message.tuple.protocol == IPPROTO_UDP {
        one(memory, known, boot_ns, message, &message.data, facts);
        return;
    }
    for whole in memory.streams.reassemble(message) {
        one(memory, known, boot_ns, message, &whole, facts);
    }
}

fn one(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    message: &DnsMessage,
    data: &[u8],
    facts: &mut Vec<Emitted<What>>,
) {
    let Ok(packet) = Packet::parse(data) else {
        return cut(memory, known, boot_ns, message, data, facts);
    };
    let Some(question) = packet.questions.first() else { return };
    let question = (named(&question.qname), type_name(question.qtype));
    if packet.has_flags(PacketFlag::RESPONSE) {
        if message.ingress {
            answered(memory, known, boot_ns, message, &packet, question, facts);
        }
    } else if !message.ingress {
        asked(memory, known, boot_ns, message, packet.id(), question, facts);
    }
}

/// A message the parser refuses: an answer longer than what was captured still has its header and
/// question, so that its lookup does not look unanswered.
fn cut(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    message: &DnsMessage,
    data: &[u8],
    facts: &mut Vec<Emitted<What>>,
) {
    let (Some(&[high, low]), Some(&flags)) = (data.first_chunk::<2>(), data.get(2)) else { return };
    if !message.ingress || flags & 0x80 == 0 {
        return;
    }
    let id = u16::from_be_bytes([high, low]);
    if let Some(lookup) = memory.end(boot_ns, (message.cookie, id), false) {
        let server = lookup.server(known);
        let rcode = data.get(3).map_or(0, |byte| byte & 15);
        facts.push(Emitted {
            boot_ns,
            owner: lookup.owner,
            what: What::DnsAnswer {
                protocol: protocol(&message.tuple),
                server,
                name: lookup.name.text,
                name_invalid: lookup.name.invalid,
                query_type: lookup.query_type,
                rcode: rcode_name(u16::from(rcode).into()),
                answers: vec![],
                truncated: flags & 2 != 0,
                latency_ms: Some(ms(boot_ns.saturating_sub(lookup.started_ns))),
            },
        });
    }
}

fn asked(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    message: &DnsMessage,
    id: u16,
    (name, query_type): (Name, String),
    facts: &mut Vec<Emitted<What>>,
) {
    let key = (message.cookie, id);
    // A socket may ask one server after the other: what was said of an earlier question holds no longer.
    let wire = memory.wires.remove(&message.cookie);
    if let Some(lookup) = memory.pending.get_mut(&key)
        && lookup.name == name
        && lookup.query_type == query_type
    {
        // A question the kernel held says itself how often it was sent.
        match message.queries {
            0 => lookup.queries = lookup.queries.saturating_add(1),
            sent => {
                lookup.queries = sent;
                return;
            }
        }
    } else {
        let lookup = Lookup {
            owner: message.owner,
            tuple: message.tuple,
            name: name.clone(),
            query_type: query_type.clone(),
            started_ns: boot_ns,
            queries: message.queries.max(1),
            report_at_ns: boot_ns.saturating_add(FIRST_NS),
            wire,
        };
        memory.pending.insert(key, lookup);
    }
    let server = server(known, &message.tuple, &message.owner, wire.as_ref());
    let what = What::DnsQuery {
        protocol: protocol(&message.tuple),
        server,
        name: name.text,
        name_invalid: name.invalid,
        query_type,
    };
    facts.push(Emitted { boot_ns, owner: message.owner, what });
}

fn answered(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    message: &DnsMessage,
    packet: &Packet<'_>,
    (name, query_type): (Name, String),
    facts: &mut Vec<Emitted<What>>,
) {
    let key = (message.cookie, packet.id());
    let lookup = match memory.pending.get(&key) {
        Some(lookup) if lookup.name == name => memory.end(boot_ns, key, false),
        _ => memory.pending.remove(&key).and(None),
    };
    // Who asked this; threads may share a socket.
    let owner = match &lookup {
        Some(lookup) if lookup.owner.process != 0 => lookup.owner,
        _ => message.owner,
    };
    let server = records::address(message.tuple.remote);
    // A name that no host may have is no host's; an answer of another server than the one asked is none.
    let believed = name.invalid.is_none()
        && lookup.as_ref().is_none_or(|lookup| lookup.tuple.remote == message.tuple.remote);
    let answer = Answer {
        name: name.text.to_ascii_lowercase(),
        asker: known.asker(owner.process),
        server,
        until_ns: 0,
    };
    let mut add = |ip: IpAddr, ttl_s: u32| {
        if believed {
            known.names.add(owner.netns, ip, boot_ns, ttl_s, answer.clone());
        }
    };
    let mut answers = Vec::new();
    for record in &packet.answers {
        match &record.rdata {
            RData::A(A { address }) => {
                let ip = std::net::Ipv4Addr::from(*address);
                add(ip.into(), record.ttl);
                answers.push(ip.to_string());
            }
            RData::AAAA(AAAA { address }) => {
                let ip = std::net::Ipv6Addr::from(*address);
                add(ip.into(), record.ttl);
                answers.push(ip.to_string());
            }
            RData::CNAME(target) => answers.push(named(&target.0).text),
            RData::PTR(target) => answers.push(named(&target.0).text),
            _ => {}
        }
    }
    let what = What::DnsAnswer {
        protocol: protocol(&message.tuple),
        // The answer may come from another address than the one asked: it is translated back further on.
        server: match &lookup {
            Some(lookup) => lookup.server(known),
            None => known.remote(&message.tuple, &owner),
        },
        name: name.text,
        name_invalid: name.invalid,
        query_type,
        rcode: rcode_name(packet.rcode()),
        answers,
        truncated: packet.has_flags(PacketFlag::TRUNCATION),
        latency_ms: lookup.map(|lookup| ms(boot_ns.saturating_sub(lookup.started_ns))),
    };
    facts.push(Emitted { boot_ns, owner, what });
}

/// A UDP socket reported an error: its lookups will not be answered.
pub fn failed(
    memory: &mut Memory,
    known: &Known,
    boot_ns: u64,
    connect: &Connect,
    errno: &str,
    facts: &mut Vec<Emitted<What>>,
) {
    let keys: Vec<_> = memory
        .pending
        .iter_mut()
        .filter(|((cookie, _), _)| *cookie == connect.cookie)
        .map(|(key, _)| *key)
        .collect();
    for key in keys {
        let Some(lookup) = memory.end(boot_ns, key, true) else { continue };
        let what = What::DnsFailed {
            server: lookup.server(known),
            name: lookup.name.text,
            name_invalid: lookup.name.invalid,
            query_type: lookup.query_type,
            errno: errno.to_owned(),
            answered_by_host: known.host_icmp(connect),
            elapsed_ms: ms(boot_ns.saturating_sub(lookup.started_ns)),
        };
        facts.push(Emitted { boot_ns, owner: lookup.owner, what });
    }
}

/// Time passed: reports unanswered lookups.
fn tick(memory: &mut Memory, known: &Known, boot_ns: u64, facts: &mut Vec<Emitted<What>>) {
    let mut due = Vec::new();
    let mut over = Vec::new();
    for (key, lookup) in memory.pending.iter_mut() {
        if boot_ns < lookup.report_at_ns {
            continue;
        }
        let elapsed = boot_ns.saturating_sub(lookup.started_ns);
        lookup.report_at_ns = lookup.started_ns.saturating_add(elapsed.saturating_mul(2));
        due.push((lookup.started_ns, *key));
        if elapsed > FORGET_NS {
            over.push(*key);
        }
    }
    due.sort_unstable();
    for (_, key) in due {
        let Some(lookup) = memory.pending.get(&key) else { continue };
        let what = What::DnsPending {
            protocol: protocol(&lookup.tuple),
            server: lookup.server(known),
            name: lookup.name.text.clone(),
            name_invalid: lookup.name.invalid,
            query_type: lookup.query_type.clone(),
            queries: lookup.queries,
            elapsed_ms: ms(boot_ns.saturating_sub(lookup.started_ns)),
        };
        facts.push(Emitted { boot_ns, owner: lookup.owner, what });
    }
    for key in over {
        memory.pending.remove(&key);
    }
}

impl Domain for Memory {
    type Record = Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn record(&mut self, known: &mut Known, boot_ns: u64, record: &Record, facts: &mut Vec<Emitted<What>>) {
        match record {
            Record::Message(message) => apply(self, known, boot_ns, message, facts),
            Record::Wire(record) => self.goes(record),
        }
    }

    fn tick(&mut self, known: &Known, now_ns: u64, facts: &mut Vec<Emitted<What>>) {
        tick(self, known, now_ns, facts);
    }

    fn tables(&self) -> Vec<Table> {
        vec![self.pending.table("lookups"), self.streams.table(), self.wires.table("dns_translated")]
    }
}

impl Memory {
    /// The next question of a socket goes elsewhere than asked.
    fn goes(&mut self, record: &DnsWire) {
        self.wires.insert(record.cookie, *record);
    }

    /// Lookups of these owners under way, and those that took long and have ended.
    pub fn operations(&self, of: impl Fn(&Owner) -> bool) -> Vec<LookupOp> {
        let pending = self.pending.iter().filter(|(_, lookup)| of(&lookup.owner));
        let pending = pending.map(|((cookie, _), lookup)| lookup.operation(*cookie));
        pending.chain(self.ended.iter().filter(|op| of(&op.owner)).cloned()).collect()
    }

    /// A lookup was answered, or failed.
    fn end(&mut self, boot_ns: u64, key: (u64, u16), failed: bool) -> Option<Lookup> {
        let lookup = self.pending.remove(&key)?;
        if boot_ns.saturating_sub(lookup.started_ns) > SLOW_NS {
            if self.ended.len() >= ENDED {
                self.ended.pop_front();
            }
            let op = LookupOp { ended_ns: Some(boot_ns), failed, ..lookup.operation(key.0) };
            self.ended.push_back(op);
        }
        Some(lookup)
    }
}
