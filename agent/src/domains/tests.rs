//! Records of any content, and the filters over every kind of fact.

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind},
    probes::PROBES,
};
use proptest::prelude::*;

use super::*;
use crate::{
    fact::{Endpoint, Protocol},
    records::{address_bytes, encode},
};

/// Every kind of record there is.
fn kinds() -> Vec<Kind> {
    PROBES.iter().flat_map(|probe| probe.kinds).copied().chain([Kind::TICK, Kind::LOST]).collect()
}

#[test]
fn every_probe_has_a_domain_and_every_kind_of_record_is_decoded_by_it() {
    let probes: Vec<&str> = PROBES.iter().map(|probe| probe.name).collect();
    assert_eq!(DOMAINS, probes);
    for kind in kinds() {
        let mut record = vec![0; 1024];
        record[8..12].copy_from_slice(&kind.0.to_ne_bytes());
        record[12..16].copy_from_slice(&1024u32.to_ne_bytes());
        let decoded = decode(&Bytes::from(record));
        assert!(!matches!(decoded, Err(Error::UnknownKind(_))), "{kind:?}: {decoded:?}");
    }
}

#[test]
fn an_unknown_kind_is_named() {
    let record = encode(Header { boot_ns: 0, kind: 999, len: 16 });
    assert_eq!(decode(&record), Err(Error::UnknownKind(999)));
}

#[test]
fn a_length_beyond_the_record_is_refused() {
    let record = encode(Header { boot_ns: 7, kind: Kind::TLS_BYTES.0, len: 4000 });
    assert_eq!(decode(&record), Err(Error::Short { len: 16, need: 4000 }));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
        let _ = decode(&Bytes::from(bytes));
    }

    #[test]
    fn any_bytes_behind_a_good_header_decode_or_are_refused(
        kind in 0..kinds().len(), len in 0u32..400, mut bytes in proptest::collection::vec(any::<u8>(), 16..400),
    ) {
        bytes[8..12].copy_from_slice(&kinds()[kind].0.to_ne_bytes());
        bytes[12..16].copy_from_slice(&len.to_ne_bytes());
        let _ = decode(&Bytes::from(bytes));
    }
}

fn wants(select: &Select, what: &What) -> bool {
    what.is_wanted(select)
}

fn answer(rcode: &str, latency_ms: f64) -> What {
    What::Dns(dns::What::DnsAnswer {
        protocol: Protocol::Udp,
        server: Endpoint { ip: [127, 0, 0, 1].into(), port: 53, name: None, wire: None },
        name: "a.example".into(),
        name_invalid: None,
        query_type: "A".into(),
        rcode: rcode.into(),
        answers: vec![],
        truncated: false,
        latency_ms: Some(latency_ms),
    })
}

#[test]
fn failures_only_leaves_out_what_went_well_and_quickly() {
    let only_bad = Select { only_bad: true, ..Select::default() };
    assert!(!wants(&only_bad, &answer("NOERROR", 1.0)));
    assert!(wants(&only_bad, &answer("SERVFAIL", 1.0)));
    assert!(wants(&only_bad, &answer("NOERROR", 2000.0)));
}

#[test]
fn a_minimum_leaves_out_what_has_no_duration() {
    let slow = Select { min_ms: 5, ..Select::default() };
    assert!(!wants(&slow, &What::Clock(clock::What::Suspended { suspended_ms: 9.0 })));
    assert!(wants(&slow, &answer("NOERROR", 5.0)) && !wants(&slow, &answer("NOERROR", 4.9)));
}

fn asked(server: &str) -> What {
    let at: std::net::SocketAddr = server.parse().expect("an address");
    What::Dns(dns::What::DnsQuery {
        protocol: Protocol::Udp,
        server: Endpoint { ip: at.ip(), port: at.port(), name: None, wire: None },
        name_invalid: None,
        name: "a.example".into(),
        query_type: "A".into(),
    })
}

#[test]
fn lookups_are_chosen_by_their_server_s_network_port_and_family() {
    let within = |address: &str, length| {
        let address = address_bytes(address.parse().expect("an address"));
        Select { destinations: vec![(address, length)], ..Select::default() }
    };
    assert!(wants(&within("10.1.0.0", 96 + 16), &asked("10.1.2.3:53")));
    assert!(!wants(&within("10.1.0.0", 96 + 16), &asked("10.2.2.3:53")));
    assert!(!wants(&within("10.1.0.0", 96 + 16), &asked("[fd00::1]:53")));
    assert!(wants(&within("::", 0), &asked("[fd00::1]:53")));
    assert!(wants(&within("fd00::1", 128), &asked("[fd00::1]:53")));
    let port = |port| Select { ports: vec![port], ..Select::default() };
    assert!(wants(&port(53), &asked("10.1.2.3:53")) && !wants(&port(443), &asked("10.1.2.3:53")));
    let only_v6 = Select { only_v6: Some(true), ..Select::default() };
    assert!(wants(&only_v6, &asked("[fd00::1]:53")) && !wants(&only_v6, &asked("10.1.2.3:53")));
    // What has no peer is reported whatever is asked for.
    assert!(wants(&port(443), &What::Clock(clock::What::Suspended { suspended_ms: 9.0 })));
}

#[test]
fn without_a_filter_everything_is_reported() {
    assert!(wants(&Select::default(), &What::Clock(clock::What::Suspended { suspended_ms: 9.0 })));
}
