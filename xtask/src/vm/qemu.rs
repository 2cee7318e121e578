//! One run of one virtual machine: share the host's files, boot, pass the command's output on as
//! it comes, and return how it ended.
//!
//! QEMU runs under software emulation: slower, but the same everywhere and without /dev/kvm. Its
//! output goes to plain files, which never make it wait: what a port has taken from the machine
//! and not yet written would be lost at power-off. [`Follow`] reads them as they grow.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fs_err::{self as fs, File};

use super::{initramfs, kernels::Kernel, pause::Pauses};
use crate::{
    cmd,
    process::{Process, tail, wait_until},
    setup::VIRTIOFSD,
};

/// What to run, and on what machine.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) timeout: Duration,
    /// The hardware clock at boot, as QEMU's `-rtc base=`.
    pub(crate) clock: &'a str,
    /// More of the kernel's command line.
    pub(crate) append: &'a str,
    /// Directories the machine may write to.
    pub(crate) writable: &'a [PathBuf],
    /// Directories the command needs to see, wherever they are mounted.
    pub(crate) visible: &'a [PathBuf],
    /// Programs that are all the machine has; none: it has this machine's files.
    pub(crate) carried: &'a [PathBuf],
}

/// A piece of what the command wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Output<'a> {
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
}

/// Writes it where ours goes.
pub(crate) fn pass_on(output: Output<'_>) {
    // The reader may have gone; the command goes on.
    let _ = match output {
        Output::Stdout(bytes) => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Output::Stderr(bytes) => io::stderr().write_all(bytes),
    };
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The command's exit status; none when it ran out of time.
    pub(crate) status: Option<i32>,
    /// From starting QEMU to starting the command.
    pub(crate) boot: Duration,
    /// From starting QEMU to its end.
    pub(crate) total: Duration,
}

impl<'a> Machine<'a> {
    /// A small one, with this machine's files to read.
    pub(crate) fn of(kernel: &'a Kernel) -> Self {
        Self {
            kernel,
            cpus: 1,
            memory_mib: 1024,
            timeout: Duration::from_secs(120),
            clock: "utc",
            append: "",
            writable: &[],
            visible: &[],
            carried: &[],
        }
    }

    /// Runs `command` in `dir` with `env`, giving its output to `sink`.
    pub(crate) fn run(
        &self,
        env: &[(String, OsString)],
        dir: &Path,
        command: &[OsString],
        mut sink: impl FnMut(Output<'_>),
    ) -> Result<Outcome> {
        let run =
            tempfile::Builder::new().prefix("culprit-vm").tempdir().context("creating a run directory")?;
        let shares = self.shares();
        let initrd = run.path().join("initrd");
        let script = initramfs::command(env, dir, command);
        let table: String = shares
            .iter()
            .filter(|share| share.tag != "root")
            .map(|share| format!("{} {}\n", share.tag, share.at.display()))
            .collect();
        fs::write(&initrd, &initramfs::build(self.kernel, &table, &script, self.carried)?)?;

        let started = Instant::now();
        let servers =
            shares.iter().map(|share| Server::start(share, run.path())).collect::<Result<Vec<_>>>()?;
        let (mut qemu, mut pauses) = self.start(&initrd, &servers, run.path())?;
        let mut out = Follow::new(&run.path().join("out"))?;
        let mut err = Follow::new(&run.path().join("err"))?;
        let mut state = Follow::new(&run.path().join("state"))?;
        let mut said = String::new();
        let mut boot = None;
        let ended = loop {
            let ended = qemu.ended()?;
            out.read(|bytes| sink(Output::Stdout(bytes)))?;
            err.read(|bytes| sink(Output::Stderr(bytes)))?;
            state.read(|bytes| said.push_str(&String::from_utf8_lossy(bytes)))?;
            pauses.attend()?;
            if boot.is_none() && said.contains('\n') {
                boot = Some(started.elapsed());
            }
            if ended.is_some() || started.elapsed() > self.timeout {
                break ended;
            }
            thread::sleep(Duration::from_millis(30));
        };
        let total = started.elapsed();
        let boot = boot.unwrap_or(total);
        let status = said.lines().find_map(|line| line.strip_prefix("exit ")?.parse().ok());
        if let (Some(ended), None) = (ended, status) {
            bail!(
                "the machine with kernel {} ended without a result (QEMU: {ended}){}\n{}",
                self.kernel.id,
                qemu.said(),
                tail(&run.path().join("console")),
            );
        }
        Ok(Outcome { status, boot, total })
    }

    /// What the machine sees of the host. Another file system than the root's is not below it: it
    /// is shared by itself, at its own path.
    fn shares(&self) -> Vec<Share> {
        if !self.carried.is_empty() {
            return Vec::new();
        }
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        let share = |tag: String, dir: &Path, at: &Path, writable| Share {
            tag,
            dir: dir.to_owned(),
            at: at.to_owned(),
            writable,
        };
        let modules = self.kernel.all_modules();
        let mut shares = vec![
            share("root".into(), Path::new("/"), Path::new("/"), false),
            share("modules".into(), &modules, Path::new("/lib/modules"), false),
        ];
        let apart = self.visible.iter().filter(|dir| device(dir) != device(Path::new("/")));
        shares.extend(apart.enumerate().map(|(i, dir)| share(format!("dir{i}"), dir, dir, false)));
        let writable = self.writable.iter().enumerate();
        shares.extend(writable.map(|(i, dir)| share(format!("rw{i}"), dir, dir, true)));
        shares
    }

    fn start(&self, initrd: &Path, servers: &[Server], run: &Path) -> Result<(Process, Pauses)> {
        let (mut qemu, pauses) = Pauses::qemu(run)?;
        qemu.args(["-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-machine", "pc,memory-backend=ram"])
            // One thread for all processors: emulated side by side, one may run the old translation of
            // code another has just patched (static keys, as tracepoints come and go): "Oops: int3".
            .args(["-accel", "tcg,thread=single"])
            // Five-level page tables cost time under emulation and buy nothing.
            .args(["-cpu", "max,la57=off", "-smp", &self.cpus.to_string()])
            .args(["-m", &self.memory_mib.to_string()])
            // virtiofsd maps the machine's memory, so it must be a file that can be shared.
            .args(["-object", &format!("memory-backend-memfd,id=ram,size={}M,share=on", self.memory_mib)])
            .args(["-rtc", &format!("base={},clock=host", self.clock)])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(initrd)
            // Without random.trust_cpu the first getrandom() waits for seconds.
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet loglevel=4 panic=-1 nokaslr mitigations=off random.trust_cpu=on \
                 no_timer_check {}",
                self.append
            ))
            .args(["-serial", &format!("file:{}", run.join("console").display())])
            .args(["-device", "virtio-serial-pci"]);
        for (i, name) in ["out", "err", "state"].iter().enumerate() {
            let file = run.join(name);
            fs::write(&file, &[])?;
            qemu.args(["-chardev", &format!("file,id={name},path={}", file.display())])
                .args(["-device", &format!("virtserialport,chardev={name},nr={},name={name}", i + 1)]);
        }
        qemu.args(Pauses::port());
        for server in servers {
            let tag = &server.tag;
            qemu.args(["-chardev", &format!("socket,id=fs-{tag},path={}", server.socket.display())])
                .args(["-device", &format!("vhost-user-fs-pci,chardev=fs-{tag},tag={tag},queue-size=512")]);
        }
        Ok((Process::logged(&mut qemu, &run.join("qemu.log"))?, pauses))
    }
}

/// A directory of the host, and where the machine has it.
#[derive(Debug)]
struct Share {
    tag: String,
    dir: PathBuf,
    at: PathBuf,
    writable: bool,
}

/// The virtiofsd of one share.
#[derive(Debug)]
struct Server {
    tag: String,
    socket: PathBuf,
    _process: Process,
}

impl Server {
    fn start(share: &Share, run: &Path) -> Result<Self> {
        let program = VIRTIOFSD.iter().find(|file| Path::new(file).is_file());
        let program = program.context("virtiofsd is not here: `cargo xtask setup` installs it")?;
        let (bound, socket) = (run.join(&share.tag), run.join(format!("{}.sock", share.tag)));
        fs::create_dir(&bound)?;
        let cache = if share.writable { "auto" } else { "always" };
        // The one that came with QEMU was written in C and took mount-like options.
        let source = if program.contains("/qemu/") {
            format!("-o source={},cache={cache},sandbox=chroot", cmd::quoted(bound.as_os_str()))
        } else {
            format!("--shared-dir={} --cache={cache} --sandbox=chroot", cmd::quoted(bound.as_os_str()))
        };
        let read_only = if share.writable { "" } else { "mount -o remount,bind,ro \"$2\"\n" };
        // In a mount namespace of its own the share can be made read-only for good, whatever the
        // server does, and its lock file in /run is private.
        let script = format!(
            "set -e\nmount --bind \"$1\" \"$2\"\n{read_only}mount -t tmpfs tmpfs /run\n\
             exec {program} --socket-path=\"$3\" {source} --rlimit-nofile=0"
        );
        let mut server = Command::new("unshare");
        server
            .args(["--mount", "--propagation", "private", "sh", "-c", &script, "share"])
            .args([&share.dir, &bound, &socket]);
        let mut process = Process::logged(&mut server, &run.join(format!("{}.log", share.tag)))?;
        let shares = wait_until(Duration::from_secs(10), || {
            process.check().with_context(|| format!("sharing {}", share.dir.display()))?;
            Ok(socket.exists())
        })?;
        ensure!(shares, "virtiofsd did not start sharing {}{}", share.dir.display(), process.said());
        Ok(Self { tag: share.tag.clone(), socket, _process: process })
    }
}

/// Reads a file as it grows.
struct Follow {
    file: File,
    buffer: Vec<u8>,
}

impl Follow {
    fn new(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, buffer: Vec::new() })
    }

    fn read(&mut self, mut sink: impl FnMut(&[u8])) -> Result<()> {
        self.buffer.clear();
        self.file.read_to_end(&mut self.buffer).context("reading what the machine wrote")?;
        if !self.buffer.is_empty() {
            sink(&self.buffer);
        }
        Ok(())
    }
}
