//! A small network for a demo or a soak: namespaces joined by wires, processes in them, files beside them.
//! All of it goes away when the [`Lab`] is dropped, whatever happened.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::{cmd, process::Process};

/// The network, its processes and its files.
pub(crate) struct Lab {
    /// What the names of its namespaces begin with.
    prefix: String,
    files: tempfile::TempDir,
    netns: Vec<String>,
    processes: Vec<Process>,
}

impl Lab {
    /// An empty one, of a demo.
    pub(crate) fn new() -> Result<Self> {
        Self::named("culprit-demo-")
    }

    /// An empty one.
    pub(crate) fn named(prefix: &str) -> Result<Self> {
        let files = tempfile::tempdir().context("making a directory for the network's files")?;
        Ok(Self { prefix: prefix.to_owned(), files, netns: Vec::new(), processes: Vec::new() })
    }

    /// Makes a network namespace; its name begins as the network's names do.
    pub(crate) fn host(&mut self, name: &str) -> Result<String> {
        let netns = format!("{}{name}", self.prefix);
        // Left over from a demo that was killed.
        if PathBuf::from("/run/netns").join(&netns).exists() {
            cmd::run(Command::new("ip").args(["netns", "del", &netns]))?;
        }
        cmd::run(Command::new("ip").args(["netns", "add", &netns]))?;
        self.netns.push(netns.clone());
        self.ip(&netns, "link set lo up")?;
        Ok(netns)
    }

    /// Removes a network namespace in which nothing runs any more.
    pub(crate) fn remove(&mut self, netns: &str) -> Result<()> {
        cmd::run(Command::new("ip").args(["netns", "del", netns]))?;
        self.netns.retain(|known| known != netns);
        Ok(())
    }

    /// `ip`, inside.
    pub(crate) fn ip(&self, netns: &str, args: &str) -> Result<()> {
        cmd::run(Command::new("ip").args(["-n", netns]).args(args.split_whitespace()))
    }

    /// A wire between two hosts, with an address at each end.
    pub(crate) fn wire(&self, a: (&str, &str), b: (&str, &str)) -> Result<()> {
        self.ip(a.0, &format!("link add {0} type veth peer name {0} netns {1}", "eth0", b.0))?;
        for (netns, address) in [a, b] {
            self.ip(netns, &format!("addr add {address} dev eth0"))?;
            self.ip(netns, "link set eth0 up")?;
        }
        Ok(())
    }

    /// Writes a file, and says where it is.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.files.path().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// A path among the demo's files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A command that will run inside.
    pub(crate) fn inside(netns: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns]).arg(program);
        command
    }

    /// Starts a process and waits until it says `ready`.
    pub(crate) fn start(&mut self, command: &mut Command) -> Result<u32> {
        let mut process = Process::start(command.stdout(Stdio::piped()).stdin(Stdio::null()))?;
        let out = process.child().stdout.take().context("its output is a pipe")?;
        let mut said = String::new();
        let line = process.line();
        BufReader::new(out).read_line(&mut said).with_context(|| format!("reading from `{line}`"))?;
        ensure!(said.trim() == "ready", "`{line}` did not become ready: {said:?}");
        let pid = process.id();
        self.processes.push(process);
        Ok(pid)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A namespace goes with the last process in it.
        self.processes.clear();
        for netns in &self.netns {
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}
