//! Data that is sent again and not acknowledged: whose it is, and what became of it.

use ebpf_probes::{
    abi::Owner,
    probes::connect::{Unacked, unacked},
};
use nix::errno::Errno;

use super::{DataEnd, What};
use crate::{
    domains::{Emitted, ms},
    known::Known,
};

/// Whose connection it is; of one whose owner is not known, that of the listener's process.
pub fn owner_of(known: &Known, unacked: &Unacked) -> Owner {
    let mut owner = unacked.owner;
    if owner.process == 0 {
        known.adopt(&mut owner, &unacked.tuple);
    }
    owner
}

/// What became of it.
pub fn data_end(unacked: &Unacked) -> DataEnd {
    if unacked.flags & unacked::CLOSED != 0 {
        return match Errno::from_raw(unacked.errno) {
            Errno::ECONNRESET | Errno::EPIPE => DataEnd::Reset,
            Errno::ETIMEDOUT => DataEnd::TimedOut,
            _ => DataEnd::Ended,
        };
    }
    if unacked.flags & unacked::ACKED != 0 {
        DataEnd::Acknowledged
    } else if unacked.flags & unacked::ORPHAN != 0 {
        DataEnd::Closed
    } else if unacked.flags & unacked::GONE != 0 {
        DataEnd::Ended
    } else if unacked.window == 0 {
        DataEnd::WindowClosed
    } else {
        DataEnd::Acknowledged
    }
}

/// It waits.
pub(super) fn waits(known: &Known, boot_ns: u64, unacked: &Unacked) -> Emitted<What> {
    let owner = owner_of(known, unacked);
    let what = What::DataUnacknowledged {
        local: known.local(&unacked.tuple),
        peer: known.remote(&unacked.tuple, &owner),
        unacked_bytes: unacked.bytes(),
        retransmits: unacked.timeouts,
        segment_bytes: Some(unacked.segment).filter(|bytes| *bytes != 0),
        since_before_start: unacked.is_adopted(),
        elapsed_ms: ms(boot_ns.saturating_sub(unacked.since_ns)),
    };
    Emitted { boot_ns, owner, what }
}

/// It is over.
pub(super) fn settled(known: &Known, boot_ns: u64, unacked: &Unacked) -> Emitted<What> {
    let owner = owner_of(known, unacked);
    let what = What::DataSettled {
        local: known.local(&unacked.tuple),
        peer: known.remote(&unacked.tuple, &owner),
        end: data_end(unacked),
        duration_ms: ms(boot_ns.saturating_sub(unacked.since_ns)),
    };
    Emitted { boot_ns, owner, what }
}
