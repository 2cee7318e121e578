//! The answer of `culprit why`: what the processes asked about wait for, followed to its root, with the incidents that are
//! open about any of them. Collected while it is watched, written once at the end.

mod answer;
mod text;
mod waits;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use anyhow::Context as _;

use self::{
    answer::Answer,
    waits::{Wait, What},
};
use crate::{
    config::{self, Colour, Format},
    domains::Describe as _,
    fact::Summary,
    outputs::{Kind, Output, json, text::Style},
    pipeline::{
        incident::{Confidence, Incident},
        world::World,
    },
    terminal,
    text::{duration::line as duration, shown},
};

/// What has waited for less may be under way as it should.
const WAITS_NS: u64 = 250_000_000;
/// An answer that is as good as this may be given after that long.
const ANSWERED_NS: u64 = 2_000_000_000;

/// The answer, among the outputs.
pub(super) const KIND: Kind = Kind {
    open: |outputs| {
        let Some(asked) = outputs.answer.clone() else { return Ok(None) };
        Ok(Some(Box::new(move |_| Ok(Box::new(Why::new(asked))))))
    },
};

/// What is collected.
struct Why {
    asked: config::Answer,
    /// Connects and lookups that wait, by process.
    waits: BTreeMap<u32, Vec<Wait>>,
    incidents: BTreeMap<String, Incident>,
    began_ns: Option<u64>,
    now_ns: u64,
}

impl Why {
    fn new(asked: config::Answer) -> Self {
        Self { asked, waits: BTreeMap::new(), incidents: BTreeMap::new(), began_ns: None, now_ns: 0 }
    }

    fn has(&self, process: u32) -> bool {
        self.asked.chain.of(process).is_some()
    }

    /// Connects and lookups of these processes that wait now.
    fn look(&mut self, world: &World, now_ns: u64) {
        let mut waits: BTreeMap<u32, Vec<Wait>> = BTreeMap::new();
        let old = |started_ns: u64| now_ns.saturating_sub(started_ns) >= WAITS_NS;
        for op in world.connect_ops().filter(|op| op.ended_ns.is_none() && old(op.connect.started_ns)) {
            let owner = op.connect.owner;
            let pending = world.domains.connect.pending(&world.known, &op.connect, now_ns);
            if let (true, Some(phrase)) = (self.has(owner.process), pending.phrase()) {
                waits.entry(owner.process).or_default().push(Wait {
                    thread: owner.thread,
                    cookie: op.connect.cookie,
                    what: What::Connect,
                    remedies: Vec::new(),
                    text: format!("waits for a connect to {}: {}", phrase.peer, phrase.text),
                });
            }
        }
        for op in world.lookup_ops(|owner| self.has(owner.process)) {
            if op.ended_ns.is_none() && old(op.started_ns) {
                let server = world.known.at(op.server, 53, &op.owner);
                let age = duration(now_ns.saturating_sub(op.started_ns) as f64 / 1e6);
                let again =
                    if op.queries > 1 { format!(", asked {} times", op.queries) } else { String::new() };
                waits.entry(op.owner.process).or_default().push(Wait {
                    thread: op.owner.thread,
                    cookie: op.cookie,
                    what: What::DnsLookup,
                    remedies: Vec::new(),
                    text: format!(
                        "waits for a lookup of {} {} at {}: no answer for {age}{again}",
                        op.query_type,
                        op.name,
                        crate::fact::peer(&server)
                    ),
                });
            }
        }
        self.waits = waits;
    }

    fn answer(&self) -> Answer<'_> {
        // One that was resolved meanwhile says what was waited for.
        let about =
            |incident: &&Incident| incident.process.as_ref().is_some_and(|process| self.has(process.pid));
        Answer::new(&self.asked, &self.waits, self.incidents.values().filter(about).collect())
    }
}

impl Output for Why {
    fn incidents(&mut self, incidents: &[Incident]) -> anyhow::Result<()> {
        for incident in incidents {
            self.incidents.insert(incident.id.clone(), incident.clone());
        }
        Ok(())
    }

    fn show(&mut self, world: &World, now_ns: u64) {
        self.began_ns.get_or_insert(now_ns);
        self.now_ns = now_ns;
        self.look(world, now_ns);
    }

    /// An incident about one of them says enough.
    fn done(&self) -> bool {
        let watched_ns = self.now_ns.saturating_sub(self.began_ns.unwrap_or(self.now_ns));
        let is_sure = |incident: &&Incident| {
            incident.cause.as_ref().is_some_and(|cause| cause.confidence >= Confidence::Likely)
        };
        watched_ns >= ANSWERED_NS && self.answer().incidents.iter().any(is_sure)
    }

    fn finish(&mut self, _summary: &Summary) -> anyhow::Result<()> {
        let answer = self.answer();
        let mut out = Vec::new();
        match self.asked.format {
            Format::Json => {
                json::write(&answer, &mut out)?;
                out.push(b'\n');
            }
            Format::Text => {
                let colour = match self.asked.colour {
                    Colour::Always => true,
                    Colour::Never => false,
                    Colour::Auto => terminal::colours(),
                };
                let style = Style { colour, width: terminal::width(), ..Style::default() };
                text::write(&answer, style, &mut out)?;
            }
        }
        match io::stdout().write_all(&out).and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("writing the answer"),
        }
    }
}

/// `raven[1017]`.
fn called(comm: &str, pid: u32) -> String {
    format!("{}[{pid}]", shown(comm))
}
