//! Packets of pending connects that this host did not deliver: which one, where, and on which device, as far as the
//! kernel reported. Why they are to be dropped is not known here.

use ebpf_probes::probes::connect::{Connect, Dropped, packet, place};

use super::{DropPlace, DropSite, DroppedPacket, Memory};
use crate::{
    fact::Endpoint,
    known::{
        Known,
        bounded::{Bounded, Table},
    },
    records,
};

/// Connects of which a loss is remembered, at most.
const REMEMBERED: usize = 4096;

pub(super) struct Drops {
    /// The last loss of each, by socket cookie.
    lost: Bounded<u64, Dropped>,
    /// Answers from another address than the one asked.
    strays: Bounded<u64, Dropped>,
}

impl Default for Drops {
    fn default() -> Self {
        Self { lost: Bounded::new(REMEMBERED), strays: Bounded::new(REMEMBERED) }
    }
}

impl Drops {
    pub(super) fn add(&mut self, dropped: &Dropped) {
        let to = if dropped.at & place::STRAY == 0 { &mut self.lost } else { &mut self.strays };
        to.insert(dropped.cookie, *dropped);
    }

    pub(super) fn table(&self) -> Table {
        self.lost.table("connect_drops")
    }
}

/// Where a packet was, by the bits of [`place`].
fn place_of(at: u32) -> DropPlace {
    match (at & place::ARRIVED != 0, at & place::ROUTED != 0, at & place::LOCAL != 0) {
        (false, ..) => DropPlace::Output,
        (true, false, _) => DropPlace::Prerouting,
        (true, true, false) => DropPlace::Forward,
        (true, true, true) => DropPlace::Input,
    }
}

fn packet_of(at: u32) -> Option<DroppedPacket> {
    match at & packet::MASK {
        packet::SYN => Some(DroppedPacket::Syn),
        packet::ANSWER => Some(DroppedPacket::SynAck),
        packet::RESET => Some(DroppedPacket::Reset),
        _ => None,
    }
}

impl Memory {
    /// What the kernel reported of the last packet of a connect that it dropped.
    pub fn lost_packet(&self, connect: &Connect) -> Option<&Dropped> {
        (connect.drops > 0).then(|| self.drops.lost.get(&connect.cookie)).flatten()
    }

    /// Where the last packet of a connect was dropped, and which one it was; `None` when this was not recorded.
    pub fn drop_site(&self, known: &Known, connect: &Connect) -> Option<DropSite> {
        if connect.drops == 0 || connect.drop_where & packet::MASK == packet::UNKNOWN {
            return None;
        }
        let lost = self.lost_packet(connect);
        let foreign = connect.drop_where & place::FOREIGN != 0;
        let netns = match lost {
            Some(lost) if foreign => lost.netns,
            _ => connect.owner.netns,
        };
        let device = lost.and_then(|lost| {
            let name = records::comm(&lost.device);
            let of_device = || known.device_at(lost.netns, lost.ifindex);
            if name.is_empty() { of_device() } else { Some(name) }
        });
        Some(DropSite {
            packet: packet_of(connect.drop_where),
            place: place_of(connect.drop_where),
            device,
            netns: known.namespace(netns),
            other_netns: foreign,
        })
    }

    /// Who answered a connect in place of the address it asked, if any did.
    pub fn stray_answer(&self, connect: &Connect) -> Option<Endpoint> {
        let stray = self.drops.strays.get(&connect.cookie)?;
        Some(Endpoint { ip: records::address(stray.stray), port: stray.stray_port, name: None, wire: None })
    }
}
