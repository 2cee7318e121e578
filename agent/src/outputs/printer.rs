//! Facts and incidents to one place, in one form: lines, JSON, or a table at the end. A reader that goes away is a
//! normal end.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
};

use anyhow::Context as _;

use super::{
    Kind, Output,
    json::{self, Line},
    summary::Table,
    text,
};
use crate::{
    config::{self, Colour, Format},
    domains::Fact,
    fact::{Start, Summary},
    pipeline::incident::Incident,
    terminal,
    text::count_of_incidents,
};

/// What is printed, among the outputs.
pub(super) const KIND: Kind = Kind {
    open: |outputs| {
        let Some(output) = &outputs.printed else { return Ok(None) };
        let printer = Printer::open(output)?;
        Ok(Some(Box::new(move |_| Ok(Box::new(printer)))))
    },
};

/// Where facts go.
pub struct Printer {
    out: BufWriter<Box<dyn Write + Send>>,
    format: Format,
    style: text::Style,
    table: Option<Table>,
    incidents: text::Incidents,
    incidents_only: bool,
    /// It goes to standard output.
    standard: bool,
    events: u64,
    gone: bool,
}

impl Printer {
    /// Opens the output.
    pub fn open(output: &config::Output) -> anyhow::Result<Self> {
        let (to, standard): (Box<dyn Write + Send>, bool) = match &output.file {
            Some(path) if path != Path::new("-") => {
                let file =
                    File::create(path).with_context(|| format!("{}: cannot write there", path.display()))?;
                (Box::new(file), false)
            }
            _ => (Box::new(io::stdout()), true),
        };
        let colour = match output.colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => standard && terminal::colours(),
        };
        Ok(Self {
            out: BufWriter::with_capacity(1 << 16, to),
            format: output.format,
            style: text::Style { time: output.time, colour, width: None, ports: output.verbose },
            table: output.summary_only.then(Table::default),
            incidents: text::Incidents::default(),
            incidents_only: output.incidents_only,
            standard,
            events: 0,
            gone: false,
        }
        .measured())
    }

    /// As wide as the terminal is now: it may have been made wider.
    fn measured(mut self) -> Self {
        self.measure();
        self
    }

    fn measure(&mut self) {
        if self.standard && self.format == Format::Text {
            self.style.width = terminal::width();
        }
    }

    /// Whether lines come on a terminal as things happen: nothing else need show that this is alive.
    pub fn is_lively(output: &config::Output) -> bool {
        let standard = output.file.as_ref().is_none_or(|path| path == Path::new("-"));
        standard && io::stdout().is_terminal() && !output.incidents_only && !output.summary_only
    }

    /// Facts so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn incident(&mut self, incident: &Incident) -> anyhow::Result<()> {
        if let Some(table) = &mut self.table {
            table.incident(incident.clone());
            return Ok(());
        }
        if self.gone {
            return Ok(());
        }
        let result = match self.format {
            Format::Text => self.incidents.write(incident, self.style, &mut self.out),
            Format::Json => json::line(Line::Incident(incident), &mut self.out),
        };
        self.check(result)
    }

    fn check(&mut self, result: io::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other.context("writing the output"),
        }
    }
}

impl Output for Printer {
    fn start(&mut self, start: &Start) -> anyhow::Result<()> {
        if self.format == Format::Json {
            let result = json::line(Line::Start(start), &mut self.out);
            self.check(result)?;
        }
        self.flush()
    }

    fn fact(&mut self, fact: &Fact) -> anyhow::Result<()> {
        self.events += 1;
        if self.incidents_only {
            return Ok(());
        }
        if let Some(table) = &mut self.table {
            table.add(fact);
            return Ok(());
        }
        if self.gone {
            return Ok(());
        }
        let result = match self.format {
            Format::Text => text::line(fact, self.style, &mut self.out),
            Format::Json => json::line(Line::Event(fact), &mut self.out),
        };
        self.check(result)
    }

    fn incidents(&mut self, incidents: &[Incident]) -> anyhow::Result<()> {
        if incidents.is_empty() {
            return Ok(());
        }
        // What shows progress makes room for them.
        terminal::progress::around(|| {
            incidents.iter().try_for_each(|incident| self.incident(incident))?;
            self.flush()
        })
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let result = self.out.flush();
        self.measure();
        self.check(result)
    }

    fn done(&self) -> bool {
        self.gone
    }

    fn finish(&mut self, summary: &Summary) -> anyhow::Result<()> {
        if self.gone {
            return Ok(());
        }
        if let Some(table) = self.table.take()
            && self.format == Format::Text
        {
            let result = table.write(self.style, &mut self.out);
            self.check(result)?;
        }
        if self.format == Format::Json {
            let result = json::line(Line::Summary(summary), &mut self.out);
            self.check(result)?;
        }
        self.flush()
    }
}

/// The summary in one line of talk; a run that lost something says so.
pub fn closing_line(summary: &Summary) -> String {
    let lost = if summary.lost == 0 {
        "none lost".to_owned()
    } else {
        let by: Vec<String> = summary
            .lost_by
            .iter()
            .map(|loss| format!("{} {} {}", loss.count, loss.probe, loss.reason.replace('_', " ")))
            .collect();
        // What the kernel left out no larger ring would hold.
        let missed = summary.lost_by.iter().filter(|loss| loss.reason == "missed");
        let remedy = if missed.map(|loss| loss.count).sum::<u64>() == summary.lost {
            "the kernel left programs out"
        } else {
            "narrow the filters, or raise --ring-mib"
        };
        format!("{} LOST ({}): {remedy}", summary.lost, by.join(", "))
    };
    let incidents = count_of_incidents(summary.incidents);
    let seconds = summary.duration_ms as f64 / 1000.0;
    format!("{} events, {incidents}, {lost}, {seconds:.1} s", summary.events)
}
