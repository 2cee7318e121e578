//! The kinds of incidents: the one table of their names, the probe each needs, and what only it has. These are a
//! contract with the readers of incidents: they may grow, and what stands here stays.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    clocks::{ClockSkewedDetails, ClockSteppedDetails},
    connects::{
        ConnectFailingDetails, ConnectStalledDetails, ConnectionStalledDetails, ListenQueueFullDetails,
        ResponseOverdueDetails,
    },
    describe::DescribeDetails,
    handshakes::{TlsDetails, TlsFailingDetails},
    lookups::DnsUnansweredDetails,
    neighbours::{
        AddressConflictDetails, NeighbourConflictDetails, NeighbourStaleDetails, NeighbourTableFullDetails,
        NeighbourUnresolvedDetails,
    },
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal of $probe:literal: $details:ty,)+) => {
        /// Kinds of situations.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// Every kind, in order.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// As JSON, metrics and `culprit list rules` name it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            /// The probe without which there are no such incidents.
            pub fn probe(self) -> &'static str {
                match self {
                    $(Self::$kind => $probe,)+
                }
            }
        }

        /// What only one kind of incident has.
        #[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
        #[serde(untagged)]
        pub enum Details {
            $(#[doc = concat!("Of `", $name, "`.")] $kind($details),)+
        }

        impl Details {
            /// As the rest of the agent asks it.
            pub fn described(&self) -> &dyn DescribeDetails {
                match self { $(Self::$kind(details) => details,)+ }
            }
        }
    };
}

kinds! {
    /// A TLS handshake makes no progress and this host owes the next message.
    TlsHandshakeStalled = "tls_handshake_stalled" of "tls": TlsDetails,
    /// Handshakes of one program with one peer or service fail in the same way again and again.
    TlsFailing = "tls_failing" of "tls": TlsFailingDetails,
    /// A TCP connect is unanswered.
    ConnectStalled = "connect_stalled" of "connect": ConnectStalledDetails,
    /// The same process fails to connect to the same destination again and again.
    ConnectFailing = "connect_failing" of "connect": ConnectFailingDetails,
    /// Data on an established connection is sent again and not acknowledged.
    ConnectionStalled = "connection_stalled" of "connect": ConnectionStalledDetails,
    /// A service's accept queue is full, and new connections are ignored.
    ListenQueueFull = "listen_queue_full" of "connect": ListenQueueFullDetails,
    /// A process that was asked for waits for the answer to what the peer has acknowledged.
    ResponseOverdue = "response_overdue" of "connect": ResponseOverdueDetails,
    /// Lookups of a process get no answer, or late ones, or failures, outside any handshake that is stalled by them.
    DnsUnanswered = "dns_unanswered" of "dns": DnsUnansweredDetails,
    /// Traffic waits for a neighbour (ARP, NDP) that does not answer.
    NeighbourUnresolved = "neighbour_unresolved" of "neighbour": NeighbourUnresolvedDetails,
    /// Replies go to a MAC that is not the one the neighbour's packets come from, and it does not receive them.
    NeighbourStale = "neighbour_stale" of "neighbour": NeighbourStaleDetails,
    /// Two machines claim one address.
    NeighbourConflict = "neighbour_conflict" of "neighbour": NeighbourConflictDetails,
    /// Another host has an address of this one.
    AddressConflict = "address_conflict" of "neighbour": AddressConflictDetails,
    /// There is no room for another neighbour.
    NeighbourTableFull = "neighbour_table_full" of "neighbour": NeighbourTableFullDetails,
    /// The wall clock was set, or jumped.
    ClockStepped = "clock_stepped" of "clock": ClockSteppedDetails,
    /// The wall clock is wrong, and no step is known that made it so.
    ClockSkewed = "clock_skewed" of "clock": ClockSkewedDetails,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_and_a_probe_that_exists() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.name());
            assert!(ebpf_probes::probes::PROBES.iter().any(|probe| probe.name == kind.probe()), "{kind:?}");
        }
    }
}
