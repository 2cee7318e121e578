//! What a command is to do, as plain data: made once from the command line, without touching the
//! machine. Commands know this and nothing of clap.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use crate::{enrich::observe::Wanted, kernel::plan::Request, reference::Server, sinks::text::Time};

/// Form of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A live session, to be shown or recorded.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// What the kernel decides.
    pub request: Request,
    /// What the agent decides.
    pub wanted: Wanted,
    /// Probes asked for by name: an error when one is not available.
    pub asked: Vec<String>,
    /// End after this long.
    pub duration: Option<Duration>,
    /// End after this many events.
    pub max_events: Option<u64>,
    /// Run and follow this command.
    pub command: Vec<OsString>,
    /// NTP servers to compare the wall clock with.
    pub ntp: Vec<Server>,
}

/// Where facts go, and how they look.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Form.
    pub format: Format,
    /// A file instead of standard output.
    pub file: Option<PathBuf>,
    /// Incidents, and nothing else.
    pub incidents_only: bool,
    /// Only a table at the end.
    pub summary_only: bool,
    /// How times are written.
    pub time: Time,
    /// When to colour.
    pub colour: Colour,
}

/// A replay.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The recording; `-` is standard input.
    pub file: PathBuf,
    /// Go on after damage.
    pub skip_damaged: bool,
    /// Where facts go.
    pub output: Output,
}

/// A look at what works here.
#[derive(Debug, Clone, Default)]
pub struct Doctor {
    /// The probes; empty means all.
    pub request: Request,
    /// Form.
    pub format: Format,
}
