//! The command line: clap's types and help, turned once into plain requests. Nothing here touches the
//! machine.

mod examples;
mod file;
mod incidents;
mod parse;
mod plain;
mod run;
mod why;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

pub use file::{Option as FileOption, options, parse};
pub use incidents::{Incidents, Show};
use parse::{parse_cidr, parse_clock, parse_comm, parse_ring, parse_threshold, probes};
pub use run::Run;
pub use why::Why;

use crate::{
    config::{Colour, Format},
    reference::{Server, server},
    units,
};

/// Names the culprit when a healthy-looking server hangs, loses a peer, or is refused by its cloud.
#[derive(Debug, Parser)]
#[command(
    name = "culprit",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = examples::CULPRIT
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What culprit can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show live who connects where and what becomes of it, TLS handshakes, DNS, neighbours, clock.
    #[command(after_help = examples::TRACE)]
    Trace(Trace),
    /// Say what a process waits for, now: followed from process to process to its root.
    #[command(after_help = examples::WHY)]
    Why(Why),
    /// Show what is open, pending and failing now, on a whole screen.
    #[command(after_help = examples::TOP)]
    Top(Top),
    /// Watch for as long as you like and report incidents only: healthy traffic costs nothing but counters.
    #[command(after_help = examples::RUN)]
    Run(Box<Run>),
    /// Record the same to a file, to be replayed elsewhere.
    #[command(after_help = examples::RECORD)]
    Record(Record),
    /// Print what `trace` would have printed, from a recording; needs no root.
    #[command(after_help = examples::REPLAY)]
    Replay(Replay),
    /// List the incidents a daemon has kept.
    #[command(after_help = examples::INCIDENTS)]
    Incidents(Incidents),
    /// Show one incident in full.
    #[command(after_help = examples::SHOW)]
    Show(Show),
    /// Say what culprit can see on this machine, and what to do about the rest.
    #[command(after_help = examples::DOCTOR)]
    Doctor(Doctor),
    /// List what there is.
    #[command(after_help = examples::LIST)]
    List {
        /// What to list.
        #[command(subcommand)]
        what: List,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff), or write one page for each command.
    Man {
        /// Write `culprit.1`, `culprit-trace.1` and so on into this directory.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Print a JSON Schema: of the stream `--format json` prints, or of an incident alone.
    Schema {
        /// Of what.
        #[arg(value_enum, value_name = "SCHEMA", default_value_t)]
        of: Schema,
    },
}

/// Schemas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Schema {
    /// `culprit.stream/v1`: every line of `--format json`.
    #[default]
    Stream,
    /// `culprit.incident/v1`.
    Incident,
}

/// Lists.
#[derive(Debug, Clone, Subcommand)]
pub enum List {
    /// The probes, and the hooks each uses.
    Probes {
        /// `text` or `json`.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        format: Format,
    },
    /// The rules: kinds of incidents, and when each opens.
    Rules {
        /// `text` or `json`.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        format: Format,
    },
    /// The neighbours (ARP, NDP) of this machine: how many, by device and state, in every network namespace.
    Neighbours {
        /// `text` or `json`.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        format: Format,
    },
    /// The clocks to compare the wall clock with, and how far it is off by each.
    Clocks {
        /// A time server to ask as well: HOST, HOST:PORT, an address, or [V6]:PORT; repeatable.
        #[arg(long, value_name = "SERVER", value_parser = server)]
        ntp: Vec<Server>,
        /// `text` or `json`.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        format: Format,
    },
}

/// What to see: in a live session decided in the kernel where it can be.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to see")]
pub struct Filters {
    /// Only these probes, comma-separated.
    #[arg(short, long = "probes", value_name = "PROBE,…", value_delimiter = ',',
          value_parser = probes())]
    pub events: Vec<String>,
    /// Only this process and its children; repeatable.
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Only processes that have a thread of this name (at most 15 bytes, as the kernel keeps it), and their
    /// children; repeatable.
    #[arg(long = "comm", value_name = "NAME", value_parser = parse_comm)]
    pub comms: Vec<String>,
    /// Only this cgroup and those below it, as a path below the cgroup root.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Only this container: its id or the beginning of it, or its Kubernetes name.
    #[arg(long, value_name = "ID|NAME")]
    pub container: Option<String>,
    /// Only this Kubernetes pod.
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// Only this Kubernetes namespace.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only peers in this network, e.g. 10.0.0.0/8 or 2001:db8::/32; repeatable.
    #[arg(long = "dest", value_name = "CIDR", value_parser = parse_cidr)]
    pub destinations: Vec<([u8; 16], u32)>,
    /// Only this port: the peer's for clients, our own for servers; repeatable.
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Only IPv4.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Only IPv6.
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Only what failed, was retried, or is stuck.
    #[arg(short = 'Z', long = "failed-only")]
    pub failed_only: bool,
    /// Only what took at least this long.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub min_ms: u64,
}

/// What to see, as only a running kernel decides it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to see")]
pub struct Live {
    /// What the kernel reports: all that passes the filters, or, as `culprit run`, anomalies only.
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub mode: Mode,
    /// Leave out the hooks on system calls, which put every system call of the machine on the kernel's slower
    /// entry path: connects that fail at once and the processes that set the clock are not seen then.
    #[arg(long)]
    pub no_syscalls: bool,
    /// Ask everybody on the link (one ARP request or neighbour solicitation) for a neighbour that an incident is about: who
    /// answers is evidence. The answer may correct an entry that is not PERMANENT.
    #[arg(long)]
    pub probe_neighbours: bool,
}

/// What the kernel reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// All that passes the filters.
    #[default]
    Full,
    /// Only what is slow, failed or waits.
    Anomalies,
}

/// When waiting becomes an incident.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "When to open incidents")]
pub struct Thresholds {
    /// A TLS handshake that makes no progress for this long is stalled.
    #[arg(long = "tls-stall", value_name = "DURATION", default_value = "1s", value_parser = parse_threshold)]
    pub tls_stall: Duration,
    /// A connect that is pending for this long is stalled.
    #[arg(long = "connect-stall", value_name = "DURATION", default_value = "3s", value_parser = parse_threshold)]
    pub connect_stall: Duration,
    /// A DNS lookup that gets no answer for this long is unanswered.
    #[arg(long = "dns-stall", value_name = "DURATION", default_value = "2s", value_parser = parse_threshold)]
    pub dns_stall: Duration,
    /// A wall clock that is wrong by this much is a warning.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_clock)]
    pub clock_skew_warning: Duration,
    /// A wall clock that is wrong by this much is critical.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_clock)]
    pub clock_skew_critical: Duration,
    /// A wall clock that is set by this much, at once or little by little by one program, has stepped.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_clock)]
    pub clock_step: Duration,
    /// Compare the wall clock with this NTP server, asked about once a minute; repeatable.
    #[arg(long, value_name = "SERVER", value_parser = server)]
    pub ntp: Vec<Server>,
}

/// When to end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "When to end")]
pub struct Limits {
    /// End after this long, e.g. 500ms, 30s, 5m, 1h.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// Size of the ring between kernel and agent in MiB: a power of two.
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = parse_ring, help_heading = "Resources")]
    pub ring_mib: u32,
}

/// How to show it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How to show it")]
pub struct Output {
    /// Form of the output.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print incidents only, no facts.
    #[arg(short = 'i', long)]
    pub incidents_only: bool,
    /// Print only tables of counts and times at the end, by what happened and by process and destination, and
    /// the incidents.
    #[arg(short = 'c', long = "summary-only")]
    pub summary_only: bool,
    /// Time to the second; twice: to the microsecond; three times: seconds since 1970. Times are UTC.
    #[arg(short = 't', action = clap::ArgAction::Count)]
    pub time: u8,
    /// When to colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Colour,
    /// Say more: this host's port of each connection. Shows no progress.
    #[arg(short, long)]
    pub verbose: bool,
}

/// `culprit trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// Filters.
    #[command(flatten)]
    pub filters: Filters,
    /// What else to see.
    #[command(flatten)]
    pub live: Live,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
    /// Output.
    #[command(flatten)]
    pub output: Output,
    /// Run this command, follow it and its children, and exit with its status.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `culprit top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Filters.
    #[command(flatten)]
    pub filters: Filters,
    /// What only a running kernel decides.
    #[command(flatten)]
    pub live: Live,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
    /// When to colour; nothing is said by colour alone.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = "How to show it")]
    pub color: Colour,
}

/// `culprit record`.
#[derive(Debug, Args)]
pub struct Record {
    /// Where to: `-` for standard output.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Overwrite the file if it exists.
    #[arg(short, long)]
    pub force: bool,
    /// Filters.
    #[command(flatten)]
    pub filters: Filters,
    /// What else to see.
    #[command(flatten)]
    pub live: Live,
    /// Thresholds.
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
    /// Run this command, follow it and its children, and exit with its status.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `culprit replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording: `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Step over damaged blocks, say how many, and go on; the exit status is 1 all the same.
    #[arg(long)]
    pub skip_damaged: bool,
    /// Filters.
    #[command(flatten)]
    pub filters: Filters,
    /// Output.
    #[command(flatten)]
    pub output: Output,
}

/// `culprit doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only these probes, comma-separated: exit 1 if one is not available.
    #[arg(short, long = "probes", value_name = "PROBE,…", value_delimiter = ',',
          value_parser = probes())]
    pub events: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// What stands for a value: a word of this list, some of them (`FILE|none`), or a list of one (`PID,…`).
    const VALUES: &[&str] = &[
        "ADDRESS", "CIDR", "COMMAND", "DIR", "DURATION", "FILE", "FORMAT", "ID", "KIND", "LEVEL", "MIB",
        "MODE", "MS", "N", "NAME", "PATH", "PID", "PORT", "PROBE", "SCHEMA", "SERVER", "SEVERITY", "SHELL",
        "SIZE", "SOURCE", "STATE", "TEXT", "TIME", "URL", "WHEN", ":PORT", "none",
    ];

    /// Options of a command and those below it whose value has no meaningful name.
    fn unnamed(command: &clap::Command, found: &mut Vec<String>) {
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            let names = arg.get_value_names().unwrap_or_default();
            let fits = |name: &str| name.trim_end_matches(",…").split('|').all(|word| VALUES.contains(&word));
            if names.is_empty() || !names.iter().all(|name| fits(name)) {
                found.push(format!("{} {}: {names:?}", command.get_name(), arg.get_id()));
            }
        }
        command.get_subcommands().for_each(|command| unnamed(command, found));
    }

    #[test]
    fn what_stands_for_a_value_says_what_it_is() {
        let mut found = Vec::new();
        unnamed(&file::command(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn an_option_s_own_name_in_capitals_says_nothing_of_its_value() {
        let arg = |id: &'static str, value: &'static str| clap::Arg::new(id).long(id).value_name(value);
        let below = clap::Command::new("below")
            .args([arg("webhook_severity", "WEBHOOK_SEVERITY"), arg("pid", "PID")]);
        let mut found = Vec::new();
        unnamed(&clap::Command::new("above").arg(clap::Arg::new("of")).subcommand(below), &mut found);
        assert_eq!(found, ["above of: []", "below webhook_severity: [\"WEBHOOK_SEVERITY\"]"]);
    }

    #[test]
    fn networks_are_understood_in_both_families() {
        assert_eq!(parse_cidr("10.0.0.0/8").map(|(_, bits)| bits), Ok(104));
        assert_eq!(parse_cidr("::1").map(|(_, bits)| bits), Ok(128));
        assert!(parse_cidr("10.0.0.0/33").is_err_and(|why| why.contains("0 to 32")));
        assert!(parse_cidr("example.com").is_err());
    }

    #[test]
    fn time_servers_are_named_as_often_as_wanted_and_a_bad_one_is_quoted() {
        let cli = Cli::try_parse_from(["culprit", "list", "clocks", "--ntp", "time", "--ntp", "[::1]:9"]);
        let Ok(Cli { command: Command::List { what: List::Clocks { ntp, .. } } }) = cli else {
            panic!("{:?}", cli.err());
        };
        assert_eq!(ntp.iter().map(ToString::to_string).collect::<Vec<_>>(), ["time:123", "[::1]:9"]);
        let bad = Cli::try_parse_from(["culprit", "list", "clocks", "--ntp", "time:0"]);
        assert!(bad.is_err_and(|why| why.to_string().contains("\"time:0\" is no time server")));
    }
}
