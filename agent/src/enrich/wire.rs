//! Address translation on this host: where do the packets go of a connection or a lookup that was asked to go elsewhere,
//! and who rewrote them?

use ebpf_probes::{abi::Tuple, probes::connect::translated};

use crate::{
    event,
    fact::{Endpoint, TranslatedBy, Wire},
};

/// Where packets go that were asked to go elsewhere. The ends alone are not enough: a source may be translated too.
pub(super) fn wire(asked: &Endpoint, by: u32, wire: &Tuple) -> Option<Wire> {
    let (ip, port) = (event::address(wire.remote), wire.remote_port);
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
