//! promtool, which checks rules, their tests, and metrics. Its package is unpacked and not installed: installed it
//! would start a Prometheus.

use std::path::PathBuf;

use anyhow::Result;

use super::unpacked;

pub(super) const BY_HAND: &str = "promtool of the package prometheus; Prometheus need not be started";

/// The machine's own promtool, or the one that set-up has unpacked.
pub(crate) fn find() -> Option<PathBuf> {
    unpacked::find("prometheus", "bin/promtool")
}

/// Fetches the package and unpacks it into the tools directory.
pub(super) fn fetch() -> Result<()> {
    unpacked::fetch("prometheus", "bin/promtool")
}
