//! `culprit replay`: a recording through the same pipeline as a live session, from decoding on. No
//! root, no kernel, no clock: what it prints depends on the recording alone.

mod filter;

use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use filter::Filter;

use crate::{
    config::Replay,
    domains::decode,
    fact::{Probes, SCHEMA, Start, Summary},
    known::context::Context,
    outputs::{
        Output as _,
        printer::{Printer, closing_line},
    },
    pipeline::incident::Incident,
    pipeline::{self, Pipeline},
    record::{Error, Item, Reader, Tail},
    rules::RULES,
    terminal::progress::{Progress, say},
};

/// Replays. A torn recording gives all that is whole and says so; a damaged one fails after what came
/// before the damage.
pub fn replay(options: &Replay) -> anyhow::Result<ExitCode> {
    let name = options.file.display().to_string();
    let (input, bytes): (Box<dyn Read>, Option<u64>) = if options.file == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(&options.file).with_context(|| name.clone())?;
        let bytes = file.metadata().ok().filter(Metadata::is_file).map(|metadata| metadata.len());
        (Box::new(file), bytes)
    };
    let quiet = options.output.verbose || Printer::is_lively(&options.output);
    let progress = Progress::file("replaying", bytes, quiet);
    let input = BufReader::with_capacity(1 << 16, progress.reads(input));
    let mut reader = Reader::open(input).with_context(|| name.clone())?;
    let mut printer = Printer::open(&options.output)?;
    let began_ns = reader.start().boot_ns;
    let mut pass = Pass { last_ns: began_ns, ..Pass::new(Filter::new(&options.selection)) };
    let mut skipped = None;
    let damage = loop {
        match reader.next() {
            None => break None,
            Some(Err(error @ Error::Damaged { .. })) if options.skip_damaged => {
                say(format_args!("{name}: {error}"));
                skipped = Some(error);
            }
            Some(Err(error)) => break Some(anyhow::Error::from(error).context(name.clone())),
            Some(Ok(item)) => {
                if let Err(error) = pass.item(item, &mut printer) {
                    break Some(error.context(name.clone()));
                }
            }
        }
        if printer.done() {
            return Ok(ExitCode::SUCCESS);
        }
    };
    drop(progress);
    pass.finish(&mut printer)?;
    let summary = pass.summary(&printer, began_ns);
    printer.finish(&summary)?;
    for complaint in pass.filter.complaints(pass.recorded.as_ref()) {
        say(complaint);
    }
    say(closing_line(&summary));
    match reader.tail() {
        Some(Tail::Clean(_)) | None => {}
        Some(tail) => say(format_args!("{name}: {tail}")),
    }
    match damage {
        Some(error) => Err(error),
        // Every one was named when it was stepped over.
        None if skipped.is_some() => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

struct Pass {
    pipeline: Pipeline,
    filter: Filter,
    /// The probes of the recording.
    recorded: Option<Probes>,
    started: bool,
    undecodable: u64,
    last_ns: u64,
}

impl Pass {
    fn new(filter: Filter) -> Self {
        Self {
            pipeline: Pipeline::new(RULES),
            filter,
            recorded: None,
            started: false,
            undecodable: 0,
            last_ns: 0,
        }
    }

    fn item(&mut self, item: Item, printer: &mut Printer) -> anyhow::Result<()> {
        match item {
            Item::Context(bytes) => {
                let context: Context = serde_json::from_slice(&bytes)
                    .context("a context item that this version does not understand")?;
                if let Context::Origin { version, kernel, node, probes, .. } = &context
                    && !self.started
                {
                    self.started = true;
                    self.recorded = Some(probes.clone());
                    printer.start(&start(version, kernel, node, probes))?;
                }
                if let Context::Process(process) = &context {
                    self.filter.process(process);
                }
                let step = self.pipeline.step(pipeline::Item::Context(&context));
                self.incidents(step.incidents, printer)?;
            }
            Item::Record(bytes) => match decode(&bytes) {
                Ok(event) => {
                    self.last_ns = self.last_ns.max(event.boot_ns);
                    let step = self.pipeline.step(pipeline::Item::Event(&event));
                    for fact in &step.facts {
                        if self.filter.fact(fact) {
                            printer.fact(fact)?;
                        }
                    }
                    self.incidents(step.incidents, printer)?;
                }
                Err(_) => self.undecodable += 1,
            },
        }
        Ok(())
    }

    fn incidents(&mut self, mut incidents: Vec<Incident>, printer: &mut Printer) -> anyhow::Result<()> {
        incidents.retain(|incident| self.filter.incident(incident));
        printer.incidents(&incidents)
    }

    fn finish(&mut self, printer: &mut Printer) -> anyhow::Result<()> {
        let incidents = self.pipeline.finish();
        self.incidents(incidents, printer)
    }

    fn summary(&self, printer: &Printer, began_ns: u64) -> Summary {
        let duration_ms = self.last_ns.saturating_sub(began_ns) / 1_000_000;
        Summary::new(
            printer.events(),
            self.filter.incidents().unwrap_or_else(|| self.pipeline.opened()),
            self.pipeline.world().known.losses().to_vec(),
            self.undecodable,
            duration_ms,
        )
    }
}

fn start(version: &str, kernel: &str, node: &str, probes: &Probes) -> Start {
    Start {
        schema: SCHEMA,
        version: version.into(),
        kernel: kernel.into(),
        node: node.into(),
        probes: probes.clone(),
    }
}
