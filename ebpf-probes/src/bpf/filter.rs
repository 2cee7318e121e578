//! What the user asked to see, decided where the fact is born: constants the verifier prunes by,
//! and maps for what is not one number. An unset filter costs nothing.

use aya_ebpf::{
    Global,
    bindings::__sk_buff,
    helpers::{bpf_get_current_ancestor_cgroup_id, generated::bpf_skb_ancestor_cgroup_id},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
};

use crate::abi::{Owner, ProbeId};

/// Bit per [`ProbeId`]: the probes that are asked for. The verifier prunes the rest.
#[unsafe(no_mangle)]
pub(crate) static ENABLED: Global<u32> = Global::new(u32::MAX);

/// 1: only processes in [`PROCESSES`], and their children as they appear.
#[unsafe(no_mangle)]
pub(crate) static BY_PROCESS: Global<u32> = Global::new(0);
/// 1: only processes in [`NAMED`]: those with a thread of a name in [`NAMES`], and their children.
#[unsafe(no_mangle)]
pub(crate) static BY_COMM: Global<u32> = Global::new(0);
/// The wanted cgroup v2 id, 0 for any.
#[unsafe(no_mangle)]
pub(crate) static CGROUP: Global<u64> = Global::new(0);
/// How deep below the root the wanted cgroup is.
#[unsafe(no_mangle)]
pub(crate) static CGROUP_LEVEL: Global<u32> = Global::new(0);
/// 1: only some containers or pods, as far as [`CGROUPS`] shows.
#[unsafe(no_mangle)]
pub(crate) static BY_CONTAINER: Global<u32> = Global::new(0);
/// 1: only destinations in [`DESTINATIONS`].
#[unsafe(no_mangle)]
pub(crate) static BY_DESTINATION: Global<u32> = Global::new(0);
/// 1: only ports in [`PORTS`].
#[unsafe(no_mangle)]
pub(crate) static BY_PORT: Global<u32> = Global::new(0);
/// 1: IPv4 is wanted.
#[unsafe(no_mangle)]
pub(crate) static V4: Global<u32> = Global::new(1);
/// 1: IPv6 is wanted.
#[unsafe(no_mangle)]
pub(crate) static V6: Global<u32> = Global::new(1);
/// 1: only what failed or was slow.
#[unsafe(no_mangle)]
pub(crate) static ONLY_BAD: Global<u32> = Global::new(0);
/// Only what took at least this long, in nanoseconds.
#[unsafe(no_mangle)]
pub(crate) static MIN_NS: Global<u64> = Global::new(0);

/// 1: anomalies only, as `culprit run`: healthy operations put nothing on the ring. What may be needed to
/// describe an unhealthy one in full is held in maps, from which the agent fetches it.
#[unsafe(no_mangle)]
pub(crate) static RUN: Global<u32> = Global::new(0);
/// Operations that take longer are reported while they wait, and so is their end, in nanoseconds.
#[unsafe(no_mangle)]
pub(crate) static SLOW_NS: Global<u64> = Global::new(250_000_000);
/// With [`RUN`]: a handshake that made no progress for this long is reported from then on, in nanoseconds.
#[unsafe(no_mangle)]
pub(crate) static STALL_NS: Global<u64> = Global::new(1_000_000_000);

/// One word: until when clients' sessions are reported although only the unhealthy is, CLOCK_BOOTTIME in
/// nanoseconds. The clock is being set about, and who gets credentials now may keep wrong ones.
#[map]
pub(crate) static EXPOSURE: Array<u64> = Array::with_max_entries(1, 0);

/// The wanted processes; the agent fills in those that run, forks add their children.
#[map]
pub(crate) static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(1 << 14, 0);
/// The wanted names of threads, NUL-padded.
#[map]
pub(crate) static NAMES: HashMap<[u8; 16], u32> = HashMap::with_max_entries(256, 0);
/// The processes that have, or had, a thread of a wanted name, and their children; the agent fills in those that
/// run. All their threads are reported: what one of them waits for, another may do.
#[map]
pub(crate) static NAMED: HashMap<u32, u32> = HashMap::with_max_entries(1 << 14, 0);
/// Whether the container or pod of a cgroup is wanted (1) or not (0), by cgroup v2 id. The agent writes down what
/// it has found out; what is not here yet, or has given way, passes and is decided there.
#[map]
pub(crate) static CGROUPS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1 << 14, 0);
/// The wanted destinations, IPv4 as `::ffff:0:0/96` and longer.
#[map]
pub(crate) static DESTINATIONS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(256, 1);
/// The wanted ports, remote for clients, local for servers.
#[map]
pub(crate) static PORTS: HashMap<u16, u32> = HashMap::with_max_entries(256, 0);

/// Whether the calling thread is wanted. Process context only.
#[inline(always)]
pub(crate) fn caller(owner: &Owner) -> bool {
    if !process(owner) {
        return false;
    }
    let wanted = CGROUP.load();
    // SAFETY: the helper takes a number and cannot fail.
    wanted == 0 || unsafe { bpf_get_current_ancestor_cgroup_id(CGROUP_LEVEL.load() as i32) } == wanted
}

/// Whether the wanted cgroup, or one below it, has the socket that sends a packet.
#[inline(always)]
pub(crate) fn packet_in_cgroup(skb: *mut __sk_buff) -> bool {
    let wanted = CGROUP.load();
    // SAFETY: the context of a cgroup_skb program.
    wanted == 0 || unsafe { bpf_skb_ancestor_cgroup_id(skb, CGROUP_LEVEL.load() as i32) } == wanted
}

/// Whether a thread is wanted, as far as its process shows.
#[inline(always)]
pub(crate) fn process(owner: &Owner) -> bool {
    if BY_PROCESS.load() != 0 && PROCESSES.get_ptr(&owner.process).is_none() {
        return false;
    }
    if BY_CONTAINER.load() != 0 && owner.cgroup != 0 {
        // SAFETY: a load from a live map value.
        if CGROUPS.get_ptr(&owner.cgroup).is_some_and(|wanted| unsafe { *wanted } == 0) {
            return false;
        }
    }
    BY_COMM.load() == 0 || NAMED.get_ptr(&owner.process).is_some()
}

/// Whether a peer is wanted: its address, its family, and the port that names the service.
#[inline(always)]
pub(crate) fn peer(address: &[u8; 16], v6: bool, port: u16) -> bool {
    if (v6 && V6.load() == 0) || (!v6 && V4.load() == 0) {
        return false;
    }
    if BY_PORT.load() != 0 && PORTS.get_ptr(&port).is_none() {
        return false;
    }
    BY_DESTINATION.load() == 0 || DESTINATIONS.get(&Key::new(128, *address)).is_some()
}

/// Any filter by process, name, cgroup or container is set: what has no owner is not wanted.
#[inline(always)]
pub(crate) fn by_owner() -> bool {
    BY_PROCESS.load() != 0 || BY_COMM.load() != 0 || CGROUP.load() != 0 || BY_CONTAINER.load() != 0
}

/// Whether the end of something that took `ns` is worth a record; `bad` says that it failed or retried. The end of
/// what took longer than [`SLOW_NS`] always is: it was reported while it waited.
#[inline(always)]
pub(crate) fn worth(ns: u64, bad: bool) -> bool {
    if ns >= SLOW_NS.load() {
        return true;
    }
    if RUN.load() != 0 {
        return bad;
    }
    (ONLY_BAD.load() == 0 || bad) && ns >= MIN_NS.load()
}

/// Whether the owner of each connected TCP socket is remembered: not when only the unhealthy is reported, where
/// the sender of the first bytes is asked when it matters.
#[inline(always)]
pub(crate) fn remember() -> bool {
    !quiet() || by_owner()
}

/// Whether healthy operations stay off the ring.
#[inline(always)]
pub(crate) fn quiet() -> bool {
    RUN.load() != 0
}

/// Whether beginnings are worth a record: not when only outcomes can say.
#[inline(always)]
pub(crate) fn beginnings() -> bool {
    ONLY_BAD.load() == 0 && MIN_NS.load() == 0 && !quiet()
}

/// Whether clients' sessions are reported, healthy ones too.
#[inline(always)]
pub(crate) fn exposed(at: u64) -> bool {
    // SAFETY: a load from a live array slot.
    !quiet() || EXPOSURE.get_ptr(0).is_some_and(|until| unsafe { *until } > at)
}

/// The clock has just been set.
#[inline(always)]
pub(crate) fn expose(until: u64) {
    if let Some(slot) = EXPOSURE.get_ptr_mut(0) {
        // SAFETY: a live array slot; every writer writes about the same.
        unsafe { *slot = until }
    }
}

/// Whether it was asked for `probe`; a constant to the verifier.
#[inline(always)]
pub(crate) fn enabled(probe: ProbeId) -> bool {
    ENABLED.load() & (1 << probe.0) != 0
}
