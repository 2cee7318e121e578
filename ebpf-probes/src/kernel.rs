//! What every program shares: the ring, the counters, emission, kernel field reads, and the
//! constants the agent freezes into `.rodata` before loading.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
    },
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};

use crate::{
    abi::{AF_INET6, Header, Kind, Netns, Owner, ProbeId, STATS_COLUMNS, Stat, Tuple, generation},
    fields,
};

/// Records on their way to the agent. The agent may change its size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Counters by probe; columns are [`Stat`].
#[map]
pub static STATS: PerCpuArray<[u64; STATS_COLUMNS]> =
    PerCpuArray::with_max_entries(ProbeId::ALL.len() as u32, 0);

/// Who connected which socket, by socket cookie; for what happens on it later in other contexts.
/// Least recently used entries give way.
#[map]
pub static SOCKETS: LruHashMap<u64, Owner> = LruHashMap::with_max_entries(1 << 17, 0);

/// Bit per [`ProbeId`]: the probes somebody asked for. The verifier prunes the rest.
#[unsafe(no_mangle)]
pub static ENABLED: Global<u32> = Global::new(u32::MAX);

/// Bytes waiting in the ring above which the agent is woken at once; below, it comes by itself.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: Global<u32> = Global::new(0);

/// `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP` and `BPF_RB_AVAIL_DATA` of include/uapi/linux/bpf.h.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
const AVAIL_DATA: u64 = 0;

/// Whether somebody asked for `probe`; a constant to the verifier.
#[inline(always)]
pub fn enabled(probe: ProbeId) -> bool {
    ENABLED.load() & (1 << probe as u32) != 0
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(probe: ProbeId, stat: Stat) {
    if let Some(columns) = STATS.get_ptr_mut(probe as u32) {
        // SAFETY: this CPU's slot of a live per-CPU map; `stat` is below STATS_COLUMNS.
        unsafe { (&raw mut (*columns)[stat as usize]).write((*columns)[stat as usize] + 1) }
    }
}

/// CLOCK_BOOTTIME in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Reserves a record, lets `fill` write every byte of it, and settles the reservation whatever
/// happens: `None` gives the record up and counts it as unreadable.
#[inline(always)]
pub fn emit<T: 'static>(probe: ProbeId, fill: impl FnOnce(*mut T) -> Option<()>) {
    let Some(mut record) = EVENTS.reserve::<T>(0) else { return count(probe, Stat::RingFull) };
    let slot: &mut MaybeUninit<T> = &mut record;
    match fill(slot.as_mut_ptr()) {
        Some(()) => {
            let flags = if EVENTS.query(AVAIL_DATA) >= u64::from(WAKE_BYTES.load()) {
                FORCE_WAKEUP
            } else {
                NO_WAKEUP
            };
            record.submit(flags);
            count(probe, Stat::Emitted);
        }
        None => {
            record.discard(NO_WAKEUP);
            count(probe, Stat::Unreadable);
        }
    }
}

/// The header of a record of type `T`.
#[inline(always)]
pub fn header<T>(kind: Kind) -> Header {
    Header { boot_ns: now(), kind: kind as u32, len: size_of::<T>() as u32 }
}

/// The calling thread. Only where `current` is the thread that acts: process context.
#[inline(always)]
pub fn current(netns: Netns) -> Owner {
    let id = bpf_get_current_pid_tgid();
    Owner {
        process: (id >> 32) as u32,
        thread: id as u32,
        netns,
        // SAFETY: the helper takes nothing and cannot fail.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm: bpf_get_current_comm().unwrap_or_default(),
    }
}

/// One of [`generation`].
#[unsafe(no_mangle)]
pub static GENERATION: Global<u32> = Global::new(generation::UNKNOWN);

/// Which namespace a `struct net` is: two loads and a constant branch.
///
/// # Safety
/// `net` must be a BTF-typed `struct net`.
#[inline(always)]
pub unsafe fn netns(net: *const u8) -> Netns {
    // SAFETY: direct loads, checked by the verifier; those of the other sources are dead code.
    unsafe {
        let generation = match GENERATION.load() {
            generation::COOKIE => fields::NET_COOKIE::read(net) as u32,
            generation::HASH_MIX => half(fields::NET_HASH_MIX::read(net)),
            _ => 0,
        };
        Netns { inode: fields::NET_INUM::read(net), generation }
    }
}

/// The same where the verifier knows no types; `None` when it cannot be read.
#[inline(always)]
pub fn netns_at(net: *const u8) -> Option<Netns> {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let generation = match GENERATION.load() {
            generation::COOKIE => bpf_probe_read_kernel(fields::NET_COOKIE::address(net)).ok()? as u32,
            generation::HASH_MIX => half(bpf_probe_read_kernel(fields::NET_HASH_MIX::address(net)).ok()?),
            _ => 0,
        };
        Some(Netns { inode: bpf_probe_read_kernel(fields::NET_INUM::address(net)).ok()?, generation })
    }
}

/// Half of it tells namespaces apart; whoever knew all of it could foresee how the namespace hashes. Never 0.
#[inline(always)]
fn half(hash_mix: u32) -> u32 {
    hash_mix & 0xffff | 0x1_0000
}

/// Never attached: run once by the agent, in a thread that has entered the namespace in question, where the
/// kernel offers no other way (`SO_NETNS_COOKIE`, from Linux 5.14 on). Returns the generation.
///
/// Written out, because what the attribute for such programs makes of a function returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sys_enter")]
extern "C" fn netns_here(_ctx: *mut core::ffi::c_void) -> u32 {
    current_netns().generation
}

/// The network namespace of the calling thread, unknown when it cannot be read. Only in process context.
#[inline(always)]
pub fn current_netns() -> Netns {
    // SAFETY: the helper returns the running task; each step is read by a helper that cannot fault.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let unknown = Netns::numbered(0);
        let Ok(nsproxy) = bpf_probe_read_kernel(fields::TASK_NSPROXY::address(task)) else { return unknown };
        let Ok(net) = bpf_probe_read_kernel(fields::NSPROXY_NET::address(nsproxy)) else { return unknown };
        netns_at(net).unwrap_or(unknown)
    }
}

/// An IPv4 address, as the kernel stores it, in IPv4-mapped form.
#[inline(always)]
pub fn mapped(v4: u32) -> [u8; 16] {
    let [a, b, c, d] = v4.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The two ends of a socket. `sk` must be a BTF-typed `struct sock`.
///
/// # Safety
/// As for [`fields::SK_FAMILY::read`].
#[inline(always)]
pub unsafe fn tuple_of(sk: *const u8) -> Tuple {
    // SAFETY: passed on to the caller.
    unsafe {
        let family = fields::SK_FAMILY::read(sk);
        let (local, remote) = if family == AF_INET6 {
            // Two words at a time: the verifier checks each load against the struct.
            (v6(fields::SK_V6_RCV_SADDR::address(sk)), v6(fields::SK_V6_DADDR::address(sk)))
        } else {
            (mapped(fields::SK_RCV_SADDR::read(sk)), mapped(fields::SK_DADDR::read(sk)))
        };
        Tuple {
            local,
            remote,
            local_port: fields::SK_NUM::read(sk),
            remote_port: u16::from_be(fields::SK_DPORT::read(sk)),
            family,
            protocol: fields::SK_PROTOCOL::read(sk),
        }
    }
}

/// # Safety
/// `at` must lie in a BTF-typed structure.
#[inline(always)]
pub unsafe fn v6(at: *const [u64; 2]) -> [u8; 16] {
    // SAFETY: two direct loads, checked by the verifier.
    unsafe {
        let words =
            [core::ptr::read_volatile(at.cast::<u64>()), core::ptr::read_volatile(at.cast::<u64>().add(1))];
        core::mem::transmute::<[u64; 2], [u8; 16]>(words)
    }
}

/// Adds to a number other CPUs add to as well. The one atomic every kernel's BPF has (the target
/// itself offers Rust none, and a fetching one is refused by 5.10).
///
/// # Safety
/// `to` must be a live, aligned map value.
#[inline(always)]
pub unsafe fn atomic_add(to: *mut u64, by: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction on a live map value.
    unsafe {
        core::arch::asm!("lock *(u64 *)({to} + 0) += {by}", to = in(reg) to, by = in(reg) by);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as promised by the caller; this face is compiled for the linter only.
    unsafe {
        *to = (*to).wrapping_add(by);
    }
}

/// `len`, which must not be 0, at most `N` (a power of two): from 1 to `N` in a way every kernel's
/// verifier can follow. The optimiser must not see that the mask changes nothing.
#[inline(always)]
pub fn at_most<const N: usize>(len: u32) -> u32 {
    let capped = if len > N as u32 { N as u32 } else { len };
    ((opaque(u64::from(capped.wrapping_sub(1))) & (N as u64 - 1)) + 1) as u32
}

/// `value`, of which the optimiser must believe that it could be anything.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: a register copied to itself (no instruction at all would spoil the line info).
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    core::hint::black_box(value)
}

/// `value`, of which the verifier must believe that it could be anything: of what it knows it walks each way on by
/// itself, of what it does not it sees that they are the same. `at` is the time by [`now`].
#[inline(always)]
pub fn any(value: u64, at: u64) -> u64 {
    // Zero, for another 292 years.
    value ^ opaque(opaque(at) >> 63).wrapping_mul(opaque(u64::MAX))
}

/// 1 if the two are the same, else 0. Without a branch, and the optimiser must not know, or it makes one: the verifier
/// walks each way through a branch anew.
#[inline(always)]
pub fn same(this: u64, that: u64) -> u64 {
    let differs = opaque(this ^ that);
    1 ^ opaque(opaque(differs | opaque(differs.wrapping_neg())) >> 63)
}

/// 1 for 0, 0 for 1.
#[inline(always)]
pub fn not(condition: u64) -> u64 {
    opaque(condition) ^ 1
}

/// Calls a function that is not inlined. It must return `opaque(0)` and its result be used: after 6.12 (6.18 does)
/// the verifier wants every function to return a number, and the optimiser would leave anything there.
#[macro_export]
macro_rules! call {
    ($($call:tt)+) => {
        $crate::kernel::opaque($($call)+)
    };
}
