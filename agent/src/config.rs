//! What a command is to do, as plain data: made once from the command line, without touching the
//! machine. Commands know this and nothing of clap.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    kernel::plan::Spec,
    known::{
        context::{Chain, ClockThresholds},
        select::Select,
    },
    observe::{Target, Wanted},
    reference::Server,
    severity::Severity,
};

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

/// How the time is written; all in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Time {
    /// Hours to milliseconds.
    #[default]
    Milliseconds,
    /// `-t`: hours to seconds.
    Seconds,
    /// `-tt`: hours to microseconds.
    Microseconds,
    /// `-ttt`: seconds since 1970, with microseconds.
    Epoch,
}

/// A live session, to be shown or recorded.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// What the kernel decides.
    pub spec: Spec,
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
    /// From where on the wall clock is wrong enough.
    pub clock: ClockThresholds,
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
    /// Say more, and show no progress.
    pub verbose: bool,
}

/// What a process waits for: a question, answered once.
#[derive(Debug, Clone)]
pub struct Why {
    /// Which processes.
    pub target: Target,
    /// How they are watched.
    pub session: Session,
    /// Form.
    pub format: Format,
    /// When to colour.
    pub colour: Colour,
}

/// The answer to it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked about, in words.
    pub about: String,
    /// The processes, and those they wait for.
    pub chain: Chain,
    /// Form.
    pub format: Format,
    /// When to colour.
    pub colour: Colour,
}

/// The outputs of a session: each that is asked for.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// Lines, tables or JSON.
    pub printed: Option<Output>,
    /// A recording.
    pub recording: Option<Recording>,
    /// A live view on the terminal.
    pub screen: Option<Colour>,
    /// The answer to what processes wait for.
    pub answer: Option<Answer>,
}

/// A recording that is made.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Where; `-` is standard output.
    pub file: PathBuf,
    /// In place of a file that exists.
    pub force: bool,
    /// Show on the terminal that it is alive.
    pub progress: bool,
}

/// What of a recording to show: the filters of a live session.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these probes; empty: all.
    pub probes: Vec<String>,
    /// Only some processes.
    pub wanted: Wanted,
    /// Only some peers, or what went badly.
    pub select: Select,
}

/// A replay.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The recording; `-` is standard input.
    pub file: PathBuf,
    /// Go on after damage.
    pub skip_damaged: bool,
    /// What of it to show.
    pub selection: Selection,
    /// Where facts go.
    pub output: Output,
}

/// A look at what works here.
#[derive(Debug, Clone, Default)]
pub struct Doctor {
    /// The probes; empty means all.
    pub spec: Spec,
    /// Form.
    pub format: Format,
}

/// Where a daemon keeps its incidents by default.
pub const STORE: &str = "/var/lib/culprit/culprit.db";
/// Where it serves HTTP by default.
pub const LISTEN: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9877));
/// Options of `culprit run` that a reload (SIGHUP) changes; the others want a restart.
pub const RELOADED: &[&str] = &[
    "connect-stall",
    "ntp",
    "store-max-age",
    "store-max-bytes",
    "web-config-file",
    "webhook",
    "webhook-secret-file",
    "webhook-severity",
    "log-level",
];

/// Somewhere, or expressly nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<T> {
    /// `none`.
    Nowhere,
    /// There.
    At(T),
}

/// The daemon.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// What it watches.
    pub session: Session,
    /// What it prints.
    pub output: Output,
    /// Where incidents are kept; `None`: at the usual place, if that can be.
    pub store: Option<Place<PathBuf>>,
    /// For how long.
    pub retention: Retention,
    /// Where HTTP is served; `None`: at the usual place, if that can be.
    pub listen: Option<Place<SocketAddr>>,
    /// TLS and authentication.
    pub web_config_file: Option<PathBuf>,
    /// By what `culprit_incidents_by_workload_total` names a workload.
    pub metrics_by: Option<MetricsBy>,
    /// How many workloads have a series of their own.
    pub metrics_top: usize,
    /// Who is notified.
    pub webhooks: Webhooks,
    /// What is logged.
    pub log_level: LogLevel,
    /// How.
    pub log_format: LogFormat,
    /// Whether programs' run time is accounted.
    pub probe_stats: bool,
    /// The values of all options, by name, to find what a reload changes.
    pub values: Vec<(String, Vec<String>)>,
}

impl Daemon {
    /// Names of options that have other values in `new`, and whether a reload changes them.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<(String, bool)> {
        let changed = new.values.iter().filter(|option| !self.values.contains(option));
        changed.map(|(name, _)| (name.clone(), RELOADED.contains(&name.as_str()))).collect()
    }
}

/// What is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Incidents that are over for longer.
    pub age: Duration,
    /// The oldest, when the store is larger.
    pub bytes: u64,
}

/// Webhooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Webhooks {
    /// Where to.
    pub urls: Vec<String>,
    /// What to sign with.
    pub secret_file: Option<PathBuf>,
    /// What is worth it.
    pub severity: Severity,
}

/// By what the label `workload` names whose process an incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsBy {
    /// The systemd unit.
    Unit,
    /// The Kubernetes namespace.
    Namespace,
    /// The Deployment, StatefulSet, DaemonSet, Job or CronJob that the pod's name says it is of; the unit outside of pods.
    Workload,
    /// The Kubernetes pod.
    Pod,
    /// This machine: one series for each kind of incident.
    Node,
}

impl MetricsBy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unit, Self::Namespace, Self::Workload, Self::Pod, Self::Node];

    /// As the option has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Namespace => "namespace",
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::Node => "node",
        }
    }

    /// It is known from the kubelet alone.
    #[must_use]
    pub fn needs_kubelet(self) -> bool {
        matches!(self, Self::Namespace | Self::Pod)
    }
}

/// What is worth a line of log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is not as it should be.
    Warn,
    /// Beginnings and ends.
    #[default]
    Info,
    /// What helps to find a defect of culprit's own.
    Debug,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn a_source_of_workloads_is_named_as_the_option_has_it() {
        let named = MetricsBy::ALL.map(|by| by.to_possible_value().map(|value| value.get_name().to_owned()));
        assert_eq!(named, MetricsBy::ALL.map(|by| Some(by.name().to_owned())));
        assert_eq!(MetricsBy::value_variants(), MetricsBy::ALL);
    }
}
