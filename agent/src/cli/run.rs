//! `culprit run`: the daemon's options. Each is a flag, an environment variable (`CULPRIT_` and the flag's
//! name) and a key of the configuration file; [`super::file`] makes the three out of this one list.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{
    Thresholds,
    parse::{parse_bytes, parse_listen, parse_ring, parse_store, parse_url, probes},
    plain::probe_ids,
};
use crate::{
    config::{
        self, Colour, Daemon, Format, LogFormat, LogLevel, MetricsBy, Place, Retention, STORE, Webhooks,
    },
    incidents,
    kernel::plan::Spec,
    observe::Wanted,
    severity::Severity,
    units,
};

/// `culprit run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Read options from this TOML file: the keys are these flags' names, with underscores. Flags and
    /// environment variables have precedence. [default: /etc/culprit/culprit.toml, if there is one]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Filters.
    #[command(flatten)]
    pub filters: RunFilters,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// The store.
    #[command(flatten)]
    pub keep: Keep,
    /// HTTP.
    #[command(flatten)]
    pub serve: Serve,
    /// Webhooks.
    #[command(flatten)]
    pub notify: Notify,
    /// Output.
    #[command(flatten)]
    pub show: Show,
    /// Size of the ring between kernel and agent in MiB: a power of two.
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = parse_ring)]
    pub ring_mib: u32,
    /// Have the kernel account the run time of BPF programs, all of this machine's: costs each of their runs
    /// two looks at a clock.
    #[arg(long)]
    pub probe_stats: bool,
    /// End after this long, e.g. 500ms, 30s, 5m, 1h.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// The values every option came to have, by name.
    #[arg(skip)]
    pub(super) values: Vec<(String, Vec<String>)>,
}

/// What `culprit run` watches: the machine, or a part of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to watch")]
pub struct RunFilters {
    /// Only these probes, comma-separated.
    #[arg(short, long = "probes", value_name = "PROBE,…", value_delimiter = ',',
          value_parser = probes())]
    pub events: Vec<String>,
    /// Only this cgroup and those below it, as a path below the cgroup root.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Leave out the hooks on system calls, which put every system call of the machine on the kernel's slower
    /// entry path: connects that fail at once and the processes that set the clock are not seen then.
    #[arg(long)]
    pub no_syscalls: bool,
    /// Ask everybody on the link (one ARP request or neighbour solicitation) for a neighbour that an incident is about: who
    /// answers is evidence. The answer may correct an entry that is not PERMANENT.
    #[arg(long)]
    pub probe_neighbours: bool,
}

/// Where incidents are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keeping incidents")]
pub struct Keep {
    /// Keep incidents in this SQLite database, or `none`. [default: /var/lib/culprit/culprit.db]
    #[arg(long, value_name = "FILE|none", value_parser = parse_store)]
    pub store: Option<Place<PathBuf>>,
    /// Forget incidents that are over for this long, e.g. 12h, 30d.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = units::duration)]
    pub store_max_age: Duration,
    /// Forget the oldest incidents when the store grows beyond this, e.g. 64MiB.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_bytes)]
    pub store_max_bytes: u64,
}

/// What is served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Metrics, page and API over HTTP")]
pub struct Serve {
    /// Serve HTTP here, e.g. 127.0.0.1:9877, [::1]:9877, :9877 for all addresses, or `none`.
    /// [default: 127.0.0.1:9877]
    #[arg(long, value_name = "ADDRESS|none", value_parser = parse_listen)]
    pub listen: Option<Place<SocketAddr>>,
    /// TLS and basic authentication, by a subset of the Prometheus exporter toolkit's format.
    #[arg(long, value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
    /// Count incidents by workload as well (`culprit_incidents_by_workload_total`), named by the process's systemd unit,
    /// its Kubernetes namespace, its workload (from the pod's name; the unit outside of pods), its pod, or this node.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub metrics_by: Option<MetricsBy>,
    /// How many workloads have a series of their own, first come, first served; the rest count as `other`.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub metrics_top: u32,
}

/// Who is notified.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Notifications")]
pub struct Notify {
    /// POST each incident to this URL as it opens, changes and is resolved; repeatable.
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub webhook: Vec<String>,
    /// Sign with the secret in this file: `X-Culprit-Signature: sha256=` and the HMAC-SHA256 of
    /// `X-Culprit-Timestamp`, a dot and the body.
    #[arg(long, value_name = "FILE")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Only incidents of at least this severity.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t)]
    pub webhook_severity: Severity,
}

/// What it prints and logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output and log")]
pub struct Show {
    /// Form of the output.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// When to colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Colour,
    /// What is worth a line of log on standard error.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub log_level: LogLevel,
    /// Form of the log.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

impl Run {
    /// As plain data.
    pub fn config(&self) -> Daemon {
        let spec = Spec {
            probes: probe_ids(&self.filters.events),
            quiet: true,
            no_syscalls: self.filters.no_syscalls,
            probe_neighbours: self.filters.probe_neighbours,
            thresholds: self.thresholds.config(),
            ring_bytes: self.ring_mib << 20,
            ..Spec::default()
        };
        let cgroup = self.filters.cgroup.as_ref().map(|path| format!("/{}", path.trim_matches('/')));
        let session = config::Session {
            spec,
            wanted: Wanted { cgroup, ..Wanted::default() },
            asked: self.filters.events.clone(),
            duration: self.duration,
            ntp: self.thresholds.ntp.clone(),
            clock: self.thresholds.clock(),
            ..config::Session::default()
        };
        let output = config::Output {
            format: self.show.format,
            file: self.show.output.clone(),
            incidents_only: true,
            colour: self.show.color,
            ..config::Output::default()
        };
        Daemon {
            session,
            output,
            store: self.keep.store.clone(),
            retention: Retention { age: self.keep.store_max_age, bytes: self.keep.store_max_bytes },
            listen: self.serve.listen.clone(),
            web_config_file: self.serve.web_config_file.clone(),
            metrics_by: self.serve.metrics_by,
            metrics_top: self.serve.metrics_top as usize,
            webhooks: Webhooks {
                urls: self.notify.webhook.clone(),
                secret_file: self.notify.webhook_secret_file.clone(),
                severity: self.notify.webhook_severity,
            },
            log_level: self.show.log_level,
            log_format: self.show.log_format,
            probe_stats: self.probe_stats,
            values: self.values.clone(),
        }
    }
}

/// Where `culprit incidents` and `culprit show` look.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where to look")]
pub struct From {
    /// The store of a daemon, running or not.
    #[arg(long, value_name = "FILE", default_value = STORE)]
    pub store: PathBuf,
    /// Ask a running daemon instead, e.g. http://127.0.0.1:9877; with a user's name and password where it wants one:
    /// https://NAME:PASSWORD@node-7:9877.
    #[arg(long, value_name = "URL", conflicts_with = "store", value_parser = parse_url)]
    pub url: Option<String>,
    /// Trust the certificate authorities in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca: Option<PathBuf>,
}

impl From {
    pub(super) fn place(&self) -> incidents::Source {
        match &self.url {
            Some(url) => incidents::Source::Daemon { url: url.clone(), ca: self.ca.clone() },
            None => incidents::Source::Store(self.store.clone()),
        }
    }
}
