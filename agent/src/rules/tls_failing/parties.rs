//! With whom handshakes of a service fail, and which of them only probe it: a scanner, which wants no session, ends
//! handshakes in every way there is, offers each version in turn, or asks for no name, and never completes any. One that
//! refuses a certificate has looked at it, and is none.

use std::net::IpAddr;

use super::ending::Ending;
use crate::{
    domains::tls::Role,
    known::bounded::{Bounded, Table},
    pipeline::incident::TlsFailure,
    time::SECOND_NS,
};

/// Remembered at most.
const PARTIES: usize = 4096;
/// What was seen of one counts for this long.
const REMEMBERED_NS: u64 = 600 * SECOND_NS;

/// Those that fail, by the number of the service and the other end's address.
pub(super) struct Parties(Bounded<(u64, IpAddr), Party>);

#[derive(Debug, Clone, Default)]
struct Party {
    last_ns: u64,
    /// A bit for each failure seen, and each version offered.
    failures: u16,
    versions: u16,
    /// It has asked for a server by name.
    names: bool,
    /// It has completed a handshake.
    completed: bool,
}

impl Default for Parties {
    fn default() -> Self {
        Self(Bounded::new(PARTIES))
    }
}

impl Parties {
    pub(super) fn table(&self) -> Table {
        self.0.table("tls_failing_parties")
    }

    /// A handshake with it failed.
    pub(super) fn failed(
        &mut self,
        party: (u64, IpAddr),
        now_ns: u64,
        ending: &Ending,
        version: Option<&str>,
        names: bool,
    ) {
        let known =
            self.0.get(&party).is_some_and(|known| now_ns.saturating_sub(known.last_ns) < REMEMBERED_NS);
        if !known {
            self.0.insert(party, Party::default());
        }
        let Some(known) = self.0.get_mut(&party) else { return };
        known.last_ns = now_ns;
        known.failures |= 1 << ending.failure as u16;
        known.versions |= version.map_or(0, bit);
        known.names |= names;
    }

    /// One was completed, with a party of which some failed.
    pub(super) fn completed(&mut self, party: (u64, IpAddr)) {
        if let Some(known) = self.0.get_mut(&party) {
            known.completed = true;
        }
    }

    /// Whether it only probes, as far as failures of this kind show; `role` is this host's.
    pub(super) fn probes(&self, party: (u64, IpAddr), failure: TlsFailure, role: Role) -> bool {
        if failure == TlsFailure::ServerFlightRefused {
            return false;
        }
        self.0.get(&party).is_some_and(|known| {
            let (ways, versions) = (known.failures.count_ones(), known.versions.count_ones());
            let is_odd = match role {
                Role::Server => !known.names || ways > 1 || versions > 1,
                Role::Client => ways > 2 || versions > 1,
            };
            is_odd && !known.completed
        })
    }
}

/// A bit for each version there is, and one for all others.
fn bit(version: &str) -> u16 {
    const VERSIONS: [&str; 5] = ["SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"];
    1 << VERSIONS.iter().position(|known| *known == version).unwrap_or(VERSIONS.len())
}
