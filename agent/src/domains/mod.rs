//! Everything that is known of one subject stands in one folder: what its records say (`decode`), what they mean
//! (`fact`), what is remembered to say it (`apply` and what it uses), and how it reads (`text`). The table below is all
//! that the rest derives from.
//!
//! No domain uses another. What one must know of another is asked of the `world`, which stands above them.

pub mod clock;
pub mod connect;
pub mod dns;
mod domain;
pub mod neighbour;
#[cfg(test)]
mod tests;
pub mod tls;

use bytes::Bytes;
use ebpf_probes::{
    abi::{Kind, LostRecord, ProbeId, Stat},
    probes::{PROBES, probe_of},
};
use schemars::JsonSchema;
use serde::Serialize;

pub use domain::{Describe, Domain, Emitted, Failure, Mentions, Operation, SLOW_MS, Step, Weight};

use crate::{
    fact::Process,
    known::{Known, bounded::Table, context::Context, select::Select},
    records::{Error, read, whole},
};

/// One thing that happened, as the kernel saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
    /// What.
    pub what: Record,
}

/// Something that happened, with names, processes and latencies worked out: what `trace` prints, one line each, and the
/// JSON stream's documented shape.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Fact {
    /// When, RFC 3339 with microseconds, UTC.
    pub at: String,
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// Which probe saw it.
    pub probe: &'static str,
    /// Who did it, as far as known.
    pub process: Option<Process>,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

macro_rules! domains {
    ($($(#[$doc:meta])* $name:ident: $variant:ident,)+) => {
        /// What a record says.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Record {
            $($(#[$doc])* $variant($name::Record),)+
            /// Records were lost.
            Lost {
                /// Whose.
                probe: ProbeId,
                /// How.
                stat: Stat,
                /// How many.
                count: u64,
            },
            /// Time passed.
            Tick,
        }

        impl Record {
            /// What has to be known before it is applied.
            pub fn mentions(&self) -> Mentions<'_> {
                match self {
                    $(Self::$variant(record) => record.mentions(),)+
                    Self::Lost { .. } | Self::Tick => Mentions::default(),
                }
            }
        }

        /// What happened; `kind` names it. Durations are in milliseconds; what is absent is not known.
        #[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
        #[serde(untagged)]
        pub enum What {
            $($(#[$doc])* $variant($name::What),)+
        }

        /// What is remembered of each.
        #[derive(Default)]
        pub struct Memories {
            $($(#[$doc])* pub $name: $name::Memory,)+
        }

        fn decode_of(probe: ProbeId, kind: Kind, record: &Bytes) -> Result<Record, Error> {
            $(if probe == <$name::Memory as Domain>::PROBE.id {
                return Ok(Record::$variant($name::decode(kind, record)?));
            })+
            Err(Error::UnknownKind(kind.0))
        }

        impl Memories {
            /// Another record is about to be applied: what is due by now.
            pub fn before(&mut self, known: &Known, now_ns: u64) -> Vec<Emitted<What>> {
                let mut emitted = Vec::new();
                $(collect(What::$variant, &mut emitted, |facts| {
                    self.$name.before(known, now_ns, facts);
                });)+
                emitted
            }

            /// Applies a record and says what it means, in order.
            pub fn record(&mut self, known: &mut Known, event: &Event) -> Vec<Emitted<What>> {
                let now_ns = event.boot_ns;
                let mut emitted = Vec::new();
                match &event.what {
                    $(Record::$variant(record) => collect(What::$variant, &mut emitted, |facts| {
                        self.$name.record(known, now_ns, record, facts);
                    }),)+
                    Record::Lost { probe, stat, count } => known.lost(*probe, *stat, *count),
                    Record::Tick => {
                        $(collect(What::$variant, &mut emitted, |facts| {
                            self.$name.tick(known, now_ns, facts);
                        });)+
                    }
                }
                emitted
            }

            /// A record was applied: what is to be emitted before its own facts.
            pub fn after(&mut self, known: &Known, now_ns: u64) -> Vec<Emitted<What>> {
                let mut emitted = Vec::new();
                $(collect(What::$variant, &mut emitted, |facts| {
                    self.$name.after(known, now_ns, facts);
                });)+
                emitted
            }

            /// Applies what was found out about the system.
            pub fn context(&mut self, context: &Context) {
                $(self.$name.context(context);)+
            }

            /// How full what is remembered is.
            pub fn tables(&self) -> Vec<Table> {
                let mut tables = Vec::new();
                $(tables.extend(self.$name.tables());)+
                tables
            }
        }

        impl What {
            /// As the rest of the agent asks it.
            pub fn described(&self) -> &dyn Describe {
                match self { $(Self::$variant(what) => what,)+ }
            }

            /// The probe that saw it.
            pub fn probe(&self) -> &'static str {
                match self { $(Self::$variant(_) => <$name::Memory as Domain>::PROBE.name,)+ }
            }
        }

        /// The probes of which something is known, in the order of the table.
        pub const DOMAINS: &[&str] = &[$(<$name::Memory as Domain>::PROBE.name,)+];
    };
}

domains! {
    /// Outbound connects.
    connect: Connect,
    /// TLS handshakes.
    tls: Tls,
    /// DNS lookups.
    dns: Dns,
    /// Neighbours (ARP, NDP).
    neighbour: Neighbour,
    /// The wall clock.
    clock: Clock,
}

/// Takes what a domain emits as what the rest of the agent knows.
fn collect<W>(
    what: fn(W) -> What,
    emitted: &mut Vec<Emitted<What>>,
    emits: impl FnOnce(&mut Vec<Emitted<W>>),
) {
    let mut facts = Vec::new();
    emits(&mut facts);
    emitted.extend(facts.into_iter().map(|fact| fact.map(what)));
}

/// Decodes one record.
pub fn decode(record: &Bytes) -> Result<Event, Error> {
    let (header, record) = whole(record)?;
    let kind = Kind(header.kind);
    let what = match kind {
        Kind::TICK => Record::Tick,
        Kind::LOST => {
            let lost: LostRecord = read(&record, 0)?;
            let bad = |field, value: u32| Error::Impossible { kind, field, value: value.into() };
            let probe = PROBES.get(lost.probe as usize).ok_or_else(|| bad("probe", lost.probe))?;
            let stat = Stat::try_from(lost.stat).map_err(|value| bad("counter", value))?;
            Record::Lost { probe: probe.id, stat, count: lost.count }
        }
        _ => decode_of(probe_of(kind).ok_or(Error::UnknownKind(kind.0))?.id, kind, &record)?,
    };
    Ok(Event { boot_ns: header.boot_ns, what })
}

impl What {
    /// Whether a fact is worth reporting to who asked for this.
    pub fn is_wanted(&self, select: &Select) -> bool {
        let Weight { bad, ms } = self.described().weight();
        let long_enough = select.min_ms == 0 || ms.is_some_and(|ms| ms >= select.min_ms as f64);
        (!select.only_bad || bad) && long_enough && self.described().passes(select)
    }
}

/// A duration as facts have it: nanoseconds as milliseconds, to the microsecond.
pub fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}
