//! Debian packages, by the machine's own apt and its own archives.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use anyhow::{Result, bail};
use fs_err as fs;

use crate::cmd;

/// Whether this is a Debian-like system.
pub(super) fn is_here() -> bool {
    cmd::which("apt-get").is_some()
}

/// Whether the archives have a package that can be installed.
pub(super) fn knows(package: &str) -> bool {
    update();
    // A package without a candidate (only ever mentioned by others) has no version line.
    cmd::output(Command::new("apt-cache").args(["madison", package]))
        .is_ok_and(|versions| !versions.trim().is_empty())
}

/// The first of `packages` that the archives have.
pub(super) fn first_known<'a>(packages: &[&'a str]) -> Result<&'a str> {
    match packages.iter().find(|package| knows(package)) {
        Some(package) => Ok(package),
        None => bail!(
            "none of the packages {} is in this machine's apt archives: see `apt-get update`",
            packages.join(", ")
        ),
    }
}

/// Installs packages without the ones they merely recommend.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut names = packages.to_vec();
    names.sort_unstable();
    names.dedup();
    update();
    let quiet: (&str, &OsStr) = ("DEBIAN_FRONTEND", "noninteractive".as_ref());
    let mut command = cmd::as_root("apt-get", &[quiet])?;
    command
        .args(["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
        .args(names)
        .stdin(std::process::Stdio::null())
        // apt's progress is talk, and our stdout is data.
        .stdout(std::io::stderr());
    eprintln!("setup: {}", cmd::line(&command));
    cmd::run(&mut command)
}

/// `apt-get update`, once per run. A failure is only reported: the lists at hand may do.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let updated = cmd::as_root("apt-get", &[]).and_then(|mut command| {
            eprintln!("setup: apt-get update");
            cmd::run(command.args(["update", "-qq"]).stdout(std::io::stderr()))
        });
        if let Err(error) = updated {
            eprintln!("setup: {error:#}; going on with the package lists that are here");
        }
    });
}

/// apt with a state and a cache of its own below `dir`: what it does touches none of the machine's packages.
pub(crate) fn apart(tool: &str, dir: &Path) -> Result<Command> {
    for part in ["state/lists/partial", "cache/archives/partial"] {
        let part = dir.join(part);
        fs::create_dir_all(&part)?;
    }
    let status = dir.join("state/status");
    fs::write(&status, "")?;
    let mut command = Command::new(tool);
    for (name, value) in [
        ("Dir::State", dir.join("state")),
        ("Dir::State::status", status),
        ("Dir::Cache", dir.join("cache")),
        ("APT::Sandbox::User", "root".into()),
    ] {
        command.arg("-o").arg(format!("{name}={}", value.display()));
    }
    Ok(command)
}

/// The files of all packages in `dir`, put into `to`.
pub(crate) fn extract(dir: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            cmd::output(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(to))?;
        }
    }
    Ok(())
}
