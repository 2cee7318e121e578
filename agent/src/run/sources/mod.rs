//! Where a session's records and context come from: the ring, sweeps of what is pending, the clocks, the neighbour
//! tables, `/proc`. Everything that reads the running system stands here; what it means is the pipeline's business.

mod adopted;
mod claims;
pub(super) mod clocks;
mod neighbours;
mod questions;
mod source;
mod watched;
mod ways;

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind as RecordKind, LostRecord, ProbeId, Stat},
    probes::probe_of,
};

use source::{Found, Kind, Sent, Source};

use crate::{
    claims::Counted,
    config,
    domains::Event,
    kernel::{
        executables,
        load::{Kernel, Loss},
        plan::Spec,
        ring::Drain,
        sweep::Sweep,
    },
    known::{context::Context, request::Request},
    network,
    observe::{Observer, Wanted, named, with_descendants},
    records::encode,
    reference::{self, Server},
    snapshot,
    time::{boot_ns, realtime_ns},
};

/// Every kind of source beside the ring, the sweep and the observer, in the order in which they are asked.
const SOURCES: &[Kind] = &[
    adopted::KIND,
    claims::KIND,
    clocks::KIND,
    neighbours::KIND,
    questions::KIND,
    watched::KIND,
    ways::KIND,
];

/// All sources of a session.
pub(in crate::run) struct Sources {
    pub(in crate::run) kernel: Kernel,
    pub(in crate::run) ring: Drain,
    pub(in crate::run) sweep: Sweep,
    pub(in crate::run) references: Option<reference::Watch>,
    /// Losses known so far, by probe and reason.
    pub(in crate::run) losses: Vec<Loss>,
    /// Records that came from the ring, by probe.
    pub(in crate::run) received: BTreeMap<ProbeId, u64>,
    spec: Spec,
    ntp: Vec<Server>,
    observer: Observer,
    others: Vec<Box<dyn Source>>,
}

/// What a look found.
pub(in crate::run) struct Seen {
    /// Context, to be applied first.
    pub(in crate::run) contexts: Vec<Context>,
    /// Losses since the last look: they weaken what is concluded from the rest.
    losses: Vec<Bytes>,
    /// What the other sources found, as records.
    found: Vec<Bytes>,
    /// What is pending, and that time passed.
    pending: Vec<Bytes>,
}

impl Sources {
    /// Attaches and opens everything.
    ///
    /// # Errors
    /// The kernel refuses the programs, or something that is asked for cannot be had.
    pub(in crate::run) fn open(spec: Spec, wanted: Wanted, ntp: Vec<Server>) -> anyhow::Result<Self> {
        let mut kernel = Kernel::attach(&spec)?;
        if !wanted.comms.is_empty() {
            // From now on the kernel says who gets such a name; these have one.
            for process in with_descendants(&named(&wanted.comms)) {
                kernel.choose_named(process)?;
            }
        }
        let ring = kernel.take_ring().context("the kernel object has no ring")?;
        let others: anyhow::Result<Vec<_>> =
            SOURCES.iter().filter_map(|kind| (kind.open)(&spec, &wanted).transpose()).collect();
        let references = (wants(&spec, ProbeId::CLOCK) || !ntp.is_empty())
            .then(|| reference::Watch::start(ntp.clone()))
            .transpose()
            .context("watching the reference clocks")?;
        Ok(Self {
            ring: Drain::new(ring).context("watching the ring")?,
            sweep: Sweep::new(spec.thresholds, spec.quiet || spec.by_owner()),
            references,
            losses: Vec::new(),
            received: BTreeMap::new(),
            observer: Observer::new(wanted, kernel.cgroup_root.clone())
                .with_executables(executables::noted(&kernel)),
            others: others?,
            kernel,
            spec,
            ntp,
        })
    }

    /// What is known before anything happens.
    pub(in crate::run) fn at_start(&mut self) -> anyhow::Result<Vec<Context>> {
        let now = boot_ns();
        let mut contexts = vec![Context::Clock { boot_ns: now, offset_ns: realtime_ns() - now as i64 }];
        for source in &mut self.others {
            contexts.extend(source.at_start(&mut self.kernel)?);
        }
        Ok(contexts)
    }

    /// What the filters and lookups cannot do here, in words.
    pub(in crate::run) fn caveats(&mut self) -> Vec<String> {
        self.observer.caveats()
    }

    /// What was counted of claims of own addresses, where they are watched.
    pub(in crate::run) fn claims(&self) -> Option<Counted> {
        self.others.iter().find_map(|source| source.claims())
    }

    /// What became of questions for neighbours, where they may be sent.
    pub(in crate::run) fn questions(&self) -> Option<Sent> {
        self.others.iter().find_map(|source| source.questions())
    }

    /// Anything was asked for but a choice of probes.
    pub(in crate::run) fn filters(&self) -> bool {
        let spec = &self.spec;
        spec.by_owner() || !spec.destinations.is_empty() || !spec.ports.is_empty() || spec.family.is_some()
    }

    /// Follows a process that was started to be followed.
    pub(in crate::run) fn follow(&mut self, process: u32) -> anyhow::Result<()> {
        self.kernel.follow(process)?;
        self.observer.follow(process);
        self.others.iter_mut().for_each(|source| source.follow(process));
        Ok(())
    }

    /// Applies what of a configuration can change while a session runs; what cannot is reported and stays as it was.
    pub(in crate::run) fn reconfigure(&mut self, config: &config::Session) {
        self.sweep.set(config.spec.thresholds);
        if config.ntp != self.ntp {
            match reference::Watch::start(config.ntp.clone()) {
                Ok(watch) => (self.references, self.ntp) = (Some(watch), config.ntp.clone()),
                Err(error) => tracing::error!("{error}: the NTP servers stay as they were"),
            }
        }
    }

    /// What the ring holds.
    pub(in crate::run) fn in_ring(&mut self) -> Vec<Bytes> {
        let mut taken: Vec<Bytes> = Vec::new();
        let received = &mut self.received;
        self.ring.take(|record| {
            if let Some(probe) = kind(record).and_then(probe_of) {
                *received.entry(probe.id).or_default() += 1;
            }
            taken.push(trimmed(record));
        });
        taken
    }

    /// What has to be known before an event is understood, and whether its filters could be set.
    pub(in crate::run) fn before(&mut self, event: &Event) -> (Vec<Context>, anyhow::Result<()>) {
        let mut contexts = Vec::new();
        self.observer.before(event, |context| contexts.push(context));
        let mut result = Ok(());
        for (cgroup, wanted) in self.observer.verdicts() {
            if let Err(error) = self.kernel.judge(cgroup, wanted) {
                result = Err(error.into());
            }
        }
        contexts.extend(self.others.iter_mut().flat_map(|source| source.before(event)));
        (contexts, result)
    }

    /// Reads what a rule asks for. Of a namespace or a process that is gone there may be nothing to say.
    pub(in crate::run) fn answer(&mut self, request: &Request) -> anyhow::Result<Vec<Context>> {
        Ok(match request {
            Request::Process(whom) => vec![Context::Snapshot(Box::new(snapshot::take(*whom, boot_ns())))],
            Request::Network(netns) => neighbours::gateways(*netns),
            Request::Tables(netns) => {
                vec![Context::Network(Box::new(network::tables(*netns, boot_ns())))]
            }
            Request::Sessions(until_ns) => {
                self.kernel.report_sessions(*until_ns)?;
                vec![]
            }
            Request::Exposed(exposure) => vec![clocks::exposed(exposure, &mut self.observer)],
            Request::Holders(sought) => vec![neighbours::holders(sought)],
            Request::References => {
                if let Some(references) = &self.references {
                    references.ask_now();
                }
                vec![]
            }
            Request::Answers => {
                self.sweep.fetch_answers();
                vec![]
            }
            Request::Listeners(place) => vec![claims::listeners(place)],
            Request::Ask(sought) => {
                self.others.iter_mut().for_each(|source| source.ask(sought));
                vec![]
            }
            Request::Reach(target) => vec![Context::Reach(Box::new(network::reach(target, boot_ns())))],
        })
    }

    /// Looks at what the kernel does not say by itself.
    pub(in crate::run) fn look(&mut self, now: u64) -> anyhow::Result<Seen> {
        let counted = self.kernel.losses()?;
        let missed = counted.iter().any(|loss| loss.probe == ProbeId::CONNECT && loss.stat == Stat::Missed);
        let mut pending = Vec::new();
        self.sweep.sweep(&mut self.kernel, now, missed, |record| pending.push(record))?;
        let grown = self.grown(counted);
        pending.push(encode(header::<Header>(RecordKind::TICK, now)));
        let mut all = Found::default();
        for source in &mut self.others {
            let found = source.look(&mut self.kernel, &grown)?;
            for context in found.contexts {
                if let Context::Watched(watched) = &context {
                    self.observer.introduce(&watched.owner(), now, |context| all.contexts.push(context));
                }
                all.contexts.push(context);
            }
            all.records.extend(found.records);
        }
        let losses = grown.into_iter().map(|loss| {
            encode(LostRecord {
                header: header::<LostRecord>(RecordKind::LOST, now),
                probe: loss.probe.0,
                stat: loss.stat as u32,
                count: loss.count,
            })
        });
        Ok(Seen { contexts: all.contexts, losses: losses.collect(), found: all.records, pending })
    }

    /// What a look found, with what is in the ring, in the order in which it is to be taken.
    pub(in crate::run) fn in_order(&mut self, seen: Seen, now: u64) -> [Vec<Bytes>; 5] {
        // What is in the ring from before `now` happened before what we saw; the rest after it: a connect that
        // was seen waiting may have ended since. What was lost comes first: it weakens what is concluded from the
        // rest. Who set the clock explains what the look at it found.
        let (before, after): (Vec<Bytes>, Vec<Bytes>) = self
            .in_ring()
            .into_iter()
            .partition(|record| made_ns(record) <= now || kind(record) == Some(RecordKind::CLOCK_SET));
        [seen.losses, before, seen.found, seen.pending, after]
    }

    /// By how much each loss has grown since it was counted last.
    fn grown(&mut self, counted: Vec<Loss>) -> Vec<Loss> {
        let mut grown = Vec::new();
        for loss in counted {
            let known =
                self.losses.iter_mut().find(|known| (known.probe, known.stat) == (loss.probe, loss.stat));
            let count = match known {
                Some(known) => loss.count - std::mem::replace(&mut known.count, loss.count),
                None => {
                    let count = loss.count;
                    self.losses.push(loss);
                    count
                }
            };
            if count > 0 {
                grown.push(Loss { count, ..loss });
            }
        }
        grown
    }
}

fn wants(spec: &Spec, probe: ProbeId) -> bool {
    spec.probes.is_empty() || spec.probes.contains(&probe)
}

fn header<T>(kind: RecordKind, boot_ns: u64) -> Header {
    Header { boot_ns, kind: kind.0, len: size_of::<T>() as u32 }
}

/// The meaningful bytes of a record: what its header says, if that can be.
fn trimmed(record: &[u8]) -> Bytes {
    let len = record.get(12..16).and_then(|len| len.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
    Bytes::copy_from_slice(record.get(..len).unwrap_or(record))
}

/// When a record was made, by its header; CLOCK_BOOTTIME in nanoseconds.
fn made_ns(record: &[u8]) -> u64 {
    record.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// A record's kind, by its header.
fn kind(record: &[u8]) -> Option<RecordKind> {
    record.get(8..12)?.try_into().map(|number| RecordKind(u32::from_ne_bytes(number))).ok()
}
