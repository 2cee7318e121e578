//! Neighbours as text: one line a change, with what was before where it is gone now.

use std::{fmt::Write as _, net::IpAddr};

use super::{
    NeighbourCause, NeighbourChanged, NeighbourClaimed, NeighbourConnectionReset, NeighbourMacMismatch,
    NeighbourPacketQueued, NeighbourRecovered, NeighbourRetransmit, NeighbourTableFull, NeighbourTransition,
    Retransmitted, What,
};
use crate::{
    fact::{Endpoint, Phrase, Tone, peer},
    text::{duration::line as duration, shown},
};

pub(super) fn phrase(what: &What) -> Phrase {
    match what {
        What::NeighbourChanged(change) => {
            let (text, tone) = changed(change);
            about(change.address, Some(&change.device), change.netns.as_ref(), text, tone)
        }
        What::NeighbourTableFull(NeighbourTableFull {
            address,
            device,
            netns,
            family,
            gc_entries,
            gc_thresh3,
            count,
            ..
        }) => {
            let text = format!(
                "{family} neighbour table full: {gc_entries} entries of {gc_thresh3} (gc_thresh3), {count} refused"
            );
            about(*address, Some(device), netns.as_ref(), text, Tone::Bad)
        }
        What::NeighbourMacMismatch(NeighbourMacMismatch {
            address,
            device,
            netns,
            cached_mac,
            seen_mac,
            state,
            syns,
            ..
        }) => {
            let text =
                format!("SYN from {seen_mac}, but replies go to {cached_mac} ({state}), {syns} so far");
            about(*address, device.as_ref(), netns.as_ref(), text, Tone::Bad)
        }
        What::NeighbourClaimed(NeighbourClaimed {
            address,
            device,
            netns,
            cached_mac,
            claimed_mac,
            state,
            confirmed_ms,
            ..
        }) => {
            let mut text = format!("claimed by {claimed_mac} too ({}), not believed: ", protocol(*address));
            let _ = write!(text, "packets go to {cached_mac} ({state}");
            if let Some(ms) = confirmed_ms {
                let _ = write!(text, ", confirmed {} ago", duration(*ms));
            }
            text.push(')');
            about(*address, device.as_ref(), netns.as_ref(), text, Tone::Slow)
        }
        What::NeighbourRetransmit(NeighbourRetransmit {
            address,
            device,
            netns,
            cached_mac,
            seen_mac,
            state,
            packet,
            destination,
            local_port,
            unanswered,
            ..
        }) => {
            let what = match packet {
                Retransmitted::SynAck => "SYN-ACK",
                Retransmitted::Syn => "SYN",
                Retransmitted::Data => "data",
                Retransmitted::Datagram => "datagram",
            };
            let text = match packet {
                Retransmitted::Datagram => format!(
                    "does not hear us: the same {what} again :{local_port} ← {}, its answers go to {cached_mac} ({state}), it comes from {seen_mac}, {unanswered} so far",
                    peer(destination)
                ),
                _ => format!(
                    "does not hear us: {what} :{local_port} → {} retransmitted to {cached_mac} ({state}), its packets come from {seen_mac}, {unanswered} so far",
                    peer(destination)
                ),
            };
            about(*address, device.as_ref(), netns.as_ref(), text, Tone::Bad)
        }
        What::NeighbourRecovered(NeighbourRecovered {
            address,
            device,
            netns,
            cached_mac,
            destination,
            local_port,
            ..
        }) => {
            let text = format!(
                "hears us after all: :{local_port} → {} established, by way of {cached_mac}",
                peer(destination)
            );
            about(*address, device.as_ref(), netns.as_ref(), text, Tone::Good)
        }
        What::NeighbourConnectionReset(NeighbourConnectionReset {
            address,
            device,
            netns,
            cached_mac,
            seen_mac,
            destination,
            local_port,
            resets,
            ..
        }) => {
            let text = format!(
                "two machines: {cached_mac} resets :{local_port} ← {}, which {seen_mac} goes on asking for, {resets} so far",
                peer(destination)
            );
            about(*address, device.as_ref(), netns.as_ref(), text, Tone::Bad)
        }
        What::NeighbourPacketQueued(NeighbourPacketQueued {
            address,
            device,
            netns,
            protocol,
            source,
            destination,
            queued,
        }) => {
            // Without a port there is nothing to say but the address.
            let end = |end: &Endpoint| {
                if end.port == 0 { end.ip.to_string() } else { peer(end) }
            };
            let text = format!(
                "unanswered: {} {} → {} waits for it, {queued} queued",
                protocol.to_uppercase(),
                end(source),
                end(destination)
            );
            about(*address, device.as_ref(), netns.as_ref(), text, Tone::Slow)
        }
    }
}

fn about(
    address: IpAddr,
    device: Option<&String>,
    netns: Option<&String>,
    text: String,
    tone: Tone,
) -> Phrase {
    let mut peer = format!("{address} dev {}", device.map_or("?".into(), |device| shown(device)));
    if let Some(netns) = netns {
        let _ = write!(peer, "@{}", shown(netns));
    }
    Phrase { arrow: "", peer, text, tone }
}

/// Who asks and answers.
fn protocol(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ARP" } else { "NDP" }
}

fn changed(change: &NeighbourChanged) -> (String, Tone) {
    let NeighbourChanged { address, cause, old_state, new_state, old_mac, new_mac, .. } = change;
    let protocol = protocol(*address);
    let mac = new_mac.as_deref().unwrap_or("no MAC");
    let another = old_mac.is_some() && new_mac.is_some() && old_mac != new_mac;
    match change.transition {
        NeighbourTransition::Resolving if old_state.as_deref() == Some("FAILED") => {
            (format!("asked again ({protocol})"), Tone::Plain)
        }
        NeighbourTransition::Resolving => (format!("asked ({protocol}), MAC not known yet"), Tone::Plain),
        NeighbourTransition::Resolved => {
            let mut text = format!("answered: {mac}");
            if let Some(ms) = change.old_state_ms.filter(|_| old_state.as_deref() == Some("INCOMPLETE")) {
                let _ = write!(text, " after {}", duration(ms));
            }
            (text, Tone::Good)
        }
        NeighbourTransition::Learned => (format!("learned: {mac} ({protocol} packet)"), Tone::Plain),
        NeighbourTransition::MacChanged => {
            let mut text = format!("moved: {} → {mac}", old_mac.as_deref().unwrap_or("no MAC"));
            if *cause == NeighbourCause::Packet {
                let _ = write!(text, " ({protocol} packet)");
            }
            (text, Tone::Slow)
        }
        NeighbourTransition::Set => {
            let now = new_mac.iter().map(String::as_str).filter(|_| new_state != "FAILED");
            let now: Vec<&str> = now.chain([new_state.as_str()]).collect();
            let tone = if another { Tone::Slow } else { Tone::Plain };
            (format!("set by hand: {}{}", now.join(" "), before(change)), tone)
        }
        NeighbourTransition::Noarp => {
            (format!("needs no {protocol} any more{}", before(change)), Tone::Plain)
        }
        NeighbourTransition::Failed => (failed(change), Tone::Bad),
        NeighbourTransition::Removed => (format!("removed{}", before(change)), Tone::Plain),
        NeighbourTransition::PacketDropped => {
            ("packet dropped: the entry had just been removed".into(), Tone::Bad)
        }
    }
}

/// What was known before, if anything was.
fn before(change: &NeighbourChanged) -> String {
    match (&change.old_mac, change.old_state.as_deref()) {
        // What is cached then is not valid.
        (Some(mac), Some(state)) if !matches!(state, "FAILED" | "INCOMPLETE") => {
            format!(" (was {mac} {state})")
        }
        (_, Some(state)) if state != "NONE" => format!(" (was {state})"),
        (Some(mac), None) => format!(" (was {mac})"),
        _ => String::new(),
    }
}

fn failed(change: &NeighbourChanged) -> String {
    let mut said = Vec::new();
    // Asked where it was last known, it did not confirm.
    if let (Some("PROBE"), Some(mac)) = (change.old_state.as_deref(), &change.old_mac) {
        said.push(format!("gave up on {mac}"));
    }
    match change.unanswered {
        Some(1) => said.push("1 question unanswered".into()),
        Some(count) => said.push(format!("{count} questions unanswered")),
        None => said.push("no answer".into()),
    }
    // Which may be longer than these questions took: traffic has it asked for again each time.
    said.extend(change.old_state_ms.map(|ms| format!("silent for {}", duration(ms))));
    if change.new_state == "INCOMPLETE" {
        said.push("asked again".into());
    }
    format!("FAILED: {}", said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "02:00:5e:10:00:01";
    const B: &str = "02:00:5e:10:00:02";

    /// State and MAC.
    type Entry<'a> = (&'a str, Option<&'a str>);

    fn change(transition: NeighbourTransition, old: Entry<'_>, new: Entry<'_>) -> NeighbourChanged {
        NeighbourChanged {
            transition,
            address: [10, 0, 1, 90].into(),
            device: "eth0".into(),
            netns: None,
            cause: NeighbourCause::Packet,
            old_state: Some(old.0.to_owned()),
            new_state: new.0.to_owned(),
            old_mac: old.1.map(str::to_owned),
            new_mac: new.1.map(str::to_owned),
            failed: transition == NeighbourTransition::Failed,
            probes: 0,
            unanswered: (transition == NeighbourTransition::Failed).then_some(3),
            old_state_ms: Some(3100.0),
        }
    }

    #[test]
    fn a_change_is_one_readable_line() {
        use NeighbourTransition as M;
        let table = [
            (M::Resolving, ("NONE", None), ("INCOMPLETE", None), "asked (ARP), MAC not known yet"),
            (M::Resolving, ("FAILED", None), ("INCOMPLETE", None), "asked again (ARP)"),
            (
                M::Resolved,
                ("INCOMPLETE", None),
                ("REACHABLE", Some(A)),
                "answered: 02:00:5e:10:00:01 after 3.1 s",
            ),
            (M::Learned, ("NONE", None), ("STALE", Some(A)), "learned: 02:00:5e:10:00:01 (ARP packet)"),
            (
                M::MacChanged,
                ("STALE", Some(A)),
                ("STALE", Some(B)),
                "moved: 02:00:5e:10:00:01 → 02:00:5e:10:00:02 (ARP packet)",
            ),
            (
                M::Set,
                ("STALE", Some(B)),
                ("PERMANENT", Some(A)),
                "set by hand: 02:00:5e:10:00:01 PERMANENT (was 02:00:5e:10:00:02 STALE)",
            ),
            (
                M::Set,
                ("STALE", Some(B)),
                ("FAILED", Some(B)),
                "set by hand: FAILED (was 02:00:5e:10:00:02 STALE)",
            ),
            (
                M::Failed,
                ("INCOMPLETE", None),
                ("FAILED", None),
                "FAILED: 3 questions unanswered, silent for 3.1 s",
            ),
            (
                M::Failed,
                ("PROBE", Some(A)),
                ("FAILED", Some(A)),
                "FAILED: gave up on 02:00:5e:10:00:01, 3 questions unanswered, silent for 3.1 s",
            ),
            (
                M::Failed,
                ("INCOMPLETE", None),
                ("INCOMPLETE", None),
                "FAILED: 3 questions unanswered, silent for 3.1 s, asked again",
            ),
            (M::Removed, ("STALE", Some(A)), ("NONE", None), "removed (was 02:00:5e:10:00:01 STALE)"),
            (M::Removed, ("FAILED", Some(A)), ("NONE", None), "removed (was FAILED)"),
        ];
        for (transition, old, new, expected) in table {
            assert_eq!(changed(&change(transition, old, new)).0, expected);
        }
    }

    #[test]
    fn a_neighbour_is_named_as_ip_neigh_names_it_and_asked_for_in_its_family_s_way() {
        let mut asked = change(NeighbourTransition::Resolving, ("NONE", None), ("INCOMPLETE", None));
        asked.address = "fe80::1".parse().expect("an address");
        asked.netns = Some("blue".into());
        let said = phrase(&What::NeighbourChanged(asked));
        assert_eq!(
            (said.peer.as_str(), said.text.as_str()),
            ("fe80::1 dev eth0@blue", "asked (NDP), MAC not known yet")
        );
    }

    #[test]
    fn a_waiter_without_ports_is_named_by_its_addresses() {
        let end =
            |last| crate::fact::Endpoint { ip: [10, 0, 1, last].into(), port: 0, name: None, wire: None };
        let waited = What::NeighbourPacketQueued(NeighbourPacketQueued {
            address: [10, 0, 1, 90].into(),
            device: None,
            netns: None,
            protocol: "icmp".into(),
            source: end(1),
            destination: end(90),
            queued: 2,
        });
        let said = phrase(&waited);
        assert_eq!(said.peer, "10.0.1.90 dev ?");
        assert_eq!(said.text, "unanswered: ICMP 10.0.1.1 → 10.0.1.90 waits for it, 2 queued");
    }
}
