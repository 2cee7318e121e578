//! chronyd, for tests. Its package is unpacked and not installed: installed it would keep this machine's time
//! and remove whoever did before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::apt;
use crate::{cmd, toolchain};

pub(super) const BY_HAND: &str = "chronyd of the package chrony; it need not be started";

/// The machine's own chronyd, or the one that set-up has unpacked.
pub(crate) fn find() -> Option<PathBuf> {
    let unpacked = || Some(directory().join("usr/sbin/chronyd")).filter(|file| file.is_file());
    cmd::which("chronyd").or_else(unpacked)
}

/// Fetches the package and unpacks it into the tools directory.
pub(super) fn fetch() -> Result<()> {
    let tools = toolchain::tools_dir();
    let work = tempfile::Builder::new().prefix(".fetch").tempdir_in(&tools)?;
    let (state, debs, files) = (work.path().join("apt"), work.path().join("debs"), work.path().join("files"));
    fs::create_dir(&debs)?;
    cmd::output(apt::apart("apt-get", &state)?.args(["-qq", "update"]))?;
    cmd::output(apt::apart("apt-get", &state)?.args(["-qq", "download", "chrony"]).current_dir(&debs))?;
    apt::extract(&debs, &files)?;
    ensure!(files.join("usr/sbin/chronyd").is_file(), "the package chrony has no /usr/sbin/chronyd");
    replace(&files, &directory())
}

fn replace(files: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("removing {}", to.display()))?;
    }
    fs::rename(files, to).with_context(|| format!("creating {}", to.display()))
}

fn directory() -> PathBuf {
    toolchain::tools_dir().join("chrony")
}
