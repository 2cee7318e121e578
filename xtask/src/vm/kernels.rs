//! The kernels the project is tried on: Debian's cloud flavours, fetched once through the
//! machine's own apt settings and kept below the tools directory, ready to boot.
//!
//! apt works on a state and a cache of its own here, so the machine's packages are not touched.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::{cmd, setup, toolchain};

/// A kernel by its short name, and where it comes from.
pub(crate) struct Source {
    pub(crate) id: &'static str,
    /// Suites and package patterns, best first. A signed image and its -unsigned twin hold the
    /// same kernel, and now and then a mirror has only one of them.
    candidates: &'static [(&'static str, &'static str)],
}

/// Oldest first.
pub(crate) const KERNELS: &[Source] = &[
    Source {
        id: "5.10",
        candidates: &[
            ("bullseye-security", r"^linux-image-5\.10\..*-cloud-amd64$"),
            ("bullseye-security", r"^linux-image-5\.10\..*-cloud-amd64-unsigned$"),
            ("bullseye", r"^linux-image-5\.10\..*-cloud-amd64-unsigned$"),
        ],
    },
    Source {
        id: "6.1",
        candidates: &[
            ("bookworm-security", r"^linux-image-6\.1\..*-cloud-amd64$"),
            ("bookworm-security", r"^linux-image-6\.1\..*-cloud-amd64-unsigned$"),
            ("bookworm", r"^linux-image-6\.1\..*-cloud-amd64-unsigned$"),
        ],
    },
    Source {
        id: "6.12",
        candidates: &[
            ("bookworm-security", r"^linux-image-6\.12\..*-cloud-amd64$"),
            ("bookworm-security", r"^linux-image-6\.12\..*-cloud-amd64-unsigned$"),
            ("trixie", r"^linux-image-6\.12\..*-cloud-amd64-unsigned$"),
        ],
    },
    Source { id: "new", candidates: &[("sid", r"^linux-image-[0-9.]+\+deb[0-9]+-cloud-amd64$")] },
];

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) id: String,
    pub(crate) version: String,
    dir: PathBuf,
}

impl Kernel {
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The module tree of this version.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.version)
    }

    /// The directory that is `/lib/modules` in a VM.
    pub(crate) fn all_modules(&self) -> PathBuf {
        self.dir.join("lib/modules")
    }

    /// Where this kernel's own account of its types is kept once it was read.
    pub(crate) fn btf(&self) -> PathBuf {
        self.dir.join("btf")
    }

    /// The same for its trace events, one `category:name` per line.
    pub(crate) fn events(&self) -> PathBuf {
        self.dir.join("events")
    }

    /// The kernel, if it has been fetched.
    fn cached(source: &Source) -> Option<Self> {
        let dir = directory().join(source.id);
        let version = fs::read_to_string(dir.join("version")).ok()?.trim().to_owned();
        Some(Self { id: source.id.to_owned(), version, dir })
    }
}

/// The kernels named, fetching those that are not here; all of them when none is named.
pub(crate) fn named(ids: &[String]) -> Result<Vec<Kernel>> {
    let known: Vec<_> = KERNELS.iter().map(|source| source.id).collect();
    let mut kernels = Vec::new();
    for id in ids.iter().map(String::as_str).chain(known.iter().copied().filter(|_| ids.is_empty())) {
        let Some(source) = KERNELS.iter().find(|source| source.id == id) else {
            bail!("there is no kernel `{id}`; there are {}", known.join(", "));
        };
        kernels.push(match Kernel::cached(source) {
            Some(kernel) => kernel,
            None => fetch(source).with_context(|| format!("fetching kernel {id}"))?,
        });
    }
    Ok(kernels)
}

/// Fetches the newest kernel of a source, replacing what is cached.
pub(crate) fn fetch(source: &Source) -> Result<Kernel> {
    let _lock = setup::lock("kernels")?;
    let mut problems = Vec::new();
    for (suite, pattern) in source.candidates {
        match try_fetch(source.id, suite, pattern) {
            Ok(kernel) => return Ok(kernel),
            Err(error) => problems.push(format!("  {suite} {pattern}: {error:#}")),
        }
    }
    bail!("no source delivered a package:\n{}", problems.join("\n"))
}

fn try_fetch(id: &str, suite: &str, pattern: &str) -> Result<Kernel> {
    let apt = Apt::new(suite)?;
    eprintln!("vm: fetching kernel {id} from {suite}");
    cmd::output(apt.command("apt-get")?.args(["-qq", "update"]))?;
    let found = cmd::output(apt.command("apt-cache")?.args(["search", "--names-only", pattern]))?;
    let package = found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .max_by(|a, b| by_version(a, b))
        .context("no package has such a name")?;
    let release = package.trim_start_matches("linux-image-");
    // Since forky an image package only depends on the three that hold the files.
    let packages = if id == "new" {
        ["binary", "modules", "base"].map(|part| format!("linux-{part}-{release}")).to_vec()
    } else {
        vec![package.to_owned()]
    };
    let work = tempfile::Builder::new().prefix(".fetch").tempdir_in(directory())?;
    cmd::output(apt.command("apt-get")?.args(["-qq", "download"]).args(&packages).current_dir(&work))?;
    unpack(id, work.path())
}

/// Turns the packages in `work` into a cached kernel.
fn unpack(id: &str, work: &Path) -> Result<Kernel> {
    let files = work.join("files");
    setup::apt::extract(work, &files)?;
    let tree = ["usr/lib/modules", "lib/modules"]
        .map(|dir| files.join(dir))
        .into_iter()
        .find(|dir| dir.is_dir())
        .context("the package has no modules")?;
    let mut versions = fs::read_dir(&tree)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(versions.len() == 1, "{} holds {} kernel versions, not one", tree.display(), versions.len());
    let version = versions.remove(0).file_name().to_string_lossy().into_owned();
    let image = [files.join(format!("boot/vmlinuz-{version}")), tree.join(&version).join("vmlinuz")]
        .into_iter()
        .find(|file| file.is_file())
        .context("the package has no vmlinuz")?;

    let kernel = Kernel { id: id.to_owned(), version, dir: work.join("kernel") };
    fs::create_dir_all(kernel.dir.join("lib"))?;
    fs::copy(image, kernel.image())?;
    fs::rename(&tree, kernel.all_modules())?;
    // The modprobe of a VM may be busybox's, which cannot read compressed modules.
    let mut xz = Command::new("find");
    xz.arg(kernel.modules()).args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]);
    cmd::output(&mut xz)?;
    cmd::output(Command::new("busybox").args(["depmod", "-b"]).arg(&kernel.dir).arg(&kernel.version))?;
    fs::write(kernel.dir.join("version"), format!("{}\n", kernel.version))?;

    let cached = directory().join(id);
    if cached.exists() {
        fs::remove_dir_all(&cached)?;
    }
    fs::rename(&kernel.dir, &cached)?;
    eprintln!("vm: kernel {id} is {}", kernel.version);
    Ok(Kernel { dir: cached, ..kernel })
}

fn directory() -> PathBuf {
    toolchain::tools_dir().join("kernels")
}

/// apt for one suite, with a state and a cache of its own.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(suite: &str) -> Result<Self> {
        let label = if suite.ends_with("-security") { "Debian-Security" } else { "Debian" };
        let archive = archive(label)?;
        let dir = directory().join(".apt").join(suite);
        fs::create_dir_all(&dir)?;
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed =
            if Path::new(keyring).is_file() { format!("[signed-by={keyring}] ") } else { String::new() };
        fs::write(dir.join("list"), format!("deb {signed}{archive} {suite} main\n"))?;
        Ok(Self { dir })
    }

    fn command(&self, tool: &str) -> Result<Command> {
        let mut command = setup::apt::apart(tool, &self.dir)?;
        for (name, value) in [
            ("Dir::Etc::sourcelist", self.dir.join("list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("APT::Architecture", "amd64".into()),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        Ok(command)
    }
}

/// The address of the archive with this label in the machine's own apt settings.
fn archive(label: &str) -> Result<String> {
    let targets = cmd::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Identifier: Packages",
    ]))?;
    targets
        .lines()
        .find_map(|line| line.strip_prefix(label)?.strip_prefix(' '))
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "this machine's apt knows no archive labelled {label}; the kernels are Debian's: add \
                 Debian's archives to its sources and run `apt-get update`"
            )
        })
}

/// Orders package names so that 6.1.9 comes before 6.1.10.
fn by_version(a: &str, b: &str) -> Ordering {
    let key = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let newest = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-49-cloud-amd64"]
            .into_iter()
            .max_by(|a, b| by_version(a, b));
        assert_eq!(newest, Some("linux-image-6.1.0-49-cloud-amd64"));
        assert_eq!(by_version("linux-image-7.2.13+deb14", "linux-image-7.10.1+deb14"), Ordering::Less);
    }
}
