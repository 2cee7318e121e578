//! The command line as plain data.

use std::{ffi::OsString, time::Duration};

use ebpf_probes::{abi::ProbeId, probes::PROBES};

use super::{Doctor, Filters, Limits, Live, Mode, Output, Record, Replay, Thresholds, Top, Trace};
use crate::{
    config::{self, Time},
    kernel::plan::{Family, Spec, Thresholds as StallThresholds},
    known::{context::ClockThresholds, select::Select},
    observe::Wanted,
    records::comm_bytes,
};

/// Names of probes as ids.
pub(super) fn probe_ids(names: &[String]) -> Vec<ProbeId> {
    PROBES.iter().filter(|probe| names.iter().any(|name| name == probe.name)).map(|probe| probe.id).collect()
}

impl Filters {
    /// A session with these filters and limits.
    fn session(
        &self,
        live: &Live,
        thresholds: &Thresholds,
        limits: &Limits,
        command: &[OsString],
    ) -> config::Session {
        let spec = Spec {
            probes: probe_ids(&self.events),
            processes: self.pids.clone(),
            comms: self.comms.iter().map(|name| comm_bytes(name)).collect(),
            destinations: self.destinations.clone(),
            ports: self.ports.clone(),
            family: self.only_v6().map(|v6| if v6 { Family::V6 } else { Family::V4 }),
            only_bad: self.failed_only,
            min_ns: self.min_ms.saturating_mul(1_000_000),
            quiet: live.mode == Mode::Anomalies,
            no_syscalls: live.no_syscalls,
            probe_neighbours: live.probe_neighbours,
            thresholds: thresholds.config(),
            ring_bytes: limits.ring_mib << 20,
            ..Spec::default()
        };
        config::Session {
            spec,
            wanted: self.wanted(),
            asked: self.events.clone(),
            duration: limits.duration,
            max_events: limits.max_events,
            command: command.to_vec(),
            ntp: thresholds.ntp.clone(),
            clock: thresholds.clock(),
        }
    }

    /// The same filters, of what a recording holds.
    fn selection(&self) -> config::Selection {
        config::Selection {
            probes: self.events.clone(),
            wanted: self.wanted(),
            select: Select {
                by_owner: false,
                only_bad: self.failed_only,
                min_ms: self.min_ms,
                destinations: self.destinations.clone(),
                ports: self.ports.clone(),
                only_v6: self.only_v6(),
            },
        }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            comms: self.comms.clone(),
            cgroup: self.cgroup.as_ref().map(|path| format!("/{}", path.trim_matches('/'))),
            container: self.container.clone(),
            pod: self.pod.clone(),
            namespace: self.namespace.clone(),
            processes: self.pids.clone(),
        }
    }

    fn only_v6(&self) -> Option<bool> {
        (self.ipv4 || self.ipv6).then_some(self.ipv6)
    }
}

impl Trace {
    /// As plain data.
    pub fn config(&self) -> (config::Session, config::Output) {
        (
            self.filters.session(&self.live, &self.thresholds, &self.limits, &self.command),
            self.output.config(),
        )
    }
}

impl Top {
    /// As plain data.
    pub fn config(&self) -> (config::Session, config::Colour) {
        (self.filters.session(&self.live, &self.thresholds, &self.limits, &[]), self.color)
    }
}

impl Record {
    /// As plain data.
    pub fn config(&self) -> config::Session {
        self.filters.session(&self.live, &self.thresholds, &self.limits, &self.command)
    }
}

impl Thresholds {
    pub(super) fn config(&self) -> StallThresholds {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        StallThresholds {
            connect_ns: ns(self.connect_stall),
            tls_ns: ns(self.tls_stall),
            dns_ns: ns(self.dns_stall),
        }
    }

    pub(super) fn clock(&self) -> ClockThresholds {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ClockThresholds {
            warning_ms: ms(self.clock_skew_warning),
            critical_ms: ms(self.clock_skew_critical),
            step_ms: ms(self.clock_step),
        }
    }
}

impl Replay {
    /// As plain data.
    pub fn config(&self) -> config::Replay {
        config::Replay {
            file: self.file.clone(),
            skip_damaged: self.skip_damaged,
            selection: self.filters.selection(),
            output: self.output.config(),
        }
    }
}

impl Doctor {
    /// As plain data.
    pub fn config(&self) -> config::Doctor {
        let spec = Spec { probes: probe_ids(&self.events), ring_bytes: 1 << 20, ..Spec::default() };
        config::Doctor { spec, format: self.format }
    }
}

impl Output {
    fn config(&self) -> config::Output {
        config::Output {
            format: self.format,
            file: self.output.clone(),
            incidents_only: self.incidents_only,
            summary_only: self.summary_only,
            time: match self.time {
                0 => Time::Milliseconds,
                1 => Time::Seconds,
                2 => Time::Microseconds,
                _ => Time::Epoch,
            },
            colour: self.color,
            verbose: self.verbose,
        }
    }
}
