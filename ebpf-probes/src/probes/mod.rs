//! One probe a file: its records, its hooks, its programs. The [`PROBES`] table is what everything
//! else derives from: flags, help, `list`, `doctor`, the README's table, metric labels.

pub mod clock;
pub mod connect;
pub mod dns;
pub mod neigh;
pub mod tls;

use crate::spec::Probe;

/// Every probe, in the order help and documentation list them.
pub const PROBES: &[Probe] = &[connect::PROBE, tls::PROBE, dns::PROBE, neigh::PROBE, clock::PROBE];

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
