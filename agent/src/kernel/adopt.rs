//! What was under way before the programs were attached: has the kernel walk through all open files, as a program of the
//! object looks at each. What it finds stands in the maps of what is in flight, like all else.

use std::io::{self, Read as _};

use aya::programs::Program;
use ebpf_probes::{
    abi::{Connection, LACKING_MAP},
    spec::ADOPT,
};

use super::{
    load::{Error, Kernel},
    plan::Outcome,
};

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(Connection);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Key {}

/// A read gives up after a million files (`MAX_ITER_OBJECTS` of kernel/bpf/bpf_iter.c) and goes on with the next one.
const READS: usize = 64;

/// Walks once. `false`: this kernel has no such walk, which is reported with the hooks.
///
/// # Errors
/// The kernel breaks the walk off.
pub fn walk(kernel: &mut Kernel) -> io::Result<bool> {
    let attached = |planned: &super::plan::Planned| {
        planned.hook.program == ADOPT && planned.outcome == Outcome::Attached
    };
    if !kernel.hooks.iter().any(attached) {
        return Ok(false);
    }
    let Some(Program::Iter(program)) = kernel.program_mut(ADOPT) else { return Ok(false) };
    let link = program.attach().and_then(|link| program.take_link(link)).map_err(io::Error::other)?;
    let mut file = link.into_file().map_err(io::Error::other)?;
    // The program writes nothing: the first read that is no error is the end.
    for _ in 0..READS {
        match file.read(&mut [0; 64]) {
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("there are more open files than are walked through"))
}

/// Connections that have no cookie yet, each with the device it is bound to, 0 for none.
///
/// # Errors
/// The map cannot be read.
pub fn lacking(kernel: &Kernel) -> Result<Vec<(Connection, u32)>, Error> {
    let entries = kernel.entries::<Key, u32>(LACKING_MAP)?;
    Ok(entries.into_iter().map(|(Key(connection), device)| (connection, device)).collect())
}
