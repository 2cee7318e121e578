//! What every kernel's verifier must be able to follow, and what the optimiser must not see so that it does: bounds,
//! conditions without branches, calls of functions that are not inlined, and the one atomic instruction there is.

/// Adds to a number other CPUs add to as well. The one atomic every kernel's BPF has (the target
/// itself offers Rust none, and a fetching one is refused by 5.10).
///
/// # Safety
/// `to` must be a live, aligned map value.
#[inline(always)]
pub(crate) unsafe fn atomic_add(to: *mut u64, by: u64) {
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
pub(crate) fn at_most<const N: usize>(len: u32) -> u32 {
    let capped = if len > N as u32 { N as u32 } else { len };
    ((opaque(u64::from(capped.wrapping_sub(1))) & (N as u64 - 1)) + 1) as u32
}

/// `value`, of which the optimiser must believe that it could be anything.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
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
pub(crate) fn any(value: u64, at: u64) -> u64 {
    // Zero, for another 292 years.
    value ^ opaque(opaque(at) >> 63).wrapping_mul(opaque(u64::MAX))
}

/// 1 if the two are the same, else 0. Without a branch, and the optimiser must not know, or it makes one: the verifier
/// walks each way through a branch again.
#[inline(always)]
pub(crate) fn same(this: u64, that: u64) -> u64 {
    let differs = opaque(this ^ that);
    1 ^ opaque(opaque(differs | opaque(differs.wrapping_neg())) >> 63)
}

/// 1 for 0, 0 for 1.
#[inline(always)]
pub(crate) fn not(condition: u64) -> u64 {
    opaque(condition) ^ 1
}

/// Calls a function that is not inlined. It must return `opaque(0)` and its result be used: after 6.12 (6.18 does)
/// the verifier wants every function to return a number, and the optimiser would leave anything there.
macro_rules! call {
    ($($call:tt)+) => {
        $crate::bpf::verifier::opaque($($call)+)
    };
}
pub(crate) use call;
