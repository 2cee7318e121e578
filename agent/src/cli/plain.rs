//! The command line as plain data.

use std::{ffi::OsString, time::Duration};

use ebpf_probes::{abi::ProbeId, probes::PROBES};

use super::{Doctor, Filters, Limits, Mode, Output, Record, Replay, Thresholds, Top, Trace};
use crate::{
    config::{self, Time},
    enrich::observe::Wanted,
    event::comm_bytes,
    kernel::plan::{Family, Request, Thresholds as StallThresholds},
};

/// Names of probes as ids.
pub(super) fn probe_ids(names: &[String]) -> Vec<ProbeId> {
    PROBES.iter().filter(|probe| names.iter().any(|name| name == probe.name)).map(|probe| probe.id).collect()
}

impl Filters {
    /// A session with these filters and limits.
    fn session(&self, thresholds: &Thresholds, limits: &Limits, command: &[OsString]) -> config::Session {
        let request = Request {
            probes: probe_ids(&self.events),
            processes: self.pids.clone(),
            comms: self.comms.iter().map(|name| comm_bytes(name)).collect(),
            destinations: self.destinations.clone(),
            ports: self.ports.clone(),
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::V4),
                (_, true) => Some(Family::V6),
                _ => None,
            },
            only_bad: self.failed_only,
            min_ns: self.min_ms.saturating_mul(1_000_000),
            quiet: self.mode == Mode::Anomalies,
            no_syscalls: self.no_syscalls,
            thresholds: thresholds.config(),
            ring_bytes: limits.ring_mib << 20,
            ..Request::default()
        };
        let wanted = Wanted {
            comms: self.comms.clone(),
            cgroup: self.cgroup.as_ref().map(|path| format!("/{}", path.trim_matches('/'))),
            container: self.container.clone(),
            pod: self.pod.clone(),
            namespace: self.namespace.clone(),
            processes: self.pids.clone(),
        };
        config::Session {
            request,
            wanted,
            asked: self.events.clone(),
            duration: limits.duration,
            max_events: limits.max_events,
            command: command.to_vec(),
            ntp: thresholds.ntp.clone(),
        }
    }
}

impl Trace {
    /// As plain data.
    pub fn config(&self) -> (config::Session, config::Output) {
        (self.filters.session(&self.thresholds, &self.limits, &self.command), self.output.config())
    }
}

impl Top {
    /// As plain data.
    pub fn config(&self) -> (config::Session, config::Colour) {
        (self.filters.session(&self.thresholds, &self.limits, &[]), self.color)
    }
}

impl Record {
    /// As plain data.
    pub fn config(&self) -> config::Session {
        self.filters.session(&self.thresholds, &self.limits, &self.command)
    }
}

impl Thresholds {
    pub(super) fn config(&self) -> StallThresholds {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        StallThresholds { connect_ns: ns(self.connect_stall), tls_ns: ns(self.tls_stall) }
    }
}

impl Replay {
    /// As plain data.
    pub fn config(&self) -> config::Replay {
        config::Replay {
            file: self.file.clone(),
            skip_damaged: self.skip_damaged,
            output: self.output.config(),
        }
    }
}

impl Doctor {
    /// As plain data.
    pub fn config(&self) -> config::Doctor {
        let request = Request { probes: probe_ids(&self.events), ring_bytes: 1 << 20, ..Request::default() };
        config::Doctor { request, format: self.format }
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
        }
    }
}
