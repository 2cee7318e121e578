//! systemd's view of the unit, where systemd is here.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::cmd;

pub(super) fn check(unit: &Path) -> Result<()> {
    let text = fs::read_to_string(unit)?;
    let Some(start) = text.lines().find(|line| line.starts_with("ExecStart=/usr/local/bin/culprit run"))
    else {
        bail!("{} does not start /usr/local/bin/culprit", unit.display());
    };
    let Some(analyze) = cmd::which("systemd-analyze") else { return Ok(()) };
    let work = tempfile::tempdir()?;
    let name = unit.file_name().context("a unit has a name")?;
    let copy = work.path().join(name);
    // It has to be there to be found good.
    fs::write(&copy, text.replace(start, "ExecStart=/bin/true"))?;
    let mut command = Command::new(analyze);
    command.arg("verify").arg(&copy);
    let out = command.output().with_context(|| format!("starting `{}`", cmd::line(&command)))?;
    let said = String::from_utf8_lossy(&out.stderr);
    // A key that it does not know is only a warning to it. Other units are not ours to judge.
    let name = name.to_string_lossy();
    let faults: Vec<&str> = said.lines().filter(|line| line.contains(&*name)).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}
