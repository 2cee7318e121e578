//! `culprit run` with a store and HTTP of its own, whatever this machine's own configuration says: started,
//! looked at from outside, ended as a supervisor ends it, and asked what it has kept.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use rustix::process::Signal;
use serde_json::Value;

use super::http;
use crate::{
    bench::{measure::proc, soak::report::Sample},
    cmd,
    process::{Process, wait_until},
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
}

/// What of a daemon can be looked at while others use it.
pub(super) struct Readable {
    pid: u32,
    store: PathBuf,
}

impl Daemon {
    /// Returns when it serves, which it does once everything is attached.
    pub(super) fn start(culprit: &Path, dir: &Path) -> Result<Self> {
        let (config, store) = (dir.join("culprit.toml"), dir.join("soak.db"));
        fs::write(&config, "")?;
        // Free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.context("looking for a free port")?;
        let mut command = Command::new(culprit);
        command.arg("run").arg("--store").arg(&store).args(["--listen", &address.to_string()]);
        command.arg("--config").arg(&config).arg("-o").arg(dir.join("out"));
        // This machine's own daemon may be configured to notify people: this one is not.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CULPRIT_") {
                command.env_remove(name);
            }
        }
        let process = Process::logged(&mut command, &dir.join("talk"))?;
        let mut daemon = Self { process, culprit: culprit.to_owned(), address, store };
        let serves = wait_until(PATIENCE, || {
            daemon.check()?;
            thread::sleep(PAUSE);
            Ok(http::get(address, "/healthz").is_ok())
        })?;
        ensure!(serves, "`{}` does not serve HTTP{}", daemon.line(), daemon.process.said());
        Ok(daemon)
    }

    /// Its command.
    pub(super) fn line(&self) -> &str {
        self.process.line()
    }

    /// Fails, with what it said, if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.process.check().context("the daemon gave up")
    }

    pub(super) fn readable(&self) -> Readable {
        Readable { pid: self.process.id(), store: self.store.clone() }
    }

    /// Ends it, and asks its store for what was kept.
    pub(super) fn end(self) -> Result<Vec<Value>> {
        self.process.finish(Signal::TERM, PATIENCE)?;
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
        let process = proc::of(self.pid)?;
        let mut descriptors = usize::MAX;
        for _ in 0..LOOKS {
            thread::sleep(PAUSE);
            descriptors = descriptors.min(process.fd_count()?);
        }
        let status = process.status()?;
        Ok(Sample {
            rss_kib: status.vmrss.context("the daemon has no memory")?,
            anon_kib: status.rssanon.context("the daemon has no anonymous memory")?,
            threads: status.threads,
            descriptors: descriptors as u64,
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
