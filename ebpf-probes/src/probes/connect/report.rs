//! What is reported of a connect, and when its end is worth reporting.

use aya_ebpf::{macros::map, maps::LruHashMap};

use super::{Connect, ConnectRecord};
use crate::{
    abi::{IPPROTO_TCP, Kind, ProbeId},
    bpf::{
        counters,
        filter::{self, enabled},
        ring::{emit, header},
        time::now,
    },
    metrics::{Ended, Timed, counter},
};

/// Processes and ports of which the last connect failed; used when only the unhealthy is reported.
#[map]
static FAILED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1 << 10, 0);

/// What [`FAILED`] knows a connect by.
#[inline(always)]
fn destination(connect: &Connect) -> u64 {
    u64::from(connect.owner.process) << 16 | u64::from(connect.tuple.remote_port)
}

/// What the process succeeds with meanwhile, or falls back to, is news.
#[inline(always)]
pub(super) fn failing(connect: &Connect) {
    let _ = FAILED.insert(&destination(connect), &1, 0);
}

/// Reports a connect as it is now.
#[inline(always)]
pub(super) fn report(kind: Kind, connect: &Connect) {
    emit::<ConnectRecord>(ProbeId::CONNECT, |record| {
        // SAFETY: a fresh reservation of the record's size; every byte is written.
        unsafe { record.write(ConnectRecord { header: header::<ConnectRecord>(kind), connect: *connect }) };
        Some(())
    });
}

/// Counts a connect that is over, and reports it if it is worth that.
#[inline(always)]
pub(super) fn end(connect: &Connect) {
    let lasted = now() - connect.started_ns;
    if enabled(ProbeId::CONNECT) && connect.tuple.protocol == IPPROTO_TCP {
        let established = connect.established != 0;
        let ended = if established { Ended::Established } else { Ended::by_error(connect.errno) };
        counters::add(counter::CONNECTS + ended as u32);
        let timed = if established { Timed::ConnectEstablished } else { Timed::ConnectFailed };
        counters::took(timed as u32, lasted);
    }
    let mut bad = connect.established == 0 || connect.retries != 0 || connect.drops != 0;
    if filter::quiet() {
        // A success after a failure is news: it was a fallback, or it is over.
        let way = destination(connect);
        if connect.established == 0 {
            let _ = FAILED.insert(&way, &1, 0);
        } else if FAILED.get_ptr(&way).is_some() {
            let _ = FAILED.remove(&way);
            bad = true;
        }
    }
    if enabled(ProbeId::CONNECT) && filter::worth(lasted, bad) {
        report(Kind::CONNECT_END, connect);
    }
}
