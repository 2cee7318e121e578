//! Carries out a [`Plan`]: loads the object, loads and attaches each program on its own, and reports
//! a typed outcome per hook. A program the kernel refuses never stops the others.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf, lpm_trie},
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError},
};
use ebpf_probes::{
    abi::{ProbeId, STATS_COLUMNS, Stat},
    probes::PROBES,
    probes::clock::EXPOSURE_MAP,
    probes::dns::{ANSWERS_MAP, ASKED_MAP, LOOKUPS_MAP},
    probes::neigh::{
        NEIGHBOURS_MAP, NeighKey, Neighbour, PINNED_MAP, PINNED_SLOT, ROUTING_SLOT, UNTIL_MAP, state,
    },
    spec::{Attach, EXECUTES, FORKS},
};

use super::{
    btf, cgroup, generation, memory, missed, object,
    plan::{Constant, Outcome, Plan, Planned, Spec},
    tracefs,
};

/// Programs loaded at once, at most.
const LOADERS: usize = 8;

/// Why nothing could be attached at all; each names the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This build has no kernel object.
    #[error("this culprit was built without its kernel object (CULPRIT_PROBES=none) and can only replay")]
    NoObject,
    /// Not allowed to load programs.
    #[error(
        "loading kernel probes is not permitted: run culprit as root (sudo culprit …), or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// The kernel does not describe its types.
    #[error(
        "/sys/kernel/btf/vmlinux: {0}: culprit needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution kernel since 2021)"
    )]
    NoBtf(io::Error),
    /// It does, but not readably.
    #[error("/sys/kernel/btf/vmlinux: {0}")]
    Btf(#[from] btf::Error),
    /// No cgroup v2 root.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The object as a whole was refused.
    #[error("loading the kernel object: {0:#}")]
    Object(anyhow::Error),
    /// A map could not be filled or read.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
}

/// The map that records come by.
const RING: &str = "EVENTS";

/// Loaded and attached probes. Everything is detached when this is dropped, and by the kernel when the
/// process ends in any way.
pub struct Kernel {
    ebpf: Ebpf,
    /// The number the kernel gave the ring, once it is taken.
    ring_id: Option<u32>,
    /// Every hook of the plan with what became of it.
    pub hooks: Vec<Planned>,
    /// Where the cgroup programs are attached.
    pub cgroup_root: PathBuf,
    /// Drop reasons of this kernel, by number.
    pub drop_reasons: Vec<(String, u32)>,
}

/// One counter that grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The probe.
    pub probe: ProbeId,
    /// What was lost.
    pub stat: Stat,
    /// How much, since the start.
    pub count: u64,
}

/// Reads the running kernel's types.
pub fn running_btf() -> Result<btf::Btf, Error> {
    Ok(btf::Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").map_err(Error::NoBtf)?)?)
}

impl Kernel {
    /// Plans, loads and attaches.
    pub fn attach(spec: &Spec) -> Result<Self, Error> {
        if object::bytes().is_empty() {
            return Err(Error::NoObject);
        }
        let types = running_btf()?;
        let plan = Plan::new(spec, &types);
        let drop_reasons = types.enumerators("skb_drop_reason").unwrap_or_default();
        drop(types);
        let root = cgroup::root()?;
        let directory =
            File::open(&root).map_err(|source| cgroup::Error::Unreadable { path: root.clone(), source })?;
        raise_memlock();
        let mut ebpf = load(&plan, spec)?;
        // Reading the object leaves holes of twelve MiB, and next the kernel's types are read.
        memory::give_back();
        generation::decide(plan.generation(), &mut ebpf);
        fill(&mut ebpf, spec)?;
        let mut hooks = plan.hooks;
        attach_all(&mut ebpf, &mut hooks, directory.as_fd())?;
        memory::settle();
        Ok(Self { ebpf, ring_id: None, hooks, cgroup_root: root, drop_reasons })
    }

    /// One of the object's maps.
    pub(super) fn map(&self, name: &str) -> Option<&Map> {
        self.ebpf.map(name)
    }

    /// The same, to be written.
    pub(super) fn map_mut(&mut self, name: &str) -> Option<&mut Map> {
        self.ebpf.map_mut(name)
    }

    /// The ring's name, and the number the kernel gave it; `None` until it is taken.
    pub(super) fn ring(&self) -> Option<(&'static str, u32)> {
        Some((RING, self.ring_id?))
    }

    /// All of the object's maps but the ring.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.ebpf.maps()
    }

    /// A program of the object, to be run.
    pub(super) fn program_mut(&mut self, name: &str) -> Option<&mut Program> {
        self.ebpf.program_mut(name)
    }

    /// A program of the object.
    pub(super) fn program(&self, name: &str) -> Option<&Program> {
        self.ebpf.program(name)
    }

    /// The ring, once.
    pub fn take_ring(&mut self) -> Option<RingBuf<MapData>> {
        let map = self.ebpf.take_map(RING)?;
        if let Map::RingBuf(data) = &map {
            self.ring_id = data.info().ok().map(|info| info.id());
        }
        RingBuf::try_from(map).ok()
    }

    /// Counters of what did not arrive, since the start; zeros left out.
    pub fn losses(&self) -> Result<Vec<Loss>, Error> {
        let error = |source| Error::Map { name: "STATS", source };
        let Some(map) = self.ebpf.map("STATS") else { return Ok(vec![]) };
        let stats: PerCpuArray<_, Columns> = PerCpuArray::try_from(map).map_err(error)?;
        let mut losses = Vec::new();
        for probe in PROBES.iter().map(|probe| probe.id) {
            let per_cpu: PerCpuValues<Columns> = stats.get(&(probe.0), 0).map_err(error)?;
            for stat in [Stat::RingFull, Stat::MapFull, Stat::Unreadable] {
                let count = per_cpu.iter().map(|columns| columns.0[stat as usize]).sum();
                if count > 0 {
                    losses.push(Loss { probe, stat, count });
                }
            }
        }
        losses.extend(self.missed().into_iter().map(|(probe, count)| Loss {
            probe,
            stat: Stat::Missed,
            count,
        }));
        Ok(losses)
    }

    /// Runs of programs that the kernel left out, since the start, by probe; what probes share counts for each. Asks
    /// once for each program. Those that note executables are not among them: no record is lost with them.
    fn missed(&self) -> BTreeMap<ProbeId, u64> {
        let mut missed = BTreeMap::new();
        let records =
            |planned: &&Planned| ![EXECUTES, FORKS].iter().any(|hook| hook.program == planned.hook.program);
        let attached = self.hooks.iter().filter(|planned| planned.outcome == Outcome::Attached);
        for planned in attached.filter(records) {
            let program = self.program(planned.hook.program).and_then(|program| program.fd().ok());
            let runs = program.and_then(missed::runs).unwrap_or(0);
            for probe in planned.probes.iter().filter(|_| runs > 0) {
                *missed.entry(*probe).or_default() += runs;
            }
        }
        missed
    }

    /// Adds a process to those followed.
    pub fn follow(&mut self, process: u32) -> Result<(), Error> {
        put(&mut self.ebpf, "PROCESSES", process, 0)
    }

    /// Adds a process that has a thread of the wanted name.
    pub fn choose_named(&mut self, process: u32) -> Result<(), Error> {
        put(&mut self.ebpf, "NAMED", process, 0)
    }

    /// Writes down whether the container or pod of a cgroup is wanted: what others do never reaches the ring.
    pub fn judge(&mut self, cgroup: u64, wanted: bool) -> Result<(), Error> {
        put(&mut self.ebpf, "CGROUPS", cgroup, u32::from(wanted))
    }

    /// Has clients' TLS sessions reported until a moment, CLOCK_BOOTTIME in nanoseconds, in any mode.
    pub fn report_sessions(&mut self, until_ns: u64) -> Result<(), Error> {
        let error = |source| Error::Map { name: EXPOSURE_MAP, source };
        let Some(map) = self.ebpf.map_mut(EXPOSURE_MAP) else { return Ok(()) };
        Array::<_, u64>::try_from(map).and_then(|mut map| map.set(0, until_ns, 0)).map_err(error)
    }

    /// Has next hops noted until a moment, CLOCK_BOOTTIME in nanoseconds.
    pub fn note_next_hops(&mut self, until_ns: u64) -> Result<(), Error> {
        let error = |source| Error::Map { name: UNTIL_MAP, source };
        let Some(map) = self.ebpf.map_mut(UNTIL_MAP) else { return Ok(()) };
        Array::<_, u64>::try_from(map).and_then(|mut map| map.set(ROUTING_SLOT, until_ns, 0)).map_err(error)
    }

    /// Has datagrams of a neighbour looked at whose entry was set for good.
    fn pin(&mut self, address: [u8; 16], ifindex: u32) -> Result<(), Error> {
        put(&mut self.ebpf, PINNED_MAP, address, ifindex)?;
        let error = |source| Error::Map { name: UNTIL_MAP, source };
        let Some(map) = self.ebpf.map_mut(UNTIL_MAP) else { return Ok(()) };
        Array::<_, u64>::try_from(map).and_then(|mut map| map.set(PINNED_SLOT, u64::MAX, 0)).map_err(error)
    }

    /// Adds a neighbour that was there before us; what the programs wrote meanwhile is newer and stays.
    pub fn add_neighbour(&mut self, key: NeighKey, value: Neighbour) -> Result<(), Error> {
        if value.state & state::PERMANENT != 0 {
            self.pin(key.address, key.ifindex)?;
        }
        /// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
        const NO_EXIST: u64 = 1;
        let error = |source| Error::Map { name: NEIGHBOURS_MAP, source };
        let Some(map) = self.ebpf.map_mut(NEIGHBOURS_MAP) else { return Ok(()) };
        let mut map: HashMap<_, Key, Value> = HashMap::try_from(map).map_err(error)?;
        match map.insert(&Key(key), &Value(value), NO_EXIST) {
            Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(())
            }
            other => other.map_err(error),
        }
    }

    /// Removes an operation from a map of those in flight; one that is gone already is no error.
    pub fn forget<K: aya::Pod, V: aya::Pod>(&mut self, name: &'static str, key: &K) -> Result<(), Error> {
        let error = |source| Error::Map { name, source };
        let Some(map) = self.ebpf.map_mut(name) else { return Ok(()) };
        let mut map: HashMap<_, K, V> = HashMap::try_from(map).map_err(error)?;
        match map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(error(source)),
        }
    }

    /// One value of a hash map.
    pub fn value<K: aya::Pod, V: aya::Pod>(&self, name: &'static str, key: &K) -> Result<Option<V>, Error> {
        let error = |source| Error::Map { name, source };
        let Some(map) = self.ebpf.map(name) else { return Ok(None) };
        let map: HashMap<_, K, V> = HashMap::try_from(map).map_err(error)?;
        match map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(error(source)),
        }
    }

    /// Copies the entries of a hash map.
    pub fn entries<K: aya::Pod, V: aya::Pod>(&self, name: &'static str) -> Result<Vec<(K, V)>, Error> {
        let error = |source| Error::Map { name, source };
        let Some(map) = self.ebpf.map(name) else { return Ok(vec![]) };
        let map: HashMap<_, K, V> = HashMap::try_from(map).map_err(error)?;
        Ok(map.iter().filter_map(Result::ok).collect())
    }

    /// Copies the values of a hash map of in-flight operations.
    pub fn in_flight<V: aya::Pod>(&self, name: &'static str) -> Result<Vec<V>, Error> {
        let error = |source| Error::Map { name, source };
        let Some(map) = self.ebpf.map(name) else { return Ok(vec![]) };
        let map: HashMap<_, u64, V> = HashMap::try_from(map).map_err(error)?;
        // An entry that goes while we walk is no error.
        Ok(map.iter().filter_map(Result::ok).map(|(_, value)| value).collect())
    }
}

/// One row of the `STATS` map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Columns([u64; STATS_COLUMNS]);
// SAFETY: an array of integers; any bytes are valid.
unsafe impl aya::Pod for Columns {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Key(pub(super) NeighKey);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Key {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Value(pub(super) Neighbour);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Value {}

fn load(plan: &Plan, spec: &Spec) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    // The programs have no relocations against kernel types: offsets come as constants.
    loader.btf(None).verifier_log_level(VerifierLogLevel::DEBUG);
    if spec.ring_bytes != 0 {
        loader.map_max_entries(RING, spec.ring_bytes);
    }
    // What crosses the ring at once is not held.
    if spec.quiet {
        loader.map_max_entries(ASKED_MAP, 1);
    } else {
        loader.map_max_entries(LOOKUPS_MAP, 1).map_max_entries(ANSWERS_MAP, 1);
    }
    for (name, value) in &plan.constants {
        match value {
            Constant::U32(value) => loader.override_global(name, value, false),
            Constant::U64(value) => loader.override_global(name, value, false),
        };
    }
    loader.load(object::bytes()).map_err(|error| {
        let error = anyhow::Error::from(error);
        let denied = error.chain().any(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
        });
        if denied { Error::NotPermitted } else { Error::Object(error) }
    })
}

/// On kernels before 5.11 BPF memory counts against RLIMIT_MEMLOCK (64 KiB by default). Failure shows
/// as a refused map, which is reported.
fn raise_memlock() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

fn put<K: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, key: K, value: u32) -> Result<(), Error> {
    let error = |source| Error::Map { name, source };
    let map = ebpf.map_mut(name).ok_or_else(|| error(MapError::InvalidName { name: name.into() }))?;
    HashMap::<_, K, u32>::try_from(map).and_then(|mut map| map.insert(&key, &value, 0)).map_err(error)
}

fn fill(ebpf: &mut Ebpf, spec: &Spec) -> Result<(), Error> {
    for &process in &spec.processes {
        put(ebpf, "PROCESSES", process, 0)?;
    }
    for &name in &spec.comms {
        put(ebpf, "NAMES", name, 0)?;
    }
    for &port in &spec.ports {
        put(ebpf, "PORTS", port, 0)?;
    }
    if let Some(Map::LpmTrie(_)) = ebpf.map("DESTINATIONS") {
        let error = |source| Error::Map { name: "DESTINATIONS", source };
        let map = ebpf.map_mut("DESTINATIONS").expect("just seen");
        let mut trie = lpm_trie::LpmTrie::<_, [u8; 16], u32>::try_from(map).map_err(error)?;
        for &(address, bits) in &spec.destinations {
            trie.insert(&lpm_trie::Key::new(bits, address), &0, 0).map_err(error)?;
        }
    }
    Ok(())
}

fn attach_all(ebpf: &mut Ebpf, hooks: &mut [Planned], cgroup: BorrowedFd<'_>) -> Result<(), Error> {
    let wants_btf =
        |planned: &Planned| matches!(planned.hook.attach, Attach::BtfTracepoint(..) | Attach::Iterator(_));
    let btf = if hooks.iter().any(wants_btf) {
        Some(AyaBtf::from_sys_fs().map_err(|error| Error::Object(error.into()))?)
    } else {
        None
    };
    let mut programs: BTreeMap<String, &mut Program> =
        ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let mut wanted = Vec::new();
    for planned in hooks.iter_mut().filter(|planned| planned.outcome == Outcome::Attached) {
        match programs.remove(planned.hook.program) {
            Some(program) => wanted.push((planned, program, Ok(()))),
            None => {
                planned.outcome = Outcome::NotBuilt;
            }
        }
    }
    load_all(&mut wanted, btf.as_ref());
    for (planned, program, loaded) in wanted {
        let attached = loaded.and_then(|()| attach(program, planned.hook.attach, cgroup));
        let Err(error) = attached else { continue };
        if let ProgramError::LoadError { io_error, .. } = &error
            && io_error.kind() == io::ErrorKind::PermissionDenied
            && !rustix::process::geteuid().is_root()
        {
            return Err(Error::NotPermitted);
        }
        planned.outcome = Outcome::Rejected(last_words(&error));
    }
    Ok(())
}

/// A hook, its program, and how loading it went.
type Wanted<'a> = (&'a mut Planned, &'a mut Program, Result<(), ProgramError>);

/// Loads the programs, several at once: the kernel verifies each on the processor of the loading thread, and that is
/// nearly all the time that starting takes.
fn load_all(wanted: &mut [Wanted<'_>], btf: Option<&AyaBtf>) {
    let abreast = thread::available_parallelism().map_or(1, usize::from).min(LOADERS);
    let queue = Mutex::new(wanted.iter_mut());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..abreast {
            scope.spawn(|| {
                while let Some((planned, program, loaded)) = next() {
                    *loaded = load_one(program, planned.hook.attach, btf);
                }
            });
        }
    });
}

fn load_one(program: &mut Program, to: Attach, btf: Option<&AyaBtf>) -> Result<(), ProgramError> {
    match (program, to, btf) {
        (Program::BtfTracePoint(program), Attach::BtfTracepoint(name, _), Some(btf)) => {
            program.load(name, btf)
        }
        (Program::Iter(program), Attach::Iterator(objects), Some(btf)) => program.load(objects, btf),
        (Program::RawTracePoint(program), ..) => program.load(),
        (Program::TracePoint(program), ..) => program.load(),
        (Program::CgroupSkb(program), ..) => program.load(),
        (Program::CgroupSockAddr(program), ..) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach(program: &mut Program, to: Attach, cgroup: BorrowedFd<'_>) -> Result<(), ProgramError> {
    // Links on cgroups are always shared with other programs; asking for it again is refused.
    let mode = CgroupAttachMode::default();
    match (program, to) {
        (Program::BtfTracePoint(program), Attach::BtfTracepoint(..)) => program.attach().map(drop),
        (Program::RawTracePoint(program), Attach::RawTracepoint(name, _)) => program.attach(name).map(drop),
        (Program::TracePoint(program), Attach::Tracepoint(category, name)) => {
            tracefs::with(|| program.attach(category, name).map(drop))
        }
        (Program::CgroupSkb(program), Attach::CgroupIngress) => {
            program.attach(cgroup, CgroupSkbAttachType::Ingress, mode).map(drop)
        }
        (Program::CgroupSkb(program), Attach::CgroupEgress) => {
            program.attach(cgroup, CgroupSkbAttachType::Egress, mode).map(drop)
        }
        (
            Program::CgroupSockAddr(program),
            Attach::CgroupConnect4 | Attach::CgroupConnect6 | Attach::CgroupSendmsg4 | Attach::CgroupSendmsg6,
        ) => program.attach(cgroup, mode).map(drop),
        // It is run once, by what reads it.
        (Program::Iter(_), Attach::Iterator(_)) => Ok(()),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// What the kernel said last, short enough for one line of a report.
fn last_words(error: &ProgramError) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let meaningful = log.lines().map(str::trim).filter(|line| {
            !line.is_empty()
                && !line.starts_with("processed ")
                && !line.starts_with("verification time")
                && !line.starts_with("stack depth")
        });
        lines.extend(meaningful.map(str::to_owned));
        lines.drain(..lines.len().saturating_sub(3));
        lines.push(io_error.to_string());
    } else {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(this) = cause {
            let text = this.to_string();
            if lines.last() != Some(&text) {
                lines.push(text);
            }
            cause = this.source();
        }
    }
    lines
}
