//! `culprit run` with a store and HTTP of its own, whatever this machine's own configuration says: started,
//! looked at from outside, ended as a supervisor ends it, and asked what it has kept.

use std::{
    env,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::http;
use crate::{
    bench::{
        measure::{
            proc,
            process::{Process, wait_until},
        },
        soak::report::Sample,
    },
    cmd,
};

/// Until it serves, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Descriptors are counted so often for one sample, with a pause in between: what is open only for a
/// moment is not held.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(25);

/// The daemon; killed when dropped.
pub(super) struct Daemon {
    process: Process,
    culprit: PathBuf,
    pub(super) address: SocketAddr,
    store: PathBuf,
    talk: PathBuf,
}

/// What of a daemon can be looked at while others use it.
pub(super) struct Readable {
    pid: u32,
    store: PathBuf,
}

impl Daemon {
    /// Returns when it serves, which it does once everything is attached.
    pub(super) fn start(culprit: &Path, dir: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = dir.join(name);
            let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
            anyhow::Ok((path, file))
        };
        let (config, _) = file("culprit.toml")?;
        let (talk, stderr) = file("talk")?;
        let (_, stdout) = file("out")?;
        let store = dir.join("soak.db");
        // Free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.context("looking for a free port")?;
        let mut command = Command::new(culprit);
        command.arg("run").arg("--store").arg(&store).args(["--listen", &address.to_string()]);
        command.arg("--config").arg(&config);
        // This machine's own daemon may be configured to notify people: this one is not.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CULPRIT_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let process = Process::start(command)?;
        let mut daemon = Self { process, culprit: culprit.to_owned(), address, store, talk };
        let mut serves = false;
        wait_until(PATIENCE, || {
            daemon.check()?;
            serves = http::get(address, "/healthz").is_ok();
            thread::sleep(PAUSE);
            Ok(serves)
        })?;
        ensure!(serves, "`{}` does not serve HTTP{}", daemon.line(), daemon.said());
        Ok(daemon)
    }

    /// Its command.
    pub(super) fn line(&self) -> &str {
        self.process.line()
    }

    /// Fails, with what it said, if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.process.check().with_context(|| format!("the daemon gave up{}", self.said()))
    }

    fn said(&self) -> String {
        let text = fs::read_to_string(&self.talk).unwrap_or_default();
        if text.is_empty() { String::new() } else { format!("; it said:\n{}", text.trim_end()) }
    }

    pub(super) fn readable(&self) -> Readable {
        Readable { pid: self.process.id(), store: self.store.clone() }
    }

    /// Ends it, and asks its store for what was kept.
    pub(super) fn end(self) -> Result<Vec<Value>> {
        let (said, line) = (self.said(), self.line().to_owned());
        let status = self.process.end(Signal::SIGTERM, PATIENCE)?;
        ensure!(status.success(), "`{line}` failed: {status}{said}");
        let mut command = Command::new(&self.culprit);
        command
            .arg("incidents")
            .arg("--store")
            .arg(&self.store)
            .args(["--format", "json", "--limit", "10000"]);
        let text = cmd::output(&mut command)?;
        let parsed = |line: &str| {
            serde_json::from_str(line).with_context(|| format!("`{}` said {line}", cmd::line(&command)))
        };
        text.lines().map(parsed).collect()
    }
}

impl Readable {
    /// What the kernel says of it, and how large its store is.
    pub(super) fn sample(&self) -> Result<Sample> {
        let mut descriptors = u64::MAX;
        for _ in 0..LOOKS {
            thread::sleep(PAUSE);
            descriptors = descriptors.min(proc::descriptors(self.pid)?);
        }
        Ok(Sample {
            rss_kib: proc::status(self.pid, "VmRSS")?,
            anon_kib: proc::status(self.pid, "RssAnon")?,
            threads: proc::status(self.pid, "Threads")?,
            descriptors,
            cpu_s: proc::cpu_seconds(self.pid)?,
            store_bytes: self.store_bytes(),
            ..Sample::default()
        })
    }

    /// The database, its log and its index, as far as they are there.
    fn store_bytes(&self) -> u64 {
        let sizes = ["", "-wal", "-shm"].map(|end| {
            let mut path = self.store.clone().into_os_string();
            path.push(end);
            fs::metadata(path).map_or(0, |metadata| metadata.len())
        });
        sizes.iter().sum()
    }
}
