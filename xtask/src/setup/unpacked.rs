//! Programs for tests whose packages are unpacked and not installed: installed they would start a service on
//! this machine, or remove one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::apt;
use crate::{cmd, toolchain};

/// A program of a package.
pub(crate) struct Unpacked {
    package: &'static str,
    /// Where it is in there, and others that are kept with it.
    program: &'static str,
    others: &'static [&'static str],
    pub(super) by_hand: &'static str,
}

/// Installed it would keep this machine's time and remove what did before.
pub(crate) const CHRONYD: Unpacked = Unpacked {
    package: "chrony",
    program: "usr/sbin/chronyd",
    others: &[],
    by_hand: "chronyd of the package chrony; it need not be started",
};

/// Installed it would serve on port 9090.
pub(crate) const PROMTOOL: Unpacked = Unpacked {
    package: "prometheus",
    program: "usr/bin/promtool",
    others: &["usr/bin/prometheus"],
    by_hand: "promtool of the package prometheus, which need not be started",
};

impl Unpacked {
    /// The machine's own, or the one that set-up has unpacked.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let all = self.others.iter().all(|other| self.find_file(other).is_some());
        self.find_file(self.program).filter(|_| all)
    }

    /// Another program of the package, by its name.
    pub(crate) fn find_other(&self, name: &str) -> Option<PathBuf> {
        let ends = |other: &&&str| Path::new(other).file_name().is_some_and(|file| file == name);
        self.others.iter().find(ends).and_then(|other| self.find_file(other))
    }

    fn find_file(&self, program: &str) -> Option<PathBuf> {
        let name = Path::new(program).file_name()?.to_str()?;
        let unpacked = || Some(self.directory().join(program)).filter(|file| file.is_file());
        cmd::which(name).or_else(unpacked)
    }

    /// Fetches the package and keeps the program in the tools directory.
    pub(super) fn fetch(&self) -> Result<()> {
        let (tools, package) = (toolchain::tools_dir(), self.package);
        let work = tempfile::Builder::new().prefix(".fetch").tempdir_in(&tools)?;
        let (state, debs, files) =
            (work.path().join("apt"), work.path().join("debs"), work.path().join("files"));
        fs::create_dir(&debs)?;
        cmd::output(apt::apart("apt-get", &state)?.args(["-qq", "update"]))?;
        cmd::output(apt::apart("apt-get", &state)?.args(["-qq", "download", package]).current_dir(&debs))?;
        apt::extract(&debs, &files)?;
        for name in [self.program].iter().chain(self.others) {
            let program = files.join(name);
            ensure!(program.is_file(), "the package {package} has no /{name}");
            let to = self.directory().join(name);
            let parent = to.parent().context("a program lies in a directory")?;
            fs::create_dir_all(parent)?;
            fs::rename(&program, &to)?;
        }
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        toolchain::tools_dir().join(self.package)
    }
}
