//! Whatever a recording holds is applied without harm.

use bytes::Bytes;
use ebpf_probes::{abi::Kind, probes::PROBES};
use proptest::prelude::*;

use super::*;

/// Every kind of record there is.
fn kinds() -> Vec<Kind> {
    PROBES.iter().flat_map(|probe| probe.kinds).copied().chain([Kind::TICK, Kind::LOST]).collect()
}

/// A record of any kind, with any content: what a hostile recording may hold.
fn record() -> impl Strategy<Value = Bytes> {
    let body = proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 16..400);
    (0..kinds().len(), prop_oneof![any::<u64>(), 0u64..10_000_000_000], body).prop_map(
        |(kind, boot_ns, mut bytes)| {
            let len = bytes.len() as u32;
            bytes[..8].copy_from_slice(&boot_ns.to_ne_bytes());
            bytes[8..12].copy_from_slice(&kinds()[kind].0.to_ne_bytes());
            bytes[12..16].copy_from_slice(&len.to_ne_bytes());
            Bytes::from(bytes)
        },
    )
}

/// A DNS message of any content from a socket that asks and answers.
fn dns() -> impl Strategy<Value = Bytes> {
    use ebpf_probes::probes::dns::DNS_BYTES_HEAD;
    let content = proptest::collection::vec(any::<u8>(), 0..64);
    (content, any::<bool>(), any::<bool>(), any::<u32>(), any::<u64>()).prop_map(
        |(content, ingress, tcp, seq, boot_ns)| {
            let mut bytes = vec![0; DNS_BYTES_HEAD];
            let len = (DNS_BYTES_HEAD + content.len()) as u32;
            bytes[..8].copy_from_slice(&boot_ns.to_ne_bytes());
            bytes[8..12].copy_from_slice(&(Kind::DNS_MESSAGE.0).to_ne_bytes());
            bytes[12..16].copy_from_slice(&len.to_ne_bytes());
            bytes[102..104].copy_from_slice(&(if tcp { 6u16 } else { 17 }).to_ne_bytes());
            bytes[104..108].copy_from_slice(&seq.to_ne_bytes());
            bytes[108..112].copy_from_slice(&(content.len() as u32).to_ne_bytes());
            bytes[112..116].copy_from_slice(&u32::from(ingress).to_ne_bytes());
            bytes.extend(content);
            Bytes::from(bytes)
        },
    )
}

proptest! {
    #[test]
    fn any_sequence_of_records_is_applied_without_harm(
        records in proptest::collection::vec(prop_oneof![record(), dns()], 0..40),
    ) {
        let mut world = World::default();
        for record in &records {
            if let Ok(event) = crate::domains::decode(record) {
                world.apply(&event, |fact| {
                    let mut out = Vec::new();
                    serde_json::to_writer(&mut out, &fact).expect("every fact is JSON");
                });
            }
        }
    }
}
