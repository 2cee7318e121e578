//! Neighbours: what each change means in words.

use ebpf_probes::probes::neigh::{MacRecord, NeighRecord, cause, flag, state};

use super::{Told, World, ask::SilentNeighbour, ms};
use crate::{
    event,
    fact::{NeighbourCause, What},
};

pub(super) fn changed(world: &mut World, boot_ns: u64, record: &NeighRecord, told: &mut Vec<Told>) {
    let device = event::comm(&record.device);
    world.device(record.netns, record.ifindex, device.clone());
    let address = event::address(record.address);
    let netns = world.netns_name(record.netns);
    if record.cause == cause::OVERFLOW {
        let what = What::NeighbourTableFull {
            family: if record.family == ebpf_probes::abi::AF_INET6 { "ipv6".into() } else { "ipv4".into() },
            address,
            device,
            netns,
            entries: record.entries,
            gc_entries: record.gc_entries,
            gc_thresh3: record.gc_thresh3,
            count: record.count,
        };
        told.push(("neigh", record.owner, what));
        return;
    }
    silence(world, boot_ns, record, &device);
    let by_hand = record.flags & flag::BY_HAND != 0;
    let cause = match record.cause {
        cause::UPDATED if by_hand => NeighbourCause::Netlink,
        cause::UPDATED => NeighbourCause::Packet,
        cause::TIMER => NeighbourCause::Timer,
        cause::SENT => NeighbourCause::Sent,
        cause::DEAD => NeighbourCause::SentToRemoved,
        _ => NeighbourCause::Removed,
    };
    let known = record.flags & flag::FIRST == 0;
    // `ip neigh del` sets an entry FAILED first: nobody was asked in vain.
    let failed = record.flags & flag::FAILED_BETWEEN != 0 || (record.new_state == state::FAILED && !by_hand);
    let what = What::NeighbourChanged {
        address,
        device,
        netns,
        cause,
        old_state: known.then(|| state_name(record.old_state)),
        new_state: state_name(record.new_state),
        old_mac: mac(&record.old_mac, record.mac_len),
        new_mac: mac(&record.new_mac, record.mac_len),
        failed,
        probes: record.probes,
        old_state_ms: (record.state_since_ns != 0).then(|| ms(boot_ns.saturating_sub(record.state_since_ns))),
    };
    told.push(("neigh", record.owner, what));
}

/// Remembers who is asked in vain.
fn silence(world: &mut World, boot_ns: u64, record: &NeighRecord, device: &str) {
    let key = (record.netns, record.address);
    let failed = record.flags & flag::FAILED_BETWEEN != 0 || record.new_state == state::FAILED;
    let since_ns = world.silent.get(&key).map_or(boot_ns, |known| known.since_ns);
    if record.new_state == state::INCOMPLETE || failed {
        let failed_ns = failed.then_some(boot_ns);
        world.silent.remove(&key);
        world.silent.insert(key, SilentNeighbour { device: device.to_owned(), since_ns, failed_ns });
    } else if world.silent.remove(&key).is_some_and(|known| known.failed_ns.is_some())
        && record.cause == cause::REMOVED
    {
        // Removed after it failed: it still explains what failed with it.
        let known = SilentNeighbour { device: device.to_owned(), since_ns, failed_ns: Some(boot_ns) };
        world.silent.insert(key, known);
    }
}

pub(super) fn mismatch(world: &World, boot_ns: u64, record: &MacRecord, told: &mut Vec<Told>) {
    let what = What::NeighbourMacMismatch {
        address: event::address(record.tuple.remote),
        device: world.device_name(record.netns, record.ifindex),
        netns: world.netns_name(record.netns),
        cached_mac: mac(&record.cached_mac, 6).unwrap_or_default(),
        seen_mac: mac(&record.seen_mac, 6).unwrap_or_default(),
        state: state_name(record.state),
        cached_for_ms: (record.mac_since_ns != 0).then(|| ms(boot_ns.saturating_sub(record.mac_since_ns))),
        local_port: record.tuple.local_port,
        syns: record.count,
    };
    told.push(("neigh", ebpf_probes::abi::Owner::default(), what));
}

/// `None` for an address of zeros: there is none.
pub(crate) fn mac(bytes: &[u8; 8], len: u16) -> Option<String> {
    let len = usize::from(len).min(bytes.len());
    if bytes[..len].iter().all(|&byte| byte == 0) {
        return None;
    }
    Some(bytes[..len].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// As `ip neigh` writes it.
pub(crate) fn state_name(bits: u32) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_as_ip_neigh_writes_them() {
        assert_eq!(state_name(state::STALE), "STALE");
        assert_eq!(state_name(0), "NONE");
    }

    #[test]
    fn an_address_of_zeros_is_none() {
        assert_eq!(mac(&[0; 8], 6), None);
        assert_eq!(mac(&[2, 0, 0, 0, 0, 1, 0, 0], 6).as_deref(), Some("02:00:00:00:00:01"));
    }
}
