//! Where the tools that build the kernel object are: a rustc that can produce
//! `bpfel-unknown-none` and a bpf-linker whose LLVM is at least that rustc's.
//!
//! Shared by `agent/build.rs` (which uses them) and `cargo xtask setup` (which installs them).
//! Looks only at the environment, the file system and `rustc --print sysroot`; installs nothing.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The target the kernel object is built for.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Tools that can build the kernel object.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// A rustc with `core` for [`BPF_TARGET`], prebuilt or as source.
    pub rustc: PathBuf,
    /// `core` comes prebuilt with `rustc`; otherwise cargo builds it with `-Zbuild-std`.
    pub prebuilt_core: bool,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// What is missing, in one sentence that names the way out.
#[derive(Debug, Clone)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: run `cargo xtask setup`, which installs it", self.0)
    }
}

impl std::error::Error for Missing {}

/// The directory that `cargo xtask setup` installs into: `$CULPRIT_TOOLS`, or `culprit` below the
/// user's cache directory.
pub fn tools_dir() -> PathBuf {
    if let Some(dir) = env::var_os("CULPRIT_TOOLS") {
        return dir.into();
    }
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("culprit")
}

/// Finds the whole toolchain.
pub fn find() -> Result<Toolchain, Missing> {
    let (rustc, prebuilt_core) = find_rustc()?;
    Ok(Toolchain { rustc, prebuilt_core, linker: find_linker()? })
}

/// Finds a rustc that can build for [`BPF_TARGET`]: `$CULPRIT_BPF_RUSTC`, the distribution's
/// (`/usr/bin/rustc` with a prebuilt core), or rustup's nightly with rust-src.
pub fn find_rustc() -> Result<(PathBuf, bool), Missing> {
    let named = env::var_os("CULPRIT_BPF_RUSTC").map(PathBuf::from);
    let candidates = match &named {
        Some(rustc) => vec![rustc.clone()],
        None => {
            let mut list = vec![PathBuf::from("/usr/bin/rustc")];
            list.extend(env::var_os("RUSTC").map(PathBuf::from));
            list.extend(nightly_rustc());
            list
        }
    };
    for rustc in candidates {
        let Some(sysroot) = sysroot(&rustc) else { continue };
        // cargo refuses to build the workspace with an older one; a named one may find that out there.
        if named.is_none() && !is_new_enough(&rustc) {
            continue;
        }
        let rustlib = sysroot.join("lib/rustlib");
        if rustlib.join(BPF_TARGET).join("lib").is_dir() {
            return Ok((rustc, true));
        }
        let has_source = rustlib.join("src/rust/library/core").is_dir();
        if has_source && (named.is_some() || sysroot.to_string_lossy().contains("nightly")) {
            return Ok((rustc, false));
        }
    }
    Err(Missing(match named {
        Some(rustc) => format!(
            "CULPRIT_BPF_RUSTC={} cannot build for {BPF_TARGET} (no prebuilt core, no rust-src)",
            rustc.display()
        ),
        None => format!("no rustc that can build for {BPF_TARGET} was found"),
    }))
}

/// Finds bpf-linker: `$CULPRIT_BPF_LINKER`, the one set-up installed, or one on `PATH`.
pub fn find_linker() -> Result<PathBuf, Missing> {
    if let Some(linker) = env::var_os("CULPRIT_BPF_LINKER").map(PathBuf::from) {
        return if linker.is_file() {
            Ok(linker)
        } else {
            Err(Missing(format!("CULPRIT_BPF_LINKER={} is not a file", linker.display())))
        };
    }
    let installed = tools_dir().join("bin/bpf-linker");
    let on_path = env::var_os("PATH")
        .map(|path| env::split_paths(&path).map(|dir| dir.join("bpf-linker")).collect::<Vec<_>>())
        .unwrap_or_default();
    std::iter::once(installed)
        .chain(on_path)
        .find(|linker| linker.is_file())
        .ok_or_else(|| Missing("bpf-linker was not found".into()))
}

fn nightly_rustc() -> Option<PathBuf> {
    let out = Command::new("rustup").args(["which", "rustc", "--toolchain", "nightly"]).output().ok()?;
    out.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}

/// Whether a rustc is at least the workspace's `rust-version`.
fn is_new_enough(rustc: &Path) -> bool {
    let Ok(out) = Command::new(rustc).arg("--version").output() else { return false };
    let version = String::from_utf8_lossy(&out.stdout).split(' ').nth(1).map(numbers);
    version.is_some_and(|version| version >= numbers(env!("CARGO_PKG_RUST_VERSION")))
}

/// `1.96.0-nightly` as numbers that compare.
fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let out = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    out.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}
