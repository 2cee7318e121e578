//! How a session is built from its configuration: the spec completed with what only the running system can say, the
//! sources opened, and what is attached named.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Session, sources::Sources};
use crate::{
    config,
    fact::{Degraded, MissingReason, Probes, SCHEMA, Start},
    kernel::{
        load::Kernel,
        plan::{Cgroup, Family, Outcome, Planned, Spec},
    },
    known::{context::Context, select::Select},
    namespaces,
    observe::{Wanted, with_descendants},
    pipeline::Pipeline,
    rules::RULES,
    units,
};

impl Session {
    /// Attaches what the configuration asks for.
    ///
    /// # Errors
    /// The kernel refuses it, or a probe that was asked for by name is not available.
    pub(super) fn build(config: &config::Session) -> anyhow::Result<Self> {
        let mut wanted = config.wanted.clone();
        let spec = spec(config, &mut wanted)?;
        let select = Select {
            by_owner: wanted.by_owner(),
            only_bad: spec.only_bad,
            min_ms: spec.min_ns / 1_000_000,
            destinations: spec.destinations.clone(),
            ports: spec.ports.clone(),
            only_v6: spec.family.map(|family| family == Family::V6),
        };
        let sources = Sources::open(spec, wanted, config.ntp.clone())?;
        let probes = attached(&sources.kernel);
        check_asked(&config.asked, &probes)?;
        let uname = rustix::system::uname();
        let start = Start {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            node: uname.nodename().to_string_lossy().into_owned(),
            probes,
        };
        let origin = Context::Origin {
            version: start.version.clone(),
            kernel: start.kernel.clone(),
            node: start.node.clone(),
            probes: start.probes.clone(),
            drop_reasons: sources.kernel.drop_reasons.clone(),
            netns: namespaces::own().unwrap_or_default(),
            select,
            time_zone: units::time_zone(),
            dns_stall_ms: Some(config.spec.thresholds.dns_ns / 1_000_000),
            clock: config.clock,
        };
        Ok(Self::new(sources, Pipeline::new(RULES), start, origin, config.max_events))
    }
}

/// A probe that was asked for by name is available.
fn check_asked(asked: &[String], probes: &Probes) -> anyhow::Result<()> {
    for asked in asked {
        if !probes.attached.contains(asked) {
            let degraded = probes.degraded.iter().filter(|degraded| degraded.probe == *asked);
            let why: Vec<&str> = degraded.map(|degraded| degraded.why.as_str()).collect();
            anyhow::bail!("probe {asked} was asked for and is not available: {}", why.join("; "));
        }
    }
    Ok(())
}

/// The spec, completed with what only the running system can say.
fn spec(config: &config::Session, wanted: &mut Wanted) -> anyhow::Result<Spec> {
    let mut spec = config.spec.clone();
    spec.by_container = wanted.by_container();
    for pid in &spec.processes {
        if !PathBuf::from(format!("/proc/{pid}")).exists() {
            anyhow::bail!("-p {pid}: there is no such process");
        }
    }
    if !config.command.is_empty() {
        // Our own forks: the command is followed from its first instruction on.
        spec.processes.push(std::process::id());
        spec.follow = true;
        wanted.processes.push(std::process::id());
    }
    if !spec.processes.is_empty() {
        spec.processes = with_descendants(&spec.processes);
    }
    if let Some(path) = &wanted.cgroup {
        let root = crate::kernel::cgroup::root()?;
        let relative = path.trim_matches('/');
        let directory = root.join(relative);
        let metadata = std::fs::metadata(&directory)
            .with_context(|| format!("--cgroup {path}: {} cannot be read", directory.display()))?;
        let level = Path::new(relative).components().count();
        spec.cgroup = Some(Cgroup {
            id: std::os::unix::fs::MetadataExt::ino(&metadata),
            level: u32::try_from(level).unwrap_or(u32::MAX),
        });
    }
    Ok(spec)
}

/// What is attached, probe by probe, and what is not.
fn attached(kernel: &Kernel) -> Probes {
    let mut probes = Probes::default();
    for probe in ebpf_probes::probes::PROBES {
        let hooks: Vec<_> =
            kernel.hooks.iter().filter(|planned| planned.probes.contains(&probe.id)).collect();
        if hooks.is_empty() {
            continue;
        }
        if hooks.iter().all(|planned| !planned.required_by(probe) || planned.outcome == Outcome::Attached) {
            probes.attached.push(probe.name.into());
        }
        for planned in hooks {
            lacks(&mut probes.degraded, probe.name, planned);
        }
    }
    // Hooks no probe owns: they follow the processes asked for.
    for planned in kernel.hooks.iter().filter(|planned| planned.probes.is_empty()) {
        lacks(&mut probes.degraded, "-p", planned);
    }
    probes
}

/// Notes a hook that is missing, with those that give the same and are missing for the same reason.
fn lacks(degraded: &mut Vec<Degraded>, probe: &str, planned: &Planned) {
    let Some(why) = planned.outcome.why() else { return };
    let why = format!("without {} ({why})", planned.hook.gives);
    let hook = planned.hook.attach.to_string();
    match degraded.iter_mut().find(|known| known.probe == probe && known.why == why) {
        Some(known) => known.hooks.push(hook),
        None => degraded.push(Degraded {
            probe: probe.into(),
            hooks: vec![hook],
            reason: reason(&planned.outcome),
            why,
        }),
    }
}

/// Why a hook is not attached; `None` when it is.
fn reason(outcome: &Outcome) -> Option<MissingReason> {
    Some(match outcome {
        Outcome::Attached => return None,
        Outcome::NoTracepoint(_) => MissingReason::NoTracepoint,
        Outcome::OtherArgument { .. } => MissingReason::OtherArgument,
        Outcome::NoField(_) => MissingReason::NoField,
        Outcome::Rejected(_) => MissingReason::Rejected,
        Outcome::LeftOut => MissingReason::LeftOut,
        Outcome::NotBuilt => MissingReason::NotBuilt,
    })
}
