//! Programs that are executed: all that is known of them stands here.

use bytes::Bytes;
use ebpf_probes::{
    abi::Kind,
    probes::toy::{PROBE, ToyRecord},
    spec::Probe,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Describe, Domain, Emitted, Mentions, Weight};
use crate::{
    fact::{Phrase, Tone},
    known::{Known, bounded::Table},
    records::{Error, read},
};

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Record {
    /// A program was executed.
    Executed(ToyRecord),
}

impl Record {
    /// What has to be known before it is applied.
    pub fn mentions(&self) -> Mentions<'_> {
        let Self::Executed(record) = self;
        Mentions::owner(&record.owner)
    }
}

/// Decodes a record of one of the probe's kinds.
pub fn decode(kind: Kind, record: &Bytes) -> Result<Record, Error> {
    match kind {
        Kind::TOY_EXECUTED => Ok(Record::Executed(read(record, 0)?)),
        other => Err(Error::UnknownKind(other.0)),
    }
}

/// What happened; `kind` names it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "ToyFact")]
pub enum What {
    /// A program was executed.
    ToyExecuted {},
}

impl Describe for What {
    fn weight(&self) -> Weight {
        Weight::of(false)
    }

    fn phrase(&self) -> Option<Phrase> {
        let text = "executed a program".into();
        Some(Phrase { arrow: "", peer: String::new(), text, tone: Tone::Plain })
    }
}

/// Nothing is remembered of them.
#[derive(Default)]
pub struct Memory;

impl Domain for Memory {
    type Record = Record;
    type What = What;

    const PROBE: &'static Probe = &PROBE;

    fn record(&mut self, _: &mut Known, boot_ns: u64, record: &Record, facts: &mut Vec<Emitted<What>>) {
        let Record::Executed(record) = record;
        facts.push(Emitted { boot_ns, owner: record.owner, what: What::ToyExecuted {} });
    }

    fn tables(&self) -> Vec<Table> {
        vec![]
    }
}
