//! What the C library does with memory that was freed. Left alone it keeps all of it: what loading took, a block
//! of some megabytes each time a map is read whole, and a heap for every thread. Resident memory would creep up
//! for as long as the daemon lives.

/// Blocks of this size on go back to the kernel when they are freed.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 256 << 10;
/// Heaps, whatever the number of threads: none but the pipeline's allocates much.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

/// Gives back what is free, and has large blocks given back from now on.
pub(super) fn settle() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, touches only the allocator's own state.
    unsafe {
        // A threshold that is set no longer grows with what is freed.
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE);
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, HEAPS);
    }
    give_back();
}

/// Gives back what is free now. What an incident brings (thousands of small records at once) leaves holes that
/// are never at the end of the heap, where the library would give them back by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, touches only the allocator's own free memory.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
