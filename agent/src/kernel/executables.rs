//! What processes ran that are gone: the kernel half notes it at exec and at fork, by process id.

use std::{
    cell::Cell,
    os::fd::{AsFd, OwnedFd},
};

use aya::maps::{HashMap, Map, MapData};
use ebpf_probes::{
    abi::executable::{EXECUTABLES_MAP, Executable, flag},
    spec::{EXECUTES, FORKS, Hook},
};

use super::{load::Kernel, missed, plan::Outcome};
use crate::time::boot_ns;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(Executable);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Value {}

/// The notes, and what the kernel left out of them.
struct Notes {
    map: HashMap<MapData, u32, Value>,
    programs: [OwnedFd; 2],
    /// Runs of the programs left out so far.
    missed: Cell<u64>,
    /// When that was last found to have grown, CLOCK_BOOTTIME in nanoseconds.
    missed_ns: Cell<u64>,
}

/// Asks for the executable noted for a process: three system calls each time. Nothing is ever known where a hook is
/// missing: an entry may be that of an earlier process of the same number then.
pub fn noted(kernel: &Kernel) -> impl Fn(u32) -> Option<Executable> + Send + use<> {
    let notes = Notes::open(kernel);
    move |process| notes.as_ref()?.of(process)
}

impl Notes {
    fn open(kernel: &Kernel) -> Option<Self> {
        let Map::LruHashMap(data) = kernel.map(EXECUTABLES_MAP)? else { return None };
        // Descriptors of its own: the pipeline keeps them beside the rest of the kernel's.
        let own = data.fd().as_fd().try_clone_to_owned().ok()?;
        Some(Self {
            map: HashMap::try_from(Map::LruHashMap(MapData::from_fd(own).ok()?)).ok()?,
            programs: [attached(kernel, &EXECUTES)?, attached(kernel, &FORKS)?],
            missed: Cell::default(),
            missed_ns: Cell::default(),
        })
    }

    fn of(&self, process: u32) -> Option<Executable> {
        let Value(mut note) = self.map.get(&process, 0).ok()?;
        let missed = self.programs.iter().filter_map(missed::runs).sum();
        if self.missed.replace(missed) != missed {
            self.missed_ns.set(boot_ns());
        }
        if note.since_ns < self.missed_ns.get() {
            note.flags |= flag::UNSURE;
        }
        Some(note)
    }
}

fn attached(kernel: &Kernel, hook: &Hook) -> Option<OwnedFd> {
    let planned = kernel.hooks.iter().find(|planned| planned.hook.program == hook.program)?;
    if planned.outcome != Outcome::Attached {
        return None;
    }
    kernel.program(hook.program)?.fd().ok()?.as_fd().try_clone_to_owned().ok()
}
