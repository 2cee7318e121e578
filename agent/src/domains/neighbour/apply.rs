//! Neighbours: what each change means in words. One fact a change of meaning: an entry's own clockwork, and
//! each further question to a silent neighbour, are no news.

use ebpf_probes::{
    abi::{AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Owner},
    probes::neigh::{
        ClaimRecord, MacRecord, NeighKey, NeighRecord, PROBE, UnheardRecord, WaiterRecord, cause, flag,
        state, unheard,
    },
    spec::Probe,
};

use super::{
    Memory, NeighbourCause, NeighbourChanged, NeighbourClaimed, NeighbourConnectionReset,
    NeighbourMacMismatch, NeighbourPacketQueued, NeighbourRecovered, NeighbourRetransmit, NeighbourTableFull,
    NeighbourTransition, Record, Retransmitted, What, memory::Delayed, transition,
};
use crate::{
    domains::{Domain, Emitted, ms},
    known::{Known, bounded::Table, context::Context},
    records,
};

impl Domain for Memory {
    type Record = Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn before(&mut self, _known: &Known, now_ns: u64, facts: &mut Vec<Emitted<What>>) {
        while let Some(held) = self.overdue(now_ns) {
            facts.push(emitted_late(held));
        }
    }

    fn record(&mut self, known: &mut Known, boot_ns: u64, record: &Record, facts: &mut Vec<Emitted<What>>) {
        match record {
            Record::Change(record) => changed(self, known, boot_ns, record, facts),
            Record::Mac(record) => mismatch(known, boot_ns, record, facts),
            Record::Claim(record) => claimed(known, boot_ns, record, facts),
            Record::Unheard(record) => {
                self.goes_unheard(record);
                unheard(known, boot_ns, record, facts);
            }
            Record::Waiter(record) => {
                self.waits(record);
                waited(self, known, boot_ns, record, facts);
            }
        }
    }

    fn context(&mut self, context: &Context) {
        if let Context::Network(network) = context {
            self.network(network);
        }
    }

    fn tables(&self) -> Vec<Table> {
        self.all_tables()
    }
}

fn changed(
    memory: &mut Memory,
    known: &mut Known,
    boot_ns: u64,
    record: &NeighRecord,
    facts: &mut Vec<Emitted<What>>,
) {
    let device = records::comm(&record.device);
    known.device(record.netns(), record.ifindex, device.clone());
    let address = records::address(record.address);
    let netns = known.namespace(record.netns());
    if record.cause == cause::OVERFLOW {
        let what = What::NeighbourTableFull(NeighbourTableFull {
            family: if record.family == AF_INET6 { "ipv6".into() } else { "ipv4".into() },
            address,
            device,
            netns,
            entries: record.entries,
            gc_entries: record.gc_entries,
            gc_thresh3: record.gc_thresh3,
            count: record.count,
        });
        facts.push(Emitted { boot_ns, owner: record.owner, what });
        return;
    }
    memory.silence(boot_ns, record, &device);
    memory.remember(record, &device, boot_ns);
    let key = NeighKey { netns: record.netns(), ifindex: record.ifindex, pad: 0, address: record.address };
    let unanswered = memory.count(key, record);
    let held = memory.release(&key);
    let Some(transition) = transition::of(record) else {
        facts.extend(held.map(emitted_late));
        return;
    };
    let by_hand = record.flags & flag::BY_HAND != 0;
    let cause = match record.cause {
        cause::UPDATED if by_hand => NeighbourCause::Netlink,
        cause::UPDATED => NeighbourCause::Packet,
        cause::TIMER => NeighbourCause::Timer,
        cause::SENT => NeighbourCause::Sent,
        cause::DEAD => NeighbourCause::SentToRemoved,
        _ => NeighbourCause::Removed,
    };
    let was_known = record.flags & flag::FIRST == 0 || record.old_state != state::NONE;
    let failed = transition == NeighbourTransition::Failed;
    let mut owner = record.owner;
    let mut change = NeighbourChanged {
        transition,
        address,
        device,
        netns,
        cause,
        old_state: was_known.then(|| state_name(record.old_state)),
        new_state: state_name(record.new_state),
        old_mac: mac(&record.old_mac, record.mac_len),
        new_mac: mac(&record.new_mac, record.mac_len),
        failed,
        probes: record.probes,
        unanswered,
        old_state_ms: ago(boot_ns, record.state_since_ns),
    };
    match held {
        Some(held) if record.cause == cause::REMOVED => {
            owner = held.owner;
            change.old_state = held.change.old_state;
            change.old_mac = held.change.old_mac;
            change.old_state_ms = held.change.old_state_ms;
        }
        held => facts.extend(held.map(emitted_late)),
    }
    // `ip neigh del` sets an entry FAILED first: no question went unanswered.
    if by_hand && record.new_state == state::FAILED {
        memory.hold(Delayed { boot_ns, key, owner, change });
    } else {
        facts.push(Emitted { boot_ns, owner, what: What::NeighbourChanged(change) });
    }
}

/// What was held back and is no removal, with the moment it happened.
fn emitted_late(held: Delayed) -> Emitted<What> {
    Emitted { boot_ns: held.boot_ns, owner: held.owner, what: What::NeighbourChanged(held.change) }
}

fn mismatch(known: &Known, boot_ns: u64, record: &MacRecord, facts: &mut Vec<Emitted<What>>) {
    let what = What::NeighbourMacMismatch(NeighbourMacMismatch {
        address: records::address(record.neighbour()),
        device: known.device_at(record.netns(), record.ifindex),
        netns: known.namespace(record.netns()),
        cached_mac: mac(&record.cached_mac, 6).unwrap_or_default(),
        seen_mac: mac(&record.seen_mac, 6).unwrap_or_default(),
        state: state_name(record.state),
        cached_for_ms: ago(boot_ns, record.mac_since_ns),
        local_port: record.tuple.local_port,
        syns: record.count,
    });
    facts.push(Emitted { boot_ns, owner: Owner::default(), what });
}

fn claimed(known: &Known, boot_ns: u64, record: &ClaimRecord, facts: &mut Vec<Emitted<What>>) {
    let what = What::NeighbourClaimed(NeighbourClaimed {
        address: records::address(record.address),
        device: known.device_at(record.netns(), record.ifindex),
        netns: known.namespace(record.netns()),
        cached_mac: mac(&record.cached_mac, 6).unwrap_or_default(),
        claimed_mac: mac(&record.claimed_mac, 6).unwrap_or_default(),
        state: state_name(record.state),
        cached_for_ms: ago(boot_ns, record.mac_since_ns),
        confirmed_ms: ago(boot_ns, record.confirmed_ns),
    });
    facts.push(Emitted { boot_ns, owner: Owner::default(), what });
}

fn unheard(known: &Known, boot_ns: u64, record: &UnheardRecord, facts: &mut Vec<Emitted<What>>) {
    let packet = match record.what {
        unheard::ANSWERED | unheard::RESET => None,
        unheard::SYN_ACK => Some(Retransmitted::SynAck),
        unheard::SYN => Some(Retransmitted::Syn),
        // For the correlation alone: the packet itself was emitted as a difference.
        unheard::SPEAKS => return,
        unheard::DATAGRAM => Some(Retransmitted::Datagram),
        _ => Some(Retransmitted::Data),
    };
    let mut owner = record.owner;
    if owner.process == 0 && packet == Some(Retransmitted::SynAck) {
        owner.netns = record.netns();
        known.adopt(&mut owner, &record.tuple);
    }
    let address = records::address(record.neighbour());
    let device = known.device_at(record.netns(), record.ifindex);
    let netns = known.namespace(record.netns());
    let cached_mac = mac(&record.cached_mac, 6).unwrap_or_default();
    let seen_mac = mac(&record.seen_mac, 6).unwrap_or_default();
    let state = state_name(record.state);
    let destination = known.remote(&record.tuple, &Owner { netns: record.netns(), ..owner });
    let local_port = record.tuple.local_port;
    let unanswered = record.unanswered;
    let what = match packet {
        Some(packet) => What::NeighbourRetransmit(NeighbourRetransmit {
            address,
            device,
            netns,
            cached_mac,
            seen_mac,
            state,
            seen_for_ms: ago(boot_ns, record.seen_since_ns),
            cached_for_ms: ago(boot_ns, record.mac_since_ns),
            packet,
            destination,
            local_port,
            unanswered,
        }),
        None if record.what == unheard::RESET => What::NeighbourConnectionReset(NeighbourConnectionReset {
            address,
            device,
            netns,
            cached_mac,
            seen_mac,
            state,
            destination,
            local_port,
            resets: unanswered,
        }),
        None => What::NeighbourRecovered(NeighbourRecovered {
            address,
            device,
            netns,
            cached_mac,
            seen_mac,
            state,
            destination,
            local_port,
            unanswered,
        }),
    };
    facts.push(Emitted { boot_ns, owner, what });
}

fn waited(
    memory: &mut Memory,
    known: &Known,
    boot_ns: u64,
    record: &WaiterRecord,
    facts: &mut Vec<Emitted<What>>,
) {
    let key = NeighKey { netns: record.netns(), ifindex: record.ifindex, pad: 0, address: record.address };
    if !memory.is_news(key, record) {
        return;
    }
    // Names are known where the packet's owner lives, which need not be where it leaves.
    let netns = if !record.owner.netns.is_known() { record.netns() } else { record.owner.netns };
    let owner = Owner { netns, ..record.owner };
    let what = What::NeighbourPacketQueued(NeighbourPacketQueued {
        address: records::address(record.address),
        device: known.device_at(record.netns(), record.ifindex),
        netns: known.namespace(record.netns()),
        protocol: protocol_name(record.tuple.protocol),
        source: known.local(&record.tuple),
        destination: known.remote(&record.tuple, &owner),
        queued: record.queued,
    });
    facts.push(Emitted { boot_ns, owner: record.owner, what });
}

/// How long ago something was, when that is known.
fn ago(boot_ns: u64, since_ns: u64) -> Option<f64> {
    (since_ns != 0).then(|| ms(boot_ns.saturating_sub(since_ns)))
}

fn protocol_name(protocol: u16) -> String {
    match protocol {
        IPPROTO_TCP => "tcp".into(),
        IPPROTO_UDP => "udp".into(),
        1 => "icmp".into(),
        58 => "icmpv6".into(),
        other => other.to_string(),
    }
}

/// `None` for an address of zeros: there is none.
pub fn mac(bytes: &[u8; 8], len: u16) -> Option<String> {
    let len = usize::from(len).min(bytes.len());
    if bytes[..len].iter().all(|&byte| byte == 0) {
        return None;
    }
    Some(bytes[..len].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// As `ip neigh` writes it.
pub fn state_name(bits: u32) -> String {
    const NAMES: [(u32, &str); 8] = [
        (state::INCOMPLETE, "INCOMPLETE"),
        (state::REACHABLE, "REACHABLE"),
        (state::STALE, "STALE"),
        (state::DELAY, "DELAY"),
        (state::PROBE, "PROBE"),
        (state::FAILED, "FAILED"),
        (state::NOARP, "NOARP"),
        (state::PERMANENT, "PERMANENT"),
    ];
    let names: Vec<&str> = NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "NONE".into() } else { names.join("|") }
}
