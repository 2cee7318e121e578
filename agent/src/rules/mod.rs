//! One diagnosis a file, and the table everything else derives from: `culprit list rules`, the README.

use crate::pipeline::Rule;

mod address_conflict;
mod after_handshake;
mod biography;
#[cfg(test)]
mod client_hello;
mod clock_skewed;
mod clock_stepped;
mod clocks;
mod connect_failing;
mod connect_stalled;
mod connection_stalled;
mod dns_unanswered;
mod drops;
mod families;
mod fetch;
mod listen_queue_full;
mod neighbour_conflict;
mod neighbour_stale;
mod neighbour_table_full;
mod neighbour_unresolved;
mod neighbours;
#[cfg(test)]
mod neighbours_tests;
mod resolvers;
mod response_overdue;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod scene_lookups;
mod text;
mod threads;
mod tls_failing;
mod tls_handshake_stalled;
#[cfg(test)]
mod untrusted_names;

/// Every rule. Those that explain come before those that would otherwise report the same again.
pub const RULES: &[Rule] = &[
    clock_stepped::RULE,
    clock_skewed::RULE,
    neighbour_unresolved::RULE,
    neighbour_stale::RULE,
    neighbour_conflict::RULE,
    address_conflict::RULE,
    neighbour_table_full::RULE,
    listen_queue_full::RULE,
    tls_handshake_stalled::RULE,
    connection_stalled::RULE,
    dns_unanswered::RULE,
    tls_failing::RULE,
    connect_stalled::RULE,
    connect_failing::RULE,
    response_overdue::RULE,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::RULES;
    use crate::pipeline::Pipeline;

    #[test]
    fn every_table_has_a_name_of_its_own_and_a_bound() {
        let tables = Pipeline::new(RULES).tables();
        let names: BTreeSet<_> = tables.iter().map(|table| table.name).collect();
        assert_eq!(names.len(), tables.len(), "{names:?}");
        assert!(tables.iter().all(|table| table.capacity > 0 && table.entries == 0));
    }
}
