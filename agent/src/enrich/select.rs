//! `-Z` and `--min-ms` for what the kernel cannot judge alone: whether a handshake or a lookup went
//! badly is known only when it is over, or when it waits.

use serde::{Deserialize, Serialize};

use crate::fact::{NeighbourMeaning, Outcome, What};

/// Slower than this is slow, milliseconds.
const SLOW_MS: f64 = 1000.0;

/// What the user asked to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    /// Facts without a known owner are left out: processes were asked for.
    pub by_owner: bool,
    /// Only what failed, was retried, is stuck, or was slow.
    pub only_bad: bool,
    /// Only what took at least this long, milliseconds.
    pub min_ms: u64,
}

impl Select {
    /// Whether a fact is worth telling.
    pub fn wants(&self, what: &What) -> bool {
        let (bad, ms) = judge(what);
        let long_enough = self.min_ms == 0 || ms.is_some_and(|ms| ms >= self.min_ms as f64);
        (!self.only_bad || bad) && long_enough
    }
}

/// Whether it is bad news, and how long it took or has taken.
fn judge(what: &What) -> (bool, Option<f64>) {
    match what {
        What::ConnectEnded { outcome, syn_retransmits, duration_ms, .. } => {
            (*outcome != Outcome::Established || *syn_retransmits > 0, Some(*duration_ms))
        }
        What::SynRetried { elapsed_ms, .. }
        | What::ConnectDropped { elapsed_ms, .. }
        | What::ConnectPending { elapsed_ms, .. }
        | What::HandshakePending { elapsed_ms, .. }
        | What::DnsPending { elapsed_ms, .. }
        | What::DnsFailed { elapsed_ms, .. } => (true, Some(*elapsed_ms)),
        What::Alert { duration_ms, .. }
        | What::HandshakeClosed { duration_ms, .. }
        | What::NotTls { duration_ms, .. } => (true, Some(*duration_ms)),
        What::HandshakeDone { duration_ms, .. } => (*duration_ms >= SLOW_MS, Some(*duration_ms)),
        What::DnsAnswer { rcode, latency_ms, .. } => {
            (rcode != "NOERROR" || latency_ms.is_some_and(|ms| ms >= SLOW_MS), *latency_ms)
        }
        What::NeighbourChanged(change) => {
            let lost = matches!(change.meaning, NeighbourMeaning::Failed | NeighbourMeaning::Dropped);
            let moved = change.new_mac.is_some() && change.old_mac.is_some();
            (lost || (moved && change.old_mac != change.new_mac), None)
        }
        What::NeighbourTableFull(_)
        | What::NeighbourMacMismatch(_)
        | What::NeighbourClaimed(_)
        | What::NeighbourUnheard(_)
        | What::NeighbourWaited(_)
        | What::ClockSet { .. }
        | What::ClockMoved { .. }
        | What::MachineSlept { .. } => (true, None),
        What::ClockSlewed { refused, .. } => (*refused, None),
        // Thirty seconds is where it begins to matter.
        What::ClockCompared { ahead_ns, .. } => (ahead_ns.unsigned_abs() >= 30_000_000_000, None),
        What::ConnectStarted { .. }
        | What::ClientHello { .. }
        | What::ServerHello { .. }
        | What::ServerFlightRead { .. }
        | What::ClientFinished { .. }
        | What::NeighbourHeard(_)
        | What::DnsQuery { .. } => (false, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rcode: &str, latency_ms: f64) -> What {
        What::DnsAnswer {
            protocol: crate::fact::Protocol::Udp,
            server: crate::fact::Endpoint { ip: [127, 0, 0, 1].into(), port: 53, name: None },
            name: "a.example".into(),
            query_type: "A".into(),
            rcode: rcode.into(),
            answers: vec![],
            truncated: false,
            latency_ms: Some(latency_ms),
        }
    }

    #[test]
    fn failures_only_leaves_out_what_went_well_and_quickly() {
        let only_bad = Select { only_bad: true, ..Select::default() };
        assert!(!only_bad.wants(&answer("NOERROR", 1.0)));
        assert!(only_bad.wants(&answer("SERVFAIL", 1.0)));
        assert!(only_bad.wants(&answer("NOERROR", 2000.0)));
    }

    #[test]
    fn a_minimum_leaves_out_what_has_no_duration() {
        let slow = Select { min_ms: 5, ..Select::default() };
        assert!(!slow.wants(&What::MachineSlept { slept_ms: 9.0 }));
        assert!(slow.wants(&answer("NOERROR", 5.0)) && !slow.wants(&answer("NOERROR", 4.9)));
    }

    #[test]
    fn without_a_filter_everything_is_told() {
        assert!(Select::default().wants(&What::MachineSlept { slept_ms: 9.0 }));
    }
}
