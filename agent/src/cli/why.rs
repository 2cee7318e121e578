//! `culprit why`: what does this process wait for, now?

use std::time::Duration;

use clap::Args;

use super::{Thresholds, parse::parse_target};
use crate::{
    config::{self, Colour, Format},
    kernel::plan::Spec,
    observe::{Target, Wanted},
    units,
};

/// `culprit why`.
#[derive(Debug, Args)]
pub struct Why {
    /// A process by its id, its name (of a thread, or of the executable), or the TCP port it serves.
    #[arg(value_name = "PID|NAME|:PORT", required_unless_present = "pod", value_parser = parse_target)]
    pub target: Option<Target>,
    /// The processes of this Kubernetes pod.
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    pub pod: Option<String>,
    /// Watch for this long at most.
    #[arg(long = "for", value_name = "DURATION", default_value = "5s", value_parser = units::duration)]
    pub duration: Duration,
    /// When something counts as stalled.
    #[command(flatten)]
    pub thresholds: Thresholds,
    /// Form of the output.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
    /// When to colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Colour,
}

impl Why {
    /// As plain data.
    pub fn config(&self) -> config::Why {
        let pod = self.pod.clone().map(Target::Pod);
        config::Why {
            // clap wants one of the two.
            target: self.target.clone().or(pod).unwrap_or(Target::Process(0)),
            session: config::Session {
                spec: Spec { thresholds: self.thresholds.config(), ring_bytes: 4 << 20, ..Spec::default() },
                wanted: Wanted::default(),
                duration: Some(self.duration),
                ntp: self.thresholds.ntp.clone(),
                clock: self.thresholds.clock(),
                ..config::Session::default()
            },
            format: self.format,
            colour: self.color,
        }
    }
}
