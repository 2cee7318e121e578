//! The kernel object, built by `build.rs` and carried inside the binary.

/// Alignment the ELF parser asks for.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/probes.o")));

/// The kernel object; empty in a build that can only replay (`CULPRIT_PROBES=none`).
pub(super) fn bytes() -> &'static [u8] {
    &OBJECT.0
}
