//! Neighbours as text.

use std::fmt::Write as _;

use super::{Mood, Said, printable};
use crate::fact::{NeighbourCause, What};

fn on(device: &str, netns: Option<&str>) -> String {
    match netns {
        Some(netns) => format!("{}@{}", printable(device), printable(netns)),
        None => printable(device),
    }
}

pub(super) fn say(what: &What) -> Option<Said> {
    let about = |address: &std::net::IpAddr, device: &str, netns: &Option<String>, text, mood| Said {
        arrow: "",
        peer: format!("{address} {}", on(device, netns.as_deref())),
        text,
        mood,
    };
    Some(match what {
        What::NeighbourChanged {
            address,
            device,
            netns,
            cause,
            old_state,
            new_state,
            old_mac,
            new_mac,
            failed,
            probes,
            ..
        } => {
            let mut text = match (cause, old_state) {
                (NeighbourCause::Removed, _) => "removed".to_owned(),
                (_, Some(old)) if old != new_state => format!("{old} → {new_state}"),
                _ => new_state.clone(),
            };
            match (old_mac, new_mac) {
                (Some(old), Some(new)) if old != new => {
                    let _ = write!(text, "  MAC changed {old} → {new}");
                }
                (_, Some(mac)) if !matches!(new_state.as_str(), "INCOMPLETE" | "FAILED") => {
                    let _ = write!(text, "  {mac}");
                }
                _ => {}
            }
            if *failed {
                text.push_str("  nobody answered");
            } else if matches!(new_state.as_str(), "INCOMPLETE" | "PROBE") {
                let _ = write!(text, "  probe {probes}");
            }
            text.push_str(match cause {
                NeighbourCause::Netlink => "  set by hand",
                NeighbourCause::SentToRemoved => "  packet for a removed entry dropped",
                _ => "",
            });
            let changed = old_mac.is_some() && new_mac.is_some() && old_mac != new_mac;
            let mood = if *failed {
                Mood::Bad
            } else if changed {
                Mood::Slow
            } else {
                Mood::Plain
            };
            about(address, device, netns, text, mood)
        }
        What::NeighbourTableFull {
            address, device, netns, family, gc_entries, gc_thresh3, count, ..
        } => {
            let text = format!(
                "{family} neighbour table full: {gc_entries} entries of {gc_thresh3} (gc_thresh3), {count} refused"
            );
            about(address, device, netns, text, Mood::Bad)
        }
        What::NeighbourMacMismatch { address, device, netns, cached_mac, seen_mac, state, syns, .. } => {
            let text =
                format!("SYN from {seen_mac}, but replies go to {cached_mac} ({state}), {syns} so far");
            about(address, device.as_deref().unwrap_or("?"), netns, text, Mood::Bad)
        }
        _ => return None,
    })
}
