//! Address translation on this host: where do the packets go of a connection or a lookup that was asked to go elsewhere,
//! and who rewrote them?

use ebpf_probes::{
    abi::Tuple,
    probes::connect::{Connect, Icmp, translated},
};

use super::Known;
use crate::{
    fact::{Endpoint, HostIcmp, IcmpError, TranslatedBy, Wire},
    records,
};

/// Where packets go that were asked to go elsewhere. The ends alone are not enough: a source may be translated too.
pub fn wire(asked: &Endpoint, by: u32, wire: &Tuple) -> Option<Wire> {
    let (ip, port) = (records::address(wire.remote), wire.remote_port);
    if wire.protocol == 0 || (ip, port) == (asked.ip, asked.port) {
        return None;
    }
    let by = match (by & translated::BY_PROGRAM != 0, by & translated::BY_NAT != 0) {
        _ if by & translated::LATER != 0 => Some(TranslatedBy::NatLater),
        (true, true) => Some(TranslatedBy::CgroupProgramAndNat),
        (true, false) => Some(TranslatedBy::CgroupProgram),
        (false, true) => Some(TranslatedBy::Nat),
        (false, false) => None,
    };
    Some(Wire { ip, port, by })
}

impl Known {
    /// Where a connect goes: as the program asked for it, and as its packets go where that is another place.
    pub fn destination(&self, connect: &Connect) -> Endpoint {
        let asked = self.remote(&connect.tuple, &connect.owner);
        Endpoint { wire: wire(&asked, connect.translated, &connect.wire), ..asked }
    }

    /// The ICMP error with which this host itself answered a connect or a datagram.
    pub fn host_icmp(&self, connect: &Connect) -> Option<HostIcmp> {
        let says = IcmpError::of(Icmp::of(connect.icmp)?);
        Some(HostIcmp { error: says, netns: self.namespace(connect.icmp_netns) })
    }
}
