//! Connections that are to be adopted and have no cookie, without which no program knows them again. Where none can
//! be drawn here, the agent has it drawn (`sock_diag`), and the walk is repeated.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::map, maps::HashMap};

use crate::{
    abi::{Connection, Netns, ProbeId, Stat, Tuple},
    bpf::counters::count,
    fields,
};

/// Each by its ends and its network namespace, with the device it is bound to.
#[map]
static LACKING: HashMap<Connection, u32> = HashMap::with_max_entries(1 << 12, 0);

/// Notes one.
#[inline(always)]
pub(crate) fn lacks(sk: *const u8, tuple: &Tuple, netns: Netns) -> Option<()> {
    // SAFETY: a helper that cannot fault.
    let device = unsafe { bpf_probe_read_kernel(fields::SK_BOUND_IF::address(sk)).unwrap_or(0) };
    let key = Connection { tuple: *tuple, netns };
    if LACKING.insert(&key, &(device as u32), 0).is_err() {
        count(ProbeId::CONNECT, Stat::MapFull);
    }
    None
}
