//! DNS messages for scenes: questions as a resolver sends them, and the answers that come.

use ebpf_probes::{
    abi::{Header, IPPROTO_UDP, Kind as Record, Owner, Tuple},
    probes::dns::DNS_BYTES_HEAD,
};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, rdata::OPT};

use super::scene::{Scene, ns, owner, v4};
use crate::records::encode;

/// A question: whose it is, of which server it is asked, and its name.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) cookie: u64,
    pub(super) id: u16,
    pub(super) owner: Owner,
    pub(super) server: [u8; 16],
    pub(super) name: Name<'static>,
    pub(super) query_type: TYPE,
    pub(super) recursive: bool,
    /// With an OPT record.
    pub(super) edns: bool,
}

/// `process`'s question for the A record of a name, of 192.0.2.53.
pub(super) fn asks(cookie: u64, process: u32, name: &'static str) -> Asked {
    Asked {
        cookie,
        id: cookie as u16,
        owner: owner(process, process),
        server: v4(53),
        name: Name::new_unchecked(name),
        query_type: TYPE::A,
        recursive: true,
        edns: false,
    }
}

impl Asked {
    fn packet(&self, mut packet: Packet<'static>) -> Vec<u8> {
        if self.recursive {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if self.edns {
            *packet.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: 1232, version: 0 });
        }
        let (kind, class) = (QTYPE::TYPE(self.query_type), QCLASS::CLASS(CLASS::IN));
        packet.questions.push(Question::new(self.name.clone(), kind, class, false));
        packet.build_bytes_vec().expect("well-formed")
    }

    /// Its record as the kernel would write it.
    fn record(&self, at: u64, ingress: bool, data: &[u8]) -> bytes::Bytes {
        let len = (DNS_BYTES_HEAD + data.len()) as u32;
        let tuple = Tuple {
            local: v4(1),
            remote: self.server,
            local_port: 40_000,
            remote_port: 53,
            family: 2,
            protocol: IPPROTO_UDP,
        };
        let mut record = Vec::new();
        record.extend_from_slice(&encode(Header { boot_ns: ns(at), kind: Record::DNS_MESSAGE.0, len }));
        record.extend_from_slice(&self.cookie.to_ne_bytes());
        record.extend_from_slice(&encode(self.owner));
        record.extend_from_slice(&encode(tuple));
        for word in [0, data.len() as u32, u32::from(ingress), 0] {
            record.extend_from_slice(&word.to_ne_bytes());
        }
        record.extend_from_slice(data);
        record.into()
    }
}

impl Scene {
    /// The question is sent.
    pub(super) fn asks(&mut self, at: u64, asked: &Asked) {
        let data = asked.packet(Packet::new_query(asked.id));
        self.record(&asked.record(at, false, &data));
    }

    /// Its answer comes.
    pub(super) fn hears(&mut self, at: u64, asked: &Asked, rcode: RCODE) {
        let mut packet = Packet::new_reply(asked.id);
        *packet.rcode_mut() = rcode;
        let data = asked.packet(packet);
        self.record(&asked.record(at, true, &data));
    }

    /// Its answer comes, and is cut.
    pub(super) fn hears_truncated(&mut self, at: u64, asked: &Asked) {
        let mut packet = Packet::new_reply(asked.id);
        packet.set_flags(PacketFlag::TRUNCATION);
        let data = asked.packet(packet);
        self.record(&asked.record(at, true, &data));
    }
}
