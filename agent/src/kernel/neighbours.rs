//! Tells the programs which neighbours there were before them, so that a change of one is told with what
//! it was, and a SYN from elsewhere is noticed though nothing has changed since.

use ebpf_probes::probes::neigh::{NEIGHBOURS_MAP, NeighKey, Neighbour};

use super::load::{Error, Kernel};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(NeighKey);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Key {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Neighbour);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Value {}

/// Adds what is not known yet: what the programs have seen meanwhile is newer. Returns how many were new.
pub fn fill(
    kernel: &mut Kernel,
    neighbours: impl IntoIterator<Item = (NeighKey, Neighbour)>,
) -> Result<usize, Error> {
    let mut new = 0;
    for (key, value) in neighbours {
        new += usize::from(kernel.add(NEIGHBOURS_MAP, &Key(key), &Value(value))?);
    }
    Ok(new)
}
