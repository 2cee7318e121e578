//! How a session begins: the request completed with what only the running system can tell, the probes
//! attached, the recording's header written.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ebpf_probes::abi::ProbeId;
use tokio::time::Instant;

use super::{Session, wants};
use crate::{
    clockwatch::Clockwatch,
    config,
    enrich::{
        context::Context,
        observe::{Observer, Wanted, named, with_descendants},
        select::Select,
    },
    fact::{Degraded, MissingReason, Probes, SCHEMA, Start},
    kernel::{
        load::Kernel,
        plan::{Cgroup, Family, Outcome, Planned, Request},
        ring::Drain,
        sweep::Sweep,
    },
    namespaces,
    pipeline::{Item, Pipeline},
    record, reference,
    rules::RULES,
    time::{boot_ns, realtime_ns},
    units,
};

impl Session {
    pub(super) fn attach(config: &config::Session) -> anyhow::Result<Self> {
        let mut wanted = config.wanted.clone();
        let request = request(config, &mut wanted)?;
        let by_owner = wanted.by_owner();
        let mut kernel = Kernel::attach(&request)?;
        if !wanted.comms.is_empty() {
            // From now on the kernel tells who gets such a name; these have one.
            for process in with_descendants(&named(&wanted.comms)) {
                kernel.choose_named(process)?;
            }
        }
        let probes = attached(&kernel);
        for asked in &config.asked {
            if !probes.attached.contains(asked) {
                let why: Vec<&str> = probes
                    .degraded
                    .iter()
                    .filter(|degraded| degraded.probe == *asked)
                    .map(|degraded| degraded.why.as_str())
                    .collect();
                anyhow::bail!("probe {asked} was asked for and is not available: {}", why.join("; "));
            }
        }
        let ring = kernel.take_ring().context("the kernel object has no ring")?;
        let drain = Drain::new(ring).context("watching the ring")?;
        let uname = rustix::system::uname();
        let (release, node) =
            (uname.release().to_string_lossy().into_owned(), uname.nodename().to_string_lossy().into_owned());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let origin = Context::Origin {
            version: version.clone(),
            kernel: release.clone(),
            node: node.clone(),
            probes: probes.clone(),
            drop_reasons: kernel.drop_reasons.clone(),
            netns: namespaces::own().unwrap_or_default(),
            select: Select {
                by_owner,
                only_bad: request.only_bad,
                min_ms: request.min_ns / 1_000_000,
                destinations: request.destinations.clone(),
                ports: request.ports.clone(),
                only_v6: request.family.map(|family| family == Family::V6),
            },
            time_zone: units::time_zone(),
        };
        let clocks = wants(&request, ProbeId::Clock)
            .then(Clockwatch::new)
            .transpose()
            .context("watching the clock")?;
        let references = (clocks.is_some() || !config.ntp.is_empty())
            .then(|| reference::Watch::start(config.ntp.clone()))
            .transpose()
            .context("watching the reference clocks")?;
        let mut pipeline = Pipeline::new(RULES);
        pipeline.step(Item::Context(&origin));
        let sweep = Sweep::new(request.thresholds, request.quiet || request.by_owner());
        let observer = Observer::new(wanted, kernel.cgroup_root.clone());
        Ok(Self {
            request,
            kernel,
            drain,
            pipeline,
            observer,
            sweep,
            clocks,
            references,
            ways: super::ways::Ways::default(),
            leap_seconds: None,
            printer: None,
            view: None,
            service: None,
            writer: None,
            progress: None,
            origin,
            start: Start { schema: SCHEMA, version, kernel: release, node, probes },
            known_losses: Vec::new(),
            undecodable: 0,
            undecodable_why: None,
            records: 0,
            told: 0,
            began: Instant::now(),
            max_events: config.max_events,
            failure: None,
            tables: super::neighbours::Tables::default(),
            feed: super::metrics::Feed::default(),
        })
    }

    /// Begins a recording; `force`: in place of one that exists.
    pub(super) fn create(&self, path: &Path, force: bool) -> anyhow::Result<record::Writer<Box<dyn Write>>> {
        // A pipe or a device may be there.
        if !force && path.metadata().is_ok_and(|there| there.is_file()) {
            anyhow::bail!("{}: it exists: give another name, or --force to overwrite it", path.display());
        }
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).with_context(|| format!("{}: cannot write there", path.display()))?)
        };
        let start = record::Start {
            created_wall_ns: realtime_ns(),
            boot_ns: boot_ns(),
            origin: record::Origin {
                version: self.start.version.clone(),
                kernel: self.start.kernel.clone(),
                arch: std::env::consts::ARCH.into(),
                node: self.start.node.clone(),
                byte_order: record::ByteOrder::NATIVE,
            },
        };
        record::Writer::new(out, &start).with_context(|| path.display().to_string())
    }
}

/// The request, completed with what only the running system can tell.
fn request(config: &config::Session, wanted: &mut Wanted) -> anyhow::Result<Request> {
    let mut request = config.request.clone();
    request.by_container = wanted.by_container();
    for pid in &request.processes {
        if !PathBuf::from(format!("/proc/{pid}")).exists() {
            anyhow::bail!("-p {pid}: there is no such process");
        }
    }
    if !config.command.is_empty() {
        // Our own forks: the command is followed from its first instruction on.
        request.processes.push(std::process::id());
        request.follow = true;
        wanted.processes.push(std::process::id());
    }
    if !request.processes.is_empty() {
        request.processes = with_descendants(&request.processes);
    }
    if let Some(path) = &wanted.cgroup {
        let root = crate::kernel::cgroup::root()?;
        let relative = path.trim_matches('/');
        let directory = root.join(relative);
        let metadata = std::fs::metadata(&directory)
            .with_context(|| format!("--cgroup {path}: {} cannot be read", directory.display()))?;
        let level = Path::new(relative).components().count();
        request.cgroup = Some(Cgroup {
            id: std::os::unix::fs::MetadataExt::ino(&metadata),
            level: u32::try_from(level).unwrap_or(u32::MAX),
        });
    }
    Ok(request)
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
