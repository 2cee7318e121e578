//! What a record of one domain means for another.

use ebpf_probes::abi::IPPROTO_UDP;

use super::World;
use crate::domains::{
    Emitted, Event, Record, What,
    connect::{self, ConnectStep},
    dns, neighbour,
};

impl World {
    /// Applies an event to the domains that it is not of, and says what it means there.
    pub(super) fn linked(&mut self, event: &Event) -> Vec<Emitted<What>> {
        match &event.what {
            // A UDP socket has got an error: its lookups will not be answered.
            Record::Connect(connect::Record::Connect(ConnectStep::End, connect))
                if connect.tuple.protocol == IPPROTO_UDP =>
            {
                let Some(errno) = connect::outcome(connect).1 else { return vec![] };
                let mut facts = Vec::new();
                dns::failed(&mut self.domains.dns, &self.known, event.boot_ns, connect, &errno, &mut facts);
                facts.into_iter().map(|fact| fact.map(What::Dns)).collect()
            }
            // A packet that is forwarded belongs to a connect made elsewhere on this host.
            Record::Neighbour(neighbour::Record::Waiter(record)) if record.forwarded != 0 => {
                let cookie = self.forwarded_connect(&record.tuple).map_or(0, |op| op.connect.cookie);
                self.domains.neighbour.holds_up(cookie, record);
                vec![]
            }
            _ => vec![],
        }
    }
}
