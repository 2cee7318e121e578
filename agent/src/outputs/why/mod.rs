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
    fact::Summary,
    outputs::{Kind, Output, json, text::Style},
    pipeline::{
        incident::{Confidence, Incident},
        world::World,
    },
    terminal,
    text::shown,
};

/// What has waited for less may be under way as it should.
const WAITS_NS: u64 = 250_000_000;
/// What ended while it was watched was waited for if it took this long.
const WAITED_NS: u64 = 1_000_000_000;
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

    /// Connects and lookups of these processes that wait now, or have waited long and ended while it was watched.
    fn look(&mut self, world: &World, now_ns: u64) {
        let mut waits: BTreeMap<u32, Vec<Wait>> = BTreeMap::new();
        for op in world.connect_ops().filter(|op| self.has(op.connect.owner.process)) {
            if self.is_long(op.connect.started_ns, op.ended_ns, now_ns)
                && let Some(text) = waits::connect(op, world, now_ns)
            {
                let owner = op.connect.owner;
                let wait = Wait {
                    thread: owner.thread,
                    cookie: op.connect.cookie,
                    ..Wait::new(What::Connect, text)
                };
                waits.entry(owner.process).or_default().push(wait);
            }
        }
        for op in world.lookup_ops(|owner| self.has(owner.process)) {
            if self.is_long(op.started_ns, op.ended_ns, now_ns) {
                let text = waits::lookup(&op, world, now_ns);
                let wait =
                    Wait { thread: op.owner.thread, cookie: op.cookie, ..Wait::new(What::DnsLookup, text) };
                waits.entry(op.owner.process).or_default().push(wait);
            }
        }
        self.waits = waits;
    }

    /// Whether it is worth a line how long this has waited, or had when it ended.
    fn is_long(&self, started_ns: u64, ended_ns: Option<u64>, now_ns: u64) -> bool {
        match ended_ns {
            None => now_ns.saturating_sub(started_ns) >= WAITS_NS,
            Some(ended_ns) => {
                let watched = self.began_ns.is_some_and(|began_ns| ended_ns >= began_ns);
                watched && ended_ns.saturating_sub(started_ns) >= WAITED_NS
            }
        }
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
