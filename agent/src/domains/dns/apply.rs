//! DNS messages applied: queries matched with answers, names remembered, failures reported.

use std::net::IpAddr;

use ebpf_probes::{
    abi::IPPROTO_UDP,
    probes::{connect::Connect, dns::PROBE},
    spec::Probe,
};
use simple_dns::{
    Packet, PacketFlag,
    rdata::{A, AAAA, RData},
};

use super::{
    DnsMessage, Record, What,
    heard::{Edns, Heard, Verdict},
    memory::{FIRST_NS, Lookup, Memory, protocol, server, tick},
    words::{named, rcode_name, type_name},
};
use crate::{
    domains::{Domain, Emitted, ms},
    known::{Answer, Known, bounded::Table},
    records,
    text::host::Name,
};

/// An answer over UDP is no longer than this, unless the question had EDNS (RFC 1035 §4.2.1).
const PLAIN_BYTES: u32 = 512;

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
        let recursive = packet.has_flags(PacketFlag::RECURSION_DESIRED);
        let head = Head { id: packet.id(), recursive, udp_size: packet.opt().map(|opt| opt.udp_packet_size) };
        asked(memory, known, boot_ns, message, head, question, facts);
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
    let rcode = data.get(3).map_or(0, |byte| byte & 15);
    let verdict = Verdict::of(u16::from(rcode).into());
    if let Some(lookup) = memory.end(boot_ns, (message.cookie, id), Some(verdict)) {
        let server = lookup.server(known);
        memory.answers.add(Heard {
            at_ns: boot_ns,
            owner: lookup.owner,
            server: lookup.tuple.remote,
            name: lookup.name.text.to_ascii_lowercase(),
            query_type: lookup.query_type.clone(),
            verdict,
            truncated: flags & 2 != 0,
            edns: if message.wire_len > PLAIN_BYTES { Edns::With } else { lookup.edns },
            over_udp: message.tuple.protocol == IPPROTO_UDP,
        });
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

/// What a question says beside its question.
#[derive(Clone, Copy)]
struct Head {
    id: u16,
    recursive: bool,
    /// What its OPT record says of the size of an answer over UDP, if it has one.
    udp_size: Option<u16>,
}

fn asked(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    message: &DnsMessage,
    head: Head,
    (name, query_type): (Name, String),
    facts: &mut Vec<Emitted<What>>,
) {
    let key = (message.cookie, head.id);
    let edns = if head.udp_size.is_some() { Edns::With } else { Edns::Without };
    // A socket may ask one server after the other: what was said of an earlier question holds no longer.
    let wire = memory.wires.remove(&message.cookie);
    if let Some(lookup) = memory.pending.get_mut(&key)
        && lookup.name == name
        && lookup.query_type == query_type
    {
        // A question the kernel held says itself how often it was sent.
        lookup.udp_size = head.udp_size.unwrap_or(lookup.udp_size);
        match message.queries {
            0 => {
                lookup.queries = lookup.queries.saturating_add(1);
                lookup.edns_queries += u32::from(head.udp_size.is_some());
                lookup.edns = edns;
                lookup.sent_ns = lookup.sent_ns.max(boot_ns);
            }
            sent => {
                if sent > lookup.queries {
                    lookup.sent_ns = lookup.sent_ns.max(memory.now_ns);
                }
                lookup.queries = sent;
                if head.udp_size.is_some() {
                    lookup.edns_queries = sent;
                }
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
            // One that was held is dated when it was first sent.
            sent_ns: if message.queries > 1 { memory.now_ns.max(boot_ns) } else { boot_ns },
            recursive: head.recursive,
            queries: message.queries.max(1),
            edns_queries: head.udp_size.map_or(0, |_| message.queries.max(1)),
            udp_size: head.udp_size.unwrap_or_default(),
            edns: if message.queries > 1 { Edns::Unseen } else { edns },
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
    let verdict = Verdict::of(packet.rcode());
    let lookup = match memory.pending.get(&key) {
        Some(lookup) if lookup.name == name => memory.end(boot_ns, key, Some(verdict)),
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
    memory.answers.add(Heard {
        at_ns: boot_ns,
        owner,
        server: lookup.as_ref().map_or(message.tuple.remote, |lookup| lookup.tuple.remote),
        name: answer.name,
        query_type: query_type.clone(),
        verdict,
        truncated: packet.has_flags(PacketFlag::TRUNCATION),
        edns: match &lookup {
            _ if packet.opt().is_some() => Edns::With,
            Some(lookup) => lookup.edns,
            None => Edns::Unseen,
        },
        over_udp: message.tuple.protocol == IPPROTO_UDP,
    });
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
        let Some(lookup) = memory.end(boot_ns, key, None) else { continue };
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

impl Domain for Memory {
    type Record = Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn before(&mut self, _known: &Known, _now_ns: u64, _facts: &mut Vec<Emitted<What>>) {
        self.ended_now.clear();
    }

    fn record(&mut self, known: &mut Known, boot_ns: u64, record: &Record, facts: &mut Vec<Emitted<What>>) {
        match record {
            Record::Message(message) => apply(self, known, boot_ns, message, facts),
            Record::Wire(record) => self.goes(record),
        }
    }

    fn tick(&mut self, known: &Known, now_ns: u64, facts: &mut Vec<Emitted<What>>) {
        self.now_ns = self.now_ns.max(now_ns);
        tick(self, known, now_ns, facts);
    }

    fn tables(&self) -> Vec<Table> {
        vec![
            self.pending.table("lookups"),
            self.streams.table(),
            self.wires.table("dns_translated"),
            self.answers.table(),
        ]
    }
}
