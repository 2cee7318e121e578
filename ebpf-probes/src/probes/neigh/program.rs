//! The programs of the `neighbour` probe: each looks at one entry and reports it when it differs from what was
//! last reported. None of them runs per packet, except `neigh_sent` for packets that wait for an
//! unresolved entry.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{
    cause,
    change::{Change, Old, look, report},
    flag, state,
    table::{DEAD, NEIGHBOURS, key_of, repeated},
    waiters,
};
use crate::{abi::AF_INET, bpf::filter, fields};

/// Runs when an entry's timer fires: once a second while it is asked for, every half minute or so
/// while it is in use. The only hook that sees FAILED, and the unanswered probes before it.
#[btf_tracepoint(function = "neigh_timer_handler")]
pub fn neigh_timer(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument.
    unsafe {
        look(neighbour, cause::TIMER, None);
        if u32::from(fields::NEIGH_STATE::read(neighbour)) == state::INCOMPLETE
            && let Some((key, family)) = key_of(neighbour)
        {
            waiters::report(neighbour, &key, family == AF_INET);
        }
    }
    0
}

/// Runs for each packet sent to an entry that is neither known nor being confirmed, which is where a
/// resolution begins: waiting packets pay a dozen loads and one map look (140 ns each in a sending loop).
#[btf_tracepoint(function = "neigh_event_send_done")]
pub fn neigh_sent(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a BTF-typed argument.
    unsafe { look(ctx.arg(0), cause::SENT, None) };
    0
}

/// Runs for a packet that meets an entry in the moment of its removal: rare, reported once a second.
#[btf_tracepoint(function = "neigh_event_send_dead")]
pub fn neigh_dead(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument.
    unsafe {
        let Some((key, family)) = key_of(neighbour) else { return 0 };
        let Some(count) = repeated(DEAD) else { return 0 };
        let state = u32::from(fields::NEIGH_STATE::read(neighbour));
        let mac = fields::NEIGH_HA::read(neighbour);
        let old = Old { state, mac, ..Old::default() };
        let change =
            Change { cause: cause::DEAD, flags: 0, old: &old, state, mac, probes: 0, update: None, count };
        report(neighbour, &key, family, &change);
    }
    0
}

/// Runs once per removed entry. The kernel has overwritten the state of an entry that is still held
/// by now: what it was is in the map.
#[btf_tracepoint(function = "neigh_cleanup_and_release")]
pub fn neigh_removed(ctx: BtfTracePointContext) -> i32 {
    let neighbour: *const u8 = ctx.arg(0);
    // SAFETY: a BTF-typed argument; the map value is copied while live.
    unsafe {
        let Some((key, family)) = key_of(neighbour) else { return 0 };
        let mut flags = 0;
        let old = match NEIGHBOURS.get_ptr(&key) {
            Some(known) => Old::of(&*known),
            None => {
                let state = u32::from(fields::NEIGH_STATE::read(neighbour));
                if state == state::NOARP || state == state::NONE {
                    return 0;
                }
                flags |= flag::FIRST;
                Old { state, mac: fields::NEIGH_HA::read(neighbour), ..Old::default() }
            }
        };
        let _ = NEIGHBOURS.remove(&key);
        let change = Change {
            cause: cause::REMOVED,
            flags,
            old: &old,
            state: state::NONE,
            mac: 0,
            probes: 0,
            update: None,
            count: 0,
        };
        if filter::ONLY_BAD.load() == 0 || old.state == state::FAILED || change.severe() != 0 {
            report(neighbour, &key, family, &change);
        }
    }
    0
}
