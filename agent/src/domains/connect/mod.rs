//! Outbound connects: TCP, and UDP sockets that get a peer.

mod apply;
mod decode;
mod describe;
mod drops;
mod fact;
mod families;
mod operations;
mod text;
mod unacked;

use std::{collections::HashMap, net::IpAddr};

use ebpf_probes::{
    abi::Owner,
    probes::connect::{Connect, PROBE},
    spec::Probe,
};

pub use apply::outcome;
pub use decode::{ConnectStep, Record, decode};
pub use fact::{DataEnd, DropPlace, DropSite, DroppedPacket, Outcome, What};
pub use operations::ConnectOp;
pub use text::outcome_name;
pub use unacked::{data_end, owner_of};

use super::{Domain, Emitted};
use crate::known::{
    Known,
    bounded::{Bounded, Table},
    context::Context,
};

/// What is remembered of connects.
pub struct Memory {
    /// Names of the kernel's drop reasons, by number.
    drop_reasons: HashMap<u32, String>,
    operations: operations::Operations,
    drops: drops::Drops,
    /// Successes over IPv4 of processes whose connects over IPv6 are silent, by process and port.
    ipv4: Bounded<(u32, u16), (IpAddr, u64)>,
    /// A connect over IPv6 was last seen waiting, CLOCK_BOOTTIME in nanoseconds.
    ipv6_waits_ns: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            drop_reasons: HashMap::new(),
            operations: operations::Operations::default(),
            drops: drops::Drops::default(),
            ipv4: Bounded::new(families::SUCCESSES),
            ipv6_waits_ns: 0,
        }
    }
}

impl Domain for Memory {
    type Record = Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn record(&mut self, known: &mut Known, boot_ns: u64, record: &Record, facts: &mut Vec<Emitted<What>>) {
        match record {
            Record::Connect(step, connect) => {
                self.operations.connect(boot_ns, *step, connect);
                self.family_of(boot_ns, *step, connect);
                if let Some(what) = self.means(known, boot_ns, *step, connect) {
                    facts.push(Emitted { boot_ns, owner: connect.owner, what });
                }
            }
            Record::Dropped(dropped) => self.drops.add(dropped),
            Record::Unacked(unacked) => facts.push(unacked::waits(known, boot_ns, unacked)),
            Record::Settled(unacked) => facts.push(unacked::settled(known, boot_ns, unacked)),
            Record::Overflow(overflow) => {
                let mut owner = Owner { netns: overflow.netns, ..Owner::default() };
                known.adopt(&mut owner, &overflow.tuple);
                let what = What::ListenQueueFull {
                    local: known.local(&overflow.tuple),
                    peer: known.remote(&overflow.tuple, &owner),
                    queued: overflow.queued,
                    limit: overflow.limit,
                    ignored_syns: overflow.ignored,
                    elapsed_ms: super::ms(boot_ns.saturating_sub(overflow.since_ns)),
                };
                facts.push(Emitted { boot_ns, owner, what });
            }
        }
    }

    fn context(&mut self, context: &Context) {
        if let Context::Origin { drop_reasons, .. } = context {
            let reason = |(name, number): &(String, u32)| {
                (*number, name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name).to_owned())
            };
            self.drop_reasons = drop_reasons.iter().map(reason).collect();
        }
    }

    fn tables(&self) -> Vec<Table> {
        vec![
            self.ipv4.table("ipv4_successes"),
            self.operations.connects.table("connects"),
            self.drops.table(),
        ]
    }
}

impl Memory {
    /// The kernel's word for a drop reason.
    pub fn drop_reason(&self, reason: u32) -> Option<String> {
        self.drop_reasons.get(&reason).cloned()
    }

    /// A connect that waits, or ended slowly or badly.
    pub fn operation(&self, cookie: u64) -> Option<&ConnectOp> {
        self.operations.connects.get(&cookie)
    }

    /// All of them, in no particular order.
    pub fn operations(&self) -> impl Iterator<Item = &ConnectOp> {
        self.operations.connects.values()
    }

    /// What a connect that waits is, as a fact of now.
    pub fn pending(&self, known: &Known, connect: &Connect, now_ns: u64) -> What {
        What::ConnectPending {
            source: known.local(&connect.tuple),
            destination: known.destination(connect),
            syn_retransmits: connect.retries,
            drops: connect.drops,
            answered_by_host: known.host_icmp(connect),
            since_before_start: connect.is_adopted(),
            elapsed_ms: super::ms(now_ns.saturating_sub(connect.started_ns)),
        }
    }
}
