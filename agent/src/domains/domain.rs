//! What a domain is to the rest: how its records are applied, and what each of its facts can be asked.

use std::net::IpAddr;

use ebpf_probes::{
    abi::{Netns, Owner},
    spec::Probe,
};

use crate::{
    fact::{Endpoint, Phrase},
    known::{Known, bounded::Table, context::Context, select::Select},
};

/// What is remembered of a domain, and how its records become facts. Pure: its only inputs are records and
/// [`Context`]s, and time is the records'.
pub trait Domain: Default {
    /// What its records say.
    type Record;
    /// What they mean.
    type What;

    /// The probe whose records they are.
    const PROBE: &'static Probe;

    /// Another record is about to be applied, of whichever domain: what is due by now.
    fn before(&mut self, _known: &Known, _now_ns: u64, _facts: &mut Vec<Emitted<Self::What>>) {}

    /// Applies a record and emits what it means, in order.
    fn record(
        &mut self,
        known: &mut Known,
        boot_ns: u64,
        record: &Self::Record,
        facts: &mut Vec<Emitted<Self::What>>,
    );

    /// A record was applied, of whichever domain: what is to be emitted before its own facts.
    fn after(&mut self, _known: &Known, _now_ns: u64, _facts: &mut Vec<Emitted<Self::What>>) {}

    /// Time passed.
    fn tick(&mut self, _known: &Known, _now_ns: u64, _facts: &mut Vec<Emitted<Self::What>>) {}

    /// Applies what was found out about the system.
    fn context(&mut self, _context: &Context) {}

    /// How full what it remembers is.
    fn tables(&self) -> Vec<Table>;
}

/// What happened, when, and who did it; the rest of a fact is the same for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted<W> {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Who did it.
    pub owner: Owner,
    /// What it was.
    pub what: W,
}

impl<W> Emitted<W> {
    /// The same, by another type.
    pub fn map<V>(self, what: impl FnOnce(W) -> V) -> Emitted<V> {
        Emitted { boot_ns: self.boot_ns, owner: self.owner, what: what(self.what) }
    }
}

/// Slower than this is slow, milliseconds.
pub const SLOW_MS: f64 = 1000.0;

/// What a record mentions that has to be known before it is applied: the observer looks it up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mentions<'a> {
    /// Whose record it is, and who else acted.
    pub owners: [Option<&'a Owner>; 2],
    /// The network namespace it is about.
    pub netns: Option<Netns>,
    /// Who listens decides whose it is.
    pub listeners: bool,
    /// What other processes do was filtered out in the kernel, which also knows children that are gone before they
    /// can be looked at.
    pub vouched: bool,
    /// When the first owner was there for sure, CLOCK_BOOTTIME in nanoseconds; else at the record's own time.
    pub since_ns: Option<u64>,
}

impl<'a> Mentions<'a> {
    /// One owner, and nothing else.
    pub fn owner(owner: &'a Owner) -> Self {
        Self { owners: [Some(owner), None], ..Self::default() }
    }

    /// Something of a network namespace, with its owner where there is one.
    pub fn of_netns(netns: Netns, owner: Option<&'a Owner>) -> Self {
        Self { owners: [owner, None], netns: Some(netns), ..Self::default() }
    }
}

/// What each fact can be asked, whatever it says.
pub trait Describe {
    /// Whether it is bad news, and how long it took or has taken: `-Z` and `--min-ms` ask.
    fn weight(&self) -> Weight;

    /// Whether it is about a peer that is wanted. What the kernel filters is not asked again.
    fn passes(&self, _select: &Select) -> bool {
        true
    }

    /// Whether it concerns every process, so that filters by process let it pass.
    fn concerns_everyone(&self) -> bool {
        false
    }

    /// This host's end of a connection; port 0 until it has one.
    fn local(&self) -> Option<&Endpoint> {
        None
    }

    /// Where it goes, by the port that decides: the client's peer's, a server's own.
    fn towards(&self) -> Option<(IpAddr, u16)> {
        None
    }

    /// What a line says of it; nothing where another fact says it too.
    fn phrase(&self) -> Option<Phrase>;

    /// What a summary counts it under; its kind in words unless said otherwise.
    fn label(&self) -> Option<String> {
        None
    }

    /// What it says of the operation it is about, and where that goes.
    fn operation(&self) -> Option<Operation> {
        None
    }

    /// What failed, if something did.
    fn failure(&self) -> Option<Failure> {
        None
    }
}

/// How much a fact matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// It failed, was retried, or is stuck.
    pub bad: bool,
    /// How long it took or has taken, milliseconds.
    pub ms: Option<f64>,
}

impl Weight {
    /// Bad news that took so long.
    pub fn bad(ms: f64) -> Self {
        Self { bad: true, ms: Some(ms) }
    }

    /// Something that takes no time, and whether it is bad news.
    pub fn of(bad: bool) -> Self {
        Self { bad, ms: None }
    }
}

/// Something that was begun and goes somewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Where to: of a server the port of its own that it was reached at, for its clients have any.
    pub destination: String,
    /// How it stands.
    pub step: Step,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// It began.
    Begun,
    /// It has waited so long, milliseconds.
    Waits(f64),
    /// It ended.
    Ended {
        /// Badly.
        failed: bool,
        /// After so long, milliseconds.
        ms: Option<f64>,
    },
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it went.
    pub destination: String,
    /// The error, in words.
    pub error: String,
}
