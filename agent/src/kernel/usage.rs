//! What the programs and the maps cost: how often each program ran and for how long, how full each map is and
//! how much memory it takes.
//!
//! The kernel accounts for programs only while asked to ([`enable_stats`]), and then for all
//! programs of the machine, at two clock reads a run. Maps are counted key by key: not in the pipeline's thread.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::{
    maps::{HashMap, Map, MapData, MapType},
    sys::Stats,
};
use ebpf_probes::probes::neigh::NEIGHBOURS_MAP;
use nix::libc;

use super::{
    load::{Kernel, Key, Value},
    neighbours,
};

/// What a program has run so far, while the kernel accounted for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramUsage {
    /// Its name in the kernel object.
    pub program: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// How long altogether, nanoseconds.
    pub run_ns: u64,
}

/// A map as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapUsage {
    /// Its name in the kernel object, in small letters.
    pub map: String,
    /// Entries it has; `None` where that is always all of them (arrays).
    pub entries: Option<u64>,
    /// Entries it can have; of the ring, its bytes.
    pub capacity: u64,
    /// Memory it takes, bytes, by the kernel's account.
    pub memory_bytes: u64,
}

/// Has the kernel account for every program on this machine until the descriptor is closed.
///
/// # Errors
/// When it refuses: it wants CAP_SYS_ADMIN.
pub fn enable_stats() -> io::Result<OwnedFd> {
    aya::sys::enable_stats(Stats::RunTime).map_err(|error| error.io_error)
}

/// Asks about every attached program.
pub fn programs(kernel: &Kernel) -> Vec<ProgramUsage> {
    let usage = |planned: &super::plan::Planned| {
        let program = planned.hook.program;
        let info = kernel.program(program)?.info().ok()?;
        let run_ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
        Some(ProgramUsage { program, runs: info.run_count(), run_ns })
    };
    kernel.hooks.iter().filter(|planned| planned.outcome.why().is_none()).filter_map(usage).collect()
}

/// The object's maps, to be looked at from another thread.
pub struct Maps {
    open: Vec<Open>,
    neighbours: Option<HashMap<MapData, Key, Value>>,
}

struct Open {
    name: String,
    data: MapData,
    capacity: u64,
    key_bytes: usize,
    counted: bool,
}

impl Maps {
    /// Opens them again; those that cannot be are left out.
    pub fn open(kernel: &Kernel) -> Self {
        let ids = kernel.maps().filter_map(|(name, map)| Some((name, data(map)?.info().ok()?.id())));
        let mut open: Vec<Open> =
            ids.chain(kernel.ring()).filter_map(|(name, id)| Open::new(name, id)).collect();
        open.sort_by(|one, other| one.name.cmp(&other.name));
        let neighbours = kernel.map(NEIGHBOURS_MAP).and_then(|map| {
            let data = MapData::from_id(data(map)?.info().ok()?.id()).ok()?;
            HashMap::try_from(Map::LruHashMap(data)).ok()
        });
        Self { open, neighbours }
    }

    /// Counts entries and asks for memory: two system calls for each entry of each hash map.
    pub fn measure(&self) -> Vec<MapUsage> {
        self.open.iter().map(Open::measure).collect()
    }

    /// How many neighbours there are: a look through a map of at most 16,384 entries.
    pub fn neighbours(&self) -> BTreeMap<neighbours::Kind, u64> {
        self.neighbours.as_ref().map(neighbours::counts_in).unwrap_or_default()
    }
}

impl Open {
    fn new(name: &str, id: u32) -> Option<Self> {
        let data = MapData::from_id(id).ok()?;
        let info = data.info().ok()?;
        let counted = [MapType::Hash, MapType::LruHash, MapType::LpmTrie];
        Some(Self {
            name: name.trim_start_matches('.').to_lowercase(),
            data,
            capacity: u64::from(info.max_entries()),
            key_bytes: info.key_size() as usize,
            counted: info.map_type().is_ok_and(|kind| counted.contains(&kind)),
        })
    }

    fn measure(&self) -> MapUsage {
        let fd = self.data.fd().as_fd();
        MapUsage {
            map: self.name.clone(),
            entries: self.counted.then(|| count(fd, self.key_bytes, self.capacity)),
            capacity: self.capacity,
            memory_bytes: memory(fd).unwrap_or(0),
        }
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// Counts the keys of a map that changes meanwhile: a key that goes while it is stood on has the kernel begin
/// again, so there are never more than fit.
fn count(map: BorrowedFd<'_>, key_bytes: usize, capacity: u64) -> u64 {
    let (mut key, mut next) = (vec![0u8; key_bytes], vec![0u8; key_bytes]);
    let mut counted = 0;
    while counted < capacity && next_key(map, (counted > 0).then_some(&key[..]), &mut next) {
        counted += 1;
        std::mem::swap(&mut key, &mut next);
    }
    counted
}

/// `false`: there is none.
fn next_key(map: BorrowedFd<'_>, after: Option<&[u8]>, next: &mut [u8]) -> bool {
    /// `BPF_MAP_GET_NEXT_KEY` of include/uapi/linux/bpf.h, and what it takes.
    const GET_NEXT_KEY: libc::c_long = 4;
    #[repr(C)]
    struct Attributes {
        map_fd: u64,
        key: u64,
        next_key: u64,
    }
    let attributes = Attributes {
        map_fd: map.as_raw_fd() as u64,
        key: after.map_or(0, |key| key.as_ptr() as u64),
        next_key: next.as_mut_ptr() as u64,
    };
    // SAFETY: both buffers have the map's own key size and outlive the call, as the attributes do.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, GET_NEXT_KEY, &raw const attributes, size_of::<Attributes>()) };
    done == 0
}

/// What the kernel says a map takes.
fn memory(map: BorrowedFd<'_>) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).ok()?;
    memlock(&text)
}

fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_map_is_read_from_what_the_kernel_says_of_its_descriptor() {
        let text =
            "pos:\t0\nflags:\t02000002\nmap_type:\t9\nmax_entries:\t16384\nmemlock:\t2494464\nmap_id:\t7\n";
        assert_eq!(memlock(text), Some(2_494_464));
        assert_eq!(memlock("pos:\t0\n"), None);
    }

    #[test]
    fn what_is_no_map_has_no_keys() {
        let file = fs::File::open("/dev/null").expect("/dev/null");
        assert_eq!(count(file.as_fd(), 8, 10), 0);
    }
}
