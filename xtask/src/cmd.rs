//! How xtask runs other programs: every failure names the whole command, ready to be pasted into
//! a shell, and everything that needs root goes through one function.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

/// Runs a command to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command to its end and returns its standard output; its standard error is shown only
/// when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting `{}`", line(command)))?;
    if !out.status.success() {
        let talk = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` failed: {}\n{}", line(command), out.status, talk.trim_end());
    }
    String::from_utf8(out.stdout)
        .with_context(|| format!("`{}` printed something other than UTF-8", line(command)))
}

/// The same while its standard error is shown as it comes.
pub(crate) fn stdout(command: &mut Command) -> Result<Vec<u8>> {
    let out = command
        .stdout(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .with_context(|| format!("running `{}`", line(command)))?;
    if !out.status.success() {
        bail!("`{}` failed: {}", line(command), out.status);
    }
    Ok(out.stdout)
}

/// Whether a command runs and succeeds; it says nothing either way.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as a shell would take it, with the environment it sets.
pub(crate) fn line(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

/// One word, quoted for a POSIX shell when it needs to be.
pub(crate) fn quoted(word: &OsStr) -> String {
    shell_words::quote(&word.to_string_lossy()).into_owned()
}

/// The cargo that runs this xtask. On a CI machine each target is built once: what cargo keeps for the next time, half
/// of the disk that a build takes, is not kept there.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    if env::var_os("CI").is_some() && env::var_os("CARGO_INCREMENTAL").is_none() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    // `cargo run` sets this; the value from the build serves a binary that is started by hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// What cargo says of this workspace.
pub(crate) fn metadata() -> Result<Metadata> {
    MetadataCommand::new().current_dir(workspace()).no_deps().exec().context("asking cargo for the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    Ok(metadata()?.target_directory.into())
}

/// Where a program is: on `PATH`, or in a directory that root's `PATH` has and a user's may not.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs as root: itself when we are root, by sudo otherwise. The variables in
/// `keep` go with it by name and value, whatever sudo's policy for the environment is.
pub(crate) fn as_root(program: impl AsRef<OsStr>, keep: &[(&str, &OsStr)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(keep.iter().copied());
        return Ok(command);
    }
    let shown = program.as_ref().to_string_lossy();
    let Some(sudo) = which("sudo") else {
        bail!("`{shown}` needs root, and there is no sudo here: run the same xtask command as root");
    };
    let mut command = Command::new(sudo);
    if !keep.is_empty() {
        command.arg("env");
        for (name, value) in keep {
            let mut set = std::ffi::OsString::from(name);
            set.push("=");
            set.push(value);
            command.arg(set);
        }
    }
    command.arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_a_line_for_a_shell() {
        let mut command = Command::new("env");
        command.env("A", "1 2").args(["it's", "", "plain/word"]);
        assert_eq!(line(&command), r"A='1 2' env 'it'\''s' '' plain/word");
    }
}
