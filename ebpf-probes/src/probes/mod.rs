//! One probe a file: its records, its hooks, its programs. The [`PROBES`] table is what everything
//! else derives from: flags, help, `list`, `doctor`, the README's table, metric labels.

pub mod clock;
pub mod connect;
pub mod dns;
pub mod neigh;
pub mod tls;

use crate::{
    abi::{Kind, ProbeId},
    spec::Probe,
};

/// Every probe, in the order help and documentation list them.
pub const PROBES: &[Probe] = &[connect::PROBE, tls::PROBE, dns::PROBE, neigh::PROBE, clock::PROBE];

/// The probe of a kind of records; none of what the agent says of itself.
pub fn probe_of(kind: Kind) -> Option<&'static Probe> {
    PROBES.iter().find(|probe| probe.kinds.contains(&kind))
}

// Numbers: a probe's is its place in the table, and no two kinds of records have the same.
const _: () = {
    let mut seen = [false; 256];
    seen[Kind::TICK.0 as usize] = true;
    seen[Kind::LOST.0 as usize] = true;
    assert!(PROBES.len() <= ProbeId::MOST);
    let mut at = 0;
    while at < PROBES.len() {
        assert!(PROBES[at].id.0 as usize == at);
        let mut kind = 0;
        while kind < PROBES[at].kinds.len() {
            let number = PROBES[at].kinds[kind].0 as usize;
            assert!(number != 0 && !seen[number]);
            seen[number] = true;
            kind += 1;
        }
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::tls::{self, CLIENT, SERVER, stage};
    use crate::metrics::{COUNTERS, Ended, NeighEvent, counter};

    #[test]
    fn counters_of_one_thing_never_share_a_number_with_another() {
        let mut all = vec![counter::SYN_RETRANSMITS, counter::SYNACK_RETRANSMITS, counter::DNS_QUERIES];
        all.extend(Ended::ALL.iter().map(|ended| counter::CONNECTS + *ended as u32));
        all.extend((0..counter::DNS_RCODES).map(|rcode| counter::DNS_RESPONSES + rcode));
        for role in [CLIENT, SERVER] {
            all.extend((stage::DONE..=stage::NOT_TLS).map(|stage| tls::ended(role, stage)));
        }
        for event in NeighEvent::ALL {
            all.extend([false, true].map(|v6| counter::neigh(*event, v6)));
        }
        let len = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), len);
        assert!(all.iter().all(|number| (*number as usize) < COUNTERS));
    }
}
