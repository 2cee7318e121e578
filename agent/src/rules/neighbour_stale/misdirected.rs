//! Frames that come to the end of a tunnel on this host for a MAC that is not its own: the machine that sends them has an entry of
//! the past for the next hop (flannel's and others' PERMANENT entries, after a node's device got another MAC). Seen of
//! packets of connects that are pending here. Which machine sends them is not known.

use std::collections::BTreeSet;

use ebpf_probes::{
    abi::Netns,
    probes::connect::{Dropped, packet, place},
};

use crate::{
    domains::connect::ConnectOp,
    known::bounded::{Bounded, Table},
    pipeline::{
        View,
        incident::{Confidence, Details, Kind, NeighbourPlace, NeighbourStaleDetails, Severity},
        report::Report,
    },
    records,
    rules::{
        drops,
        neighbours::{self, on},
        text::{count, duration},
    },
};

/// Devices and MACs followed at most.
const FOLLOWED: usize = 64;
/// Connects counted at most.
const CONNECTS: usize = 64;
/// A connect is given this long to get through after all.
const PATIENCE_NS: u64 = 1_000_000_000;
/// No connect has lost a packet that way for this long.
const QUIET_NS: u64 = 60_000_000_000;

/// A device, in its namespace, and the MAC that frames came for.
type Key = (Netns, u32, [u8; 6]);

pub(super) struct Misdirected {
    seen: Bounded<Key, Seen>,
}

struct Seen {
    last: Dropped,
    since_ns: u64,
    last_ns: u64,
    /// Cookies of the connects whose packets they were.
    connects: BTreeSet<u64>,
    id: Option<String>,
}

impl Default for Misdirected {
    fn default() -> Self {
        Self { seen: Bounded::new(FOLLOWED) }
    }
}

impl Misdirected {
    pub(super) fn table(&self) -> Table {
        self.seen.table("neighbour_stale_misdirected")
    }

    pub(super) fn lost(&mut self, lost: &Dropped, at_ns: u64, view: &mut View<'_>) {
        if lost.at & place::TUNNEL == 0 || lost.at & packet::MASK == packet::RESET {
            return;
        }
        let key = (lost.netns, lost.ifindex, lost.frame_mac);
        if self.seen.get(&key).is_none() {
            let connects = BTreeSet::new();
            self.seen.insert(key, Seen { last: *lost, since_ns: at_ns, last_ns: at_ns, connects, id: None });
        }
        let Some(seen) = self.seen.get_mut(&key) else { return };
        (seen.last, seen.last_ns) = (*lost, at_ns);
        let is_news = seen.connects.len() < CONNECTS && seen.connects.insert(lost.cookie);
        if let (true, Some(id)) = (is_news, &seen.id) {
            let report = seen.report(view.now_ns, None, view);
            view.store.update(view.now_ns, view.world, id, report);
        }
    }

    pub(super) fn tick(&mut self, view: &mut View<'_>) {
        let mut due: Vec<Key> = Vec::new();
        let mut over: Vec<Key> = Vec::new();
        for (key, seen) in self.seen.iter() {
            let age = view.now_ns.saturating_sub(seen.since_ns);
            if view.now_ns.saturating_sub(seen.last_ns) >= QUIET_NS {
                over.push(*key);
            } else if seen.id.is_none() && age >= PATIENCE_NS && seen.waits(view) {
                due.push(*key);
            }
        }
        due.sort_unstable();
        over.sort_unstable();
        for key in due {
            let Some(seen) = self.seen.get(&key) else { continue };
            let report = seen.report(view.now_ns, None, view);
            let id = view.store.open(view.now_ns, view.world, report);
            if let Some(seen) = self.seen.get_mut(&key) {
                seen.id = Some(id);
            }
        }
        for key in over {
            let Some(seen) = self.seen.remove(&key) else { continue };
            if let Some(id) = &seen.id {
                let report = seen.report(view.now_ns, Some("idle"), view);
                view.store.over(view.now_ns, id, report);
            }
        }
    }
}

impl Seen {
    /// Whether one of the connects is still pending.
    fn waits(&self, view: &View<'_>) -> bool {
        self.operations(view).any(|op| op.ended_ns.is_none())
    }

    fn operations<'a>(&'a self, view: &'a View<'_>) -> impl Iterator<Item = &'a ConnectOp> {
        self.connects.iter().filter_map(|cookie| view.world.connect_op(*cookie))
    }

    fn report(&self, now_ns: u64, ended_by: Option<&str>, view: &View<'_>) -> Report {
        let device = records::comm(&self.last.device);
        let place = self.place(&device, view);
        let (frame, own) = (drops::mac(&self.last.frame_mac), drops::mac(&self.last.device_mac));
        let ports: BTreeSet<u16> = self.operations(view).map(|op| op.connect.tuple.remote_port).collect();
        let lost: u32 = self.operations(view).map(|op| op.connect.drops).sum();
        let lost = lost.max(1);
        let lasted = duration(now_ns.saturating_sub(self.since_ns));
        let packets = count(lost.into(), "packet", "packets");
        let of = count(self.connects.len() as u64, "connect", "connects");
        let summary = match ended_by {
            None => format!(
                "Frames come to {} for {frame}, which is not its MAC ({own}): the machine that sends them has it at a MAC of the past, and {packets} of {of} are dropped here.",
                on(&place).trim_start_matches("on ")
            ),
            Some(_) => format!(
                "No more frames come to {} for {frame}, which is not its MAC ({own}), after {lasted}.",
                on(&place).trim_start_matches("on ")
            ),
        };
        let elapsed_ms = now_ns.saturating_sub(self.since_ns) / 1_000_000;
        let mut cause = neighbours::cause(place.address, Confidence::Likely);
        cause.outcome = Some(ended_by.unwrap_or("pending").to_owned());
        cause.elapsed_ms = Some(elapsed_ms);
        let what = match self.last.at & packet::MASK {
            packet::SYN => "a SYN",
            packet::ANSWER => "an answer",
            _ => "a packet",
        };
        let mut evidence = vec![(
            self.since_ns,
            format!("{what} comes to {device} in a frame for {frame}: the kernel drops it (OTHERHOST)"),
        )];
        if self.last_ns != self.since_ns {
            evidence.push((self.last_ns, format!("{packets} of {of} lost that way")));
        }
        Report {
            kind: Kind::NeighbourStale,
            subject: format!("{}{device}|{frame}", neighbours::subject(&(self.last.netns, 0, records::address_bytes(place.address)), "")),
            severity: Severity::Critical,
            began_ns: self.since_ns,
            count: self.connects.len().max(1) as u64,
            summary,
            why: vec![
                "A tunnel's frames come to whom their sender means: its forwarding entry is right, and its neighbour entry of the next hop is not. Entries that a network agent writes are PERMANENT, and are never asked for again.".to_owned(),
            ],
            cause: Some(cause),
            caused_by: vec![],
            remedies: drops::tunnel_remedies(&self.last, &device),
            evidence,
            process: None,
            details: Details::NeighbourStale(NeighbourStaleDetails {
                cached_mac: frame,
                seen_mac: own,
                nud_state: "unknown".to_owned(),
                state_ms: None,
                cached_for_ms: None,
                seen_for_ms: elapsed_ms,
                unanswered: lost,
                connections: self.connects.len() as u32,
                ports: ports.into_iter().collect(),
                ended_by: ended_by.map(str::to_owned),
                neighbour: place,
            }),
        }
    }

    fn place(&self, device: &str, view: &View<'_>) -> NeighbourPlace {
        neighbours::place(&(self.last.netns, self.last.ifindex, self.last.holder), device, view.world)
    }
}
