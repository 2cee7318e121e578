//! What to load and attach, decided from data before anything is touched: which hooks the asked-for
//! probes need, which of them this kernel has, and the constants to freeze into the object.

use std::collections::BTreeMap;

use ebpf_probes::{
    abi::{ProbeId, generation},
    fields,
    probes::{
        PROBES,
        connect::{CONNTRACK, CONNTRACK_TUPLE},
    },
    spec::{Attach, FOLLOW_EXIT, FOLLOW_FORK, FOLLOW_NAME, Field, Hook, Probe},
};

use rustix::time::{ClockId, clock_getres};

use super::btf::Btf;

/// The global that says how namespaces are distinguished.
const GENERATION: &str = "GENERATION";

/// A connect older than this waits, as far as the correlation is concerned: no healthy one takes so long.
pub(super) const WAITING_NS: u64 = 250_000_000;
/// When waiting becomes worth reporting, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// A connect without an answer.
    pub connect_ns: u64,
    /// A handshake without progress.
    pub tls_ns: u64,
    /// A lookup without an answer; the agent decides that alone.
    pub dns_ns: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { connect_ns: 3_000_000_000, tls_ns: 1_000_000_000, dns_ns: 2_000_000_000 }
    }
}

/// What is asked for. Everything here is decided in the kernel.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// The probes; empty means all.
    pub probes: Vec<ProbeId>,
    /// Only these processes and their children.
    pub processes: Vec<u32>,
    /// Follow processes even when there is none yet (a command will be started).
    pub follow: bool,
    /// Only processes that have a thread of one of these names (NUL-padded), and their children.
    pub comms: Vec<[u8; 16]>,
    /// Only this cgroup and those below it.
    pub cgroup: Option<Cgroup>,
    /// Only some containers or pods; which cgroups those are is found out as they appear.
    pub by_container: bool,
    /// Only these destinations: IPv4-mapped or IPv6 address and prefix length out of 128.
    pub destinations: Vec<([u8; 16], u32)>,
    /// Only these ports.
    pub ports: Vec<u16>,
    /// IPv4 and IPv6 wanted. `None`: both.
    pub family: Option<Family>,
    /// Only what failed, retried or was slow.
    pub only_bad: bool,
    /// Only what took at least this long, nanoseconds.
    pub min_ns: u64,
    /// Anomalies only, as `culprit run`.
    pub quiet: bool,
    /// Leave out hooks on system calls.
    pub no_syscalls: bool,
    /// Everybody on a link may be asked for a neighbour that an incident is about.
    pub probe_neighbours: bool,
    /// When waiting becomes worth reporting.
    pub thresholds: Thresholds,
    /// Size of the ring in bytes; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
}

impl Spec {
    /// Only some processes are wanted: what has no owner yet is held back.
    pub fn by_owner(&self) -> bool {
        self.follow
            || !self.processes.is_empty()
            || !self.comms.is_empty()
            || self.cgroup.is_some()
            || self.by_container
    }
}

/// One address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A cgroup v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id: the inode number of its directory.
    pub id: u64,
    /// How many levels below the root it is.
    pub level: u32,
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is attached (or, in a plan, can be).
    Attached,
    /// This kernel has no tracepoint of this name.
    NoTracepoint(&'static str),
    /// A tracepoint's argument is of another type on this kernel.
    OtherArgument {
        /// The tracepoint.
        tracepoint: &'static str,
        /// Which argument, from 0.
        index: usize,
        /// Its type on this kernel.
        found: String,
        /// The type that the program relies on.
        wanted: &'static str,
    },
    /// A field it reads is not where it can be read: how so.
    NoField(String),
    /// The verifier or the attachment refused it; the last lines it said.
    Rejected(Vec<String>),
    /// `--no-syscalls` leaves it out.
    LeftOut,
    /// This build's kernel object lacks the program.
    NotBuilt,
}

impl Outcome {
    /// One clause for people; `None` when all is well.
    pub fn why(&self) -> Option<String> {
        Some(match self {
            Self::Attached => return None,
            Self::NoTracepoint(name) => format!("this kernel has no tracepoint {name}"),
            Self::OtherArgument { tracepoint, index, found, wanted } => {
                format!("argument {index} of tracepoint {tracepoint} is {found} on this kernel, not {wanted}")
            }
            Self::NoField(how) => how.clone(),
            Self::Rejected(lines) => format!("the kernel refused it: {}", lines.join(" / ")),
            Self::LeftOut => "left out, as --no-syscalls asks".into(),
            Self::NotBuilt => "it is not in this build's kernel object".into(),
        })
    }
}

/// A hook to attach, or the reason why not.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The hook.
    pub hook: &'static Hook,
    /// The probes that use it.
    pub probes: Vec<ProbeId>,
    /// `Attached` means: try.
    pub outcome: Outcome,
}

impl Planned {
    /// Whether `probe` is useless without it. Probes that share a program may differ in that.
    pub fn required_by(&self, probe: &Probe) -> bool {
        probe.hooks.iter().any(|hook| hook.program == self.hook.program && hook.required)
    }
}

/// A constant for `.rodata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constant {
    /// Four bytes.
    U32(u32),
    /// Eight bytes.
    U64(u64),
}

/// Everything the loader does, as data.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Every program once, in table order.
    pub hooks: Vec<Planned>,
    /// Constants by the name of their global.
    pub constants: BTreeMap<String, Constant>,
    /// The probes asked for, in table order.
    pub probes: Vec<&'static Probe>,
}

impl Plan {
    /// Plans for a kernel with these types.
    pub fn new(spec: &Spec, btf: &Btf) -> Self {
        let wanted = |probe: &&Probe| spec.probes.is_empty() || spec.probes.contains(&probe.id);
        let probes: Vec<&'static Probe> = PROBES.iter().filter(wanted).collect();
        let mut hooks: Vec<Planned> = Vec::new();
        for probe in &probes {
            for hook in probe.hooks {
                match hooks.iter_mut().find(|planned| planned.hook.program == hook.program) {
                    Some(planned) => planned.probes.push(probe.id),
                    None => {
                        let left_out = spec.no_syscalls && hook.is_on_system_call();
                        let outcome = if left_out { Outcome::LeftOut } else { check(hook, btf) };
                        hooks.push(Planned { hook, probes: vec![probe.id], outcome });
                    }
                }
            }
        }
        let by_process = spec.follow || !spec.processes.is_empty();
        let by_name = !spec.comms.is_empty();
        for (hook, needed) in [
            (&FOLLOW_FORK, by_process || by_name),
            (&FOLLOW_EXIT, by_process || by_name),
            (&FOLLOW_NAME, by_name),
        ] {
            if needed {
                hooks.push(Planned { hook, probes: vec![], outcome: check(hook, btf) });
            }
        }
        let mut plan = Self { hooks, constants: BTreeMap::new(), probes };
        plan.set_constants(spec, btf);
        plan
    }

    /// Whether `program` is planned and can be attached.
    pub fn has(&self, program: &str) -> bool {
        self.hooks
            .iter()
            .any(|planned| planned.hook.program == program && planned.outcome == Outcome::Attached)
    }

    /// How the programs distinguish namespaces of the same number: one of [`generation`].
    pub fn generation(&self) -> u32 {
        match self.constants.get(GENERATION) {
            Some(Constant::U32(source)) => *source,
            _ => generation::UNKNOWN,
        }
    }

    /// A namespace's cookie where each has one from birth, else what it was given instead.
    fn set_generation(&mut self, btf: &Btf) {
        let sources =
            [(generation::COOKIE, fields::NET_COOKIE), (generation::HASH_MIX, fields::NET_HASH_MIX)];
        // An atomic one is drawn when it is asked for (before Linux 5.12).
        let drawn_late = btf.field("net.net_cookie.counter").is_ok();
        let usable = |(source, field): &(u32, Field)| {
            missing(field, btf).is_none() && !(drawn_late && *source == generation::COOKIE)
        };
        let found = sources.into_iter().find(usable);
        let source = found.map_or(generation::UNKNOWN, |(source, _)| source);
        self.constants.insert(GENERATION.into(), Constant::U32(source));
        if let Some((_, field)) = found
            && let Ok(place) = btf.field(field.path)
        {
            self.constants.insert(field.global.to_owned(), Constant::U32(place.offset));
        }
    }

    fn set_constants(&mut self, spec: &Spec, btf: &Btf) {
        let enabled = self.probes.iter().fold(0, |bits, probe| bits | 1 << probe.id.0);
        let bit = |yes: bool| Constant::U32(u32::from(yes));
        let drop_args = btf.tracepoint("kfree_skb").unwrap_or_default();
        let reasons = btf.enumerators("skb_drop_reason").unwrap_or_default();
        let helpers = btf.enumerators("bpf_func_id").unwrap_or_default();
        let reason = |wanted: &str| {
            let found =
                reasons.iter().find(|(name, _)| name.strip_prefix("SKB_DROP_REASON_") == Some(wanted));
            Constant::U32(found.map_or(u32::MAX, |(_, number)| *number))
        };
        let constants = [
            ("ENABLED", Constant::U32(enabled)),
            ("WAKE_BYTES", Constant::U32(spec.ring_bytes / 4)),
            ("HAVE_CONNECT_EXIT", bit(self.has("enter_connect") && self.has("exit_connect"))),
            ("HAVE_SO_ERROR", bit(self.has("enter_getsockopt"))),
            ("HAVE_DROP_REASON", bit(drop_args.get(2).is_some_and(|arg| arg == "enum skb_drop_reason"))),
            ("DROP_NO_SOCKET", reason("NO_SOCKET")),
            ("DROP_NOT_SPECIFIED", reason("NOT_SPECIFIED")),
            ("DROP_OTHERHOST", reason("OTHERHOST")),
            ("HAVE_TAI", bit(helpers.iter().any(|(name, _)| name == "BPF_FUNC_ktime_get_tai_ns"))),
            // Of the release after the one that let tracepoints draw a socket's cookie.
            ("HAVE_COOKIE", bit(helpers.iter().any(|(name, _)| name == "BPF_FUNC_for_each_map_elem"))),
            ("BY_PROCESS", bit(spec.follow || !spec.processes.is_empty())),
            ("BY_COMM", bit(!spec.comms.is_empty())),
            ("CGROUP", Constant::U64(spec.cgroup.map_or(0, |cgroup| cgroup.id))),
            ("CGROUP_LEVEL", Constant::U32(spec.cgroup.map_or(0, |cgroup| cgroup.level))),
            ("BY_CONTAINER", bit(spec.by_container)),
            ("BY_DESTINATION", bit(!spec.destinations.is_empty())),
            ("BY_PORT", bit(!spec.ports.is_empty())),
            ("V4", bit(spec.family != Some(Family::V6))),
            ("V6", bit(spec.family != Some(Family::V4))),
            ("ONLY_BAD", bit(spec.only_bad)),
            ("MIN_NS", Constant::U64(spec.min_ns)),
            ("RUN", bit(spec.quiet)),
            ("STALL_NS", Constant::U64(spec.thresholds.tls_ns)),
            ("SLOW_NS", Constant::U64(WAITING_NS)),
            ("TICK_NS", Constant::U64(tick_ns())),
        ];
        self.constants.extend(constants.map(|(name, value)| (name.to_owned(), value)));
        self.set_generation(btf);
        let described =
            |(path, offset): &(&str, u32)| btf.field(path).is_ok_and(|place| place.offset == *offset);
        let conntrack = CONNTRACK.iter().all(|field| missing(field, btf).is_none())
            && CONNTRACK_TUPLE.iter().all(described);
        self.constants.insert("HAVE_CONNTRACK".into(), bit(conntrack));
        let fields = self.hooks.iter().flat_map(|planned| planned.hook.fields);
        let conntrack = CONNTRACK.iter().filter(|_| conntrack);
        let offsets: Vec<(String, Constant)> = fields
            .chain(conntrack)
            .filter_map(|field| {
                Some((field.global.to_owned(), Constant::U32(btf.field(field.path).ok()?.offset)))
            })
            .collect();
        self.constants.extend(offsets);
    }
}

/// Whether this kernel has the hook, with the arguments and fields its program relies on.
pub fn check(hook: &Hook, btf: &Btf) -> Outcome {
    if let Attach::BtfTracepoint(name, wanted) | Attach::RawTracepoint(name, wanted) = hook.attach {
        let Some(found) = btf.tracepoint(name) else {
            return Outcome::NoTracepoint(name);
        };
        for (index, &wanted) in wanted.iter().enumerate() {
            let found = found.get(index).map_or("nothing", String::as_str);
            if unqualified(found) != unqualified(wanted) {
                return Outcome::OtherArgument { tracepoint: name, index, found: found.to_owned(), wanted };
            }
        }
    }
    match hook.fields.iter().find_map(|field| missing(field, btf)) {
        Some(why) => Outcome::NoField(why),
        None => Outcome::Attached,
    }
}

/// The kernel's tick in nanoseconds, as long as its coarse clock's.
fn tick_ns() -> u64 {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    u64::try_from(tick.tv_nsec).unwrap_or(0)
}

fn missing(field: &Field, btf: &Btf) -> Option<String> {
    match btf.field(field.path) {
        Ok(place) if field.size == 0 || place.size == field.size => None,
        Ok(place) => {
            Some(format!("{} has {} bytes on this kernel, not {}", field.path, place.size, field.size))
        }
        Err(error) => Some(error.to_string()),
    }
}

fn unqualified(c_type: &str) -> String {
    c_type.replace("const ", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Option<Btf> {
        Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").ok()?).ok()
    }

    #[test]
    fn a_program_two_probes_share_is_planned_once() {
        let Some(btf) = running() else { return };
        let plan = Plan::new(&Spec::default(), &btf);
        let shared = plan.hooks.iter().filter(|planned| planned.hook.program == "set_state").count();
        assert_eq!(shared, 1);
    }

    #[test]
    fn only_the_asked_for_probes_are_enabled() {
        let Some(btf) = running() else { return };
        let plan = Plan::new(&Spec { probes: vec![ProbeId::DNS], ..Spec::default() }, &btf);
        assert_eq!(plan.constants["ENABLED"], Constant::U32(1 << ProbeId::DNS.0));
        assert!(!plan.has("set_state"));
    }

    #[test]
    fn a_tracepoint_with_other_arguments_is_unsupported_and_says_so() {
        let Some(btf) = running() else { return };
        let hook = Hook {
            program: "x",
            attach: Attach::BtfTracepoint("inet_sock_set_state", &["struct task_struct *"]),
            gives: "",
            required: false,
            fields: &[],
        };
        let outcome = check(&hook, &btf);
        assert!(matches!(outcome, Outcome::OtherArgument { index: 0, .. }), "{outcome:?}");
        let why = outcome.why().expect("it is missing");
        assert!(why.contains("argument 0") && why.contains("struct task_struct *"), "{why}");
    }
}
