//! The two tools that build the kernel object: a rustc with a `core` for BPF, and a bpf-linker
//! that is linked with the LLVM of that rustc (bitcode of a newer LLVM cannot be read).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::apt;
use crate::{cmd, toolchain};

/// The bpf-linker that the build is known to work with.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM majors that this bpf-linker has a feature for.
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// Pairs of (rustc, its prebuilt core for BPF) that Debian releases have, best first.
const RUSTC_PACKAGES: &[[&str; 2]] =
    &[["rustc-web", "libstd-rust-web-dev-bpf"], ["rustc", "libstd-rust-dev-bpf"]];

pub(super) const RUSTC_BY_HAND: &str =
    "`rustup toolchain install nightly --profile minimal --component rust-src`";

/// A rustc for BPF: the distribution's if it has one that is new enough, else rustup's nightly.
pub(super) fn install_rustc() -> Result<()> {
    if apt::is_here() {
        for packages in RUSTC_PACKAGES {
            if packages.iter().all(|package| apt::knows(package)) {
                apt::install(packages)?;
                if toolchain::find_rustc().is_ok() {
                    return Ok(());
                }
            }
        }
        eprintln!("setup: no package of this distribution brings a rustc that will do");
    }
    if cmd::which("rustup").is_none() {
        bail!(
            "no rustc that can build for {} can be had: neither a package nor rustup is here; \
             install rustup, then {RUSTC_BY_HAND}",
            toolchain::BPF_TARGET
        );
    }
    let mut command = Command::new("rustup");
    command.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    cmd::run(command.args(["--component", "rust-src"]).stdout(std::io::stderr()))
}

/// What is wrong with the bpf-linker that the build would use.
pub(super) fn linker_problem() -> Option<String> {
    let linker = match toolchain::find_linker() {
        Ok(linker) => linker,
        Err(missing) => return Some(missing.0),
    };
    if linker != installed() {
        // The caller's own choice, by CULPRIT_BPF_LINKER or PATH.
        return None;
    }
    let (rustc, _) = toolchain::find_rustc().ok()?;
    let wanted = llvm_of(&rustc).ok()?;
    let linked = stamped().or_else(|| llvm_linked(&linker))?;
    (linked != wanted).then(|| format!("linked with LLVM {linked}, but {} is LLVM {wanted}", rustc.display()))
}

pub(super) fn linker_by_hand() -> String {
    format!(
        "`LLVM_PREFIX=<LLVM of the BPF rustc> cargo install bpf-linker --version {LINKER_VERSION} \
         --no-default-features --features llvm-<major>`"
    )
}

/// bpf-linker with the LLVM of the rustc for BPF, into the tools directory.
pub(super) fn install_linker() -> Result<()> {
    let (rustc, _) = toolchain::find_rustc()?;
    let llvm = llvm_of(&rustc)?;
    if !LINKER_LLVMS.contains(&llvm) {
        bail!(
            "{} uses LLVM {llvm}, but bpf-linker {LINKER_VERSION} knows {LINKER_LLVMS:?}: \
             name another rustc by CULPRIT_BPF_RUSTC",
            rustc.display()
        );
    }
    let prefix = llvm_prefix(llvm)?;
    // Its LLVM is C++.
    if apt::is_here() && !cmd::succeeds(Command::new("g++").arg("--version")) {
        apt::install(&["g++"])?;
    }
    let mut command = cmd::cargo();
    command
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(toolchain::tools_dir())
        .env("LLVM_PREFIX", prefix);
    // These would be for the agent, not for a tool.
    for inherited in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(inherited);
    }
    eprintln!("setup: {}", cmd::line(&command));
    cmd::run(&mut command)?;
    let stamp = stamp();
    fs::write(&stamp, format!("{llvm}\n"))?;
    Ok(())
}

/// Where LLVM's headers and libraries are, installing them if need be.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let package = format!("llvm-{llvm}-dev");
    if !prefix.join("include/llvm-c").is_dir() && apt::is_here() && apt::knows(&package) {
        apt::install(&[&package])?;
    }
    if prefix.join("include/llvm-c").is_dir() {
        return Ok(prefix);
    }
    let config = ["llvm-config".to_owned(), format!("llvm-config-{llvm}")];
    for config in config.iter().filter(|config| cmd::which(config).is_some()) {
        let version = cmd::output(Command::new(config).arg("--version"))?;
        if version.starts_with(&format!("{llvm}.")) {
            return Ok(cmd::output(Command::new(config).arg("--prefix"))?.trim().into());
        }
    }
    bail!(
        "bpf-linker must be linked with LLVM {llvm}, which is not here: install {package} (LLVM's \
         own apt archive has it for releases that do not), or give a bpf-linker of your own by \
         CULPRIT_BPF_LINKER"
    )
}

/// The LLVM major of a rustc.
fn llvm_of(rustc: &Path) -> Result<u32> {
    let text = cmd::output(Command::new(rustc).arg("-vV"))?;
    llvm_major(&text).with_context(|| format!("`{} -vV` names no LLVM version", rustc.display()))
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

fn installed() -> PathBuf {
    toolchain::tools_dir().join("bin/bpf-linker")
}

/// The file that records which LLVM the installed bpf-linker was linked with.
fn stamp() -> PathBuf {
    toolchain::tools_dir().join("bin/.bpf-linker.llvm")
}

fn stamped() -> Option<u32> {
    fs::read_to_string(stamp()).ok()?.trim().parse().ok()
}

/// The LLVM major a program is linked with, as the dynamic loader sees it.
fn llvm_linked(program: &Path) -> Option<u32> {
    let libraries = cmd::output(Command::new("ldd").arg(program)).ok()?;
    llvm_library(&libraries)
}

fn llvm_library(ldd: &str) -> Option<u32> {
    let (_, name) = ldd.split_once("libLLVM")?;
    let digits: String = name
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_major_is_read_from_rustc_and_from_ldd() {
        assert_eq!(llvm_major("rustc 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
        assert_eq!(llvm_library("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so"), Some(22));
        assert_eq!(llvm_library("\tlibLLVM-19.so.1 => /usr/lib/libLLVM-19.so.1"), Some(19));
        assert_eq!(llvm_library("\tlibc.so.6 => /lib/libc.so.6"), None);
    }
}
