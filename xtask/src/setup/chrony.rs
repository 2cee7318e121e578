//! chronyd, for tests. Its package is unpacked and not installed: installed it would keep this machine's time
//! and remove whoever did before.

use std::path::PathBuf;

use anyhow::Result;

use super::unpacked;

pub(super) const BY_HAND: &str = "chronyd of the package chrony; it need not be started";

/// The machine's own chronyd, or the one that set-up has unpacked.
pub(crate) fn find() -> Option<PathBuf> {
    unpacked::find("chrony", "sbin/chronyd")
}

/// Fetches the package and unpacks it into the tools directory.
pub(super) fn fetch() -> Result<()> {
    unpacked::fetch("chrony", "sbin/chronyd")
}
