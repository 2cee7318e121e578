//! Programs of packages that are unpacked and not installed: installed, they would start a service, or push another
//! one aside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::apt;
use crate::{cmd, toolchain};

/// The machine's own PROGRAM, or the one below `usr` that set-up has unpacked from PACKAGE.
pub(super) fn find(package: &str, below: &str) -> Option<PathBuf> {
    let program = Path::new(below).file_name()?.to_str()?;
    let unpacked = || Some(directory(package).join("usr").join(below)).filter(|file| file.is_file());
    cmd::which(program).or_else(unpacked)
}

/// Fetches PACKAGE and unpacks it into the tools directory; `below` is the program it is fetched for.
pub(super) fn fetch(package: &str, below: &str) -> Result<()> {
    let tools = toolchain::tools_dir();
    let work = tempfile::Builder::new().prefix(".fetch").tempdir_in(&tools)?;
    let (state, debs, files) = (work.path().join("apt"), work.path().join("debs"), work.path().join("files"));
    fs::create_dir(&debs)?;
    cmd::output(apt::apart("apt-get", &state)?.args(["-qq", "update"]))?;
    cmd::output(apt::apart("apt-get", &state)?.args(["-qq", "download", package]).current_dir(&debs))?;
    apt::extract(&debs, &files)?;
    ensure!(files.join("usr").join(below).is_file(), "the package {package} has no /usr/{below}");
    replace(&files, &directory(package))
}

fn replace(files: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("removing {}", to.display()))?;
    }
    fs::rename(files, to).with_context(|| format!("creating {}", to.display()))
}

fn directory(package: &str) -> PathBuf {
    toolchain::tools_dir().join(package)
}
