//! A machine that is paused or asleep for a long time. A program inside asks for it:
//!
//! - `vm-pause SECONDS` (pause.sh), as hypervisors do: the machine stops, the hardware clock goes on,
//!   the machine continues. It has not noticed: its clocks are behind by the time it lost.
//! - `vm-sleep SECONDS`, as laptops do: the machine suspends to memory and is woken. Its kernel adds the
//!   time to REALTIME and BOOTTIME. The driver for shared files cannot sleep: for machines without.
//!
//! No test waits and none sets this machine's clock: QEMU alone is given another time, by libfaketime.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde_json::Value;

use crate::setup::FAKETIME;

/// What a command in a machine finds `vm-pause` by, and `vm-sleep` where that is possible.
pub(super) fn env(can_sleep: bool) -> Vec<(String, OsString)> {
    let mut env = vec![("CULPRIT_VM_PAUSE".into(), "/run/vm/bin/vm-pause".into())];
    if can_sleep {
        env.push(("CULPRIT_VM_SLEEP".into(), "/run/vm/bin/vm-sleep".into()));
    }
    env
}

/// Listens to one machine's wishes.
#[derive(Debug)]
pub(super) struct Pauses {
    run: PathBuf,
    ahead: u64,
    asks: Option<UnixStream>,
    said: Vec<u8>,
    /// The machine is about to sleep for so many seconds.
    sleeping: Option<(u32, Qmp)>,
}

impl Pauses {
    /// A QEMU about to be started, with what pauses need.
    pub(super) fn qemu(run: &Path) -> Result<(Command, Self)> {
        let pauses = Self { run: run.to_owned(), ahead: 0, asks: None, said: Vec::new(), sleeping: None };
        pauses.report_time()?;
        let library = FAKETIME.iter().find(|file| Path::new(file).is_file());
        let library = library.context("libfaketime is not here: `cargo xtask setup` installs it")?;
        // libfaketime leaves its shared memory behind when it is killed, unless that is private.
        let script = "mount -t tmpfs tmpfs /dev/shm && LD_PRELOAD=\"$0\" exec qemu-system-x86_64 \"$@\"";
        let mut qemu = Command::new("unshare");
        qemu.args(["--mount", "--propagation", "private", "sh", "-c", script, library])
            .env("FAKETIME_TIMESTAMP_FILE", pauses.time())
            .env("FAKETIME_NO_CACHE", "1")
            // The machine's own clocks run by the monotonic one.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .args(["-qmp", &format!("unix:{},server=on,wait=off", run.join("qmp").display()), "-chardev"])
            .arg(format!("socket,id=ask,path={},server=on,wait=off", run.join("ask").display()));
        Ok((qemu, pauses))
    }

    /// The port a machine asks by, which follows the other three.
    pub(super) fn port() -> [&'static str; 2] {
        ["-device", "virtserialport,chardev=ask,nr=4,name=ask"]
    }

    /// Does what the machine has asked for since the last call.
    pub(super) fn attend(&mut self) -> Result<()> {
        let Some(asks) = &mut self.asks else {
            // QEMU makes the socket as it starts.
            if let Ok(asks) = UnixStream::connect(self.run.join("ask")) {
                asks.set_nonblocking(true).context("listening to the machine")?;
                self.asks = Some(asks);
            }
            return Ok(());
        };
        let mut buffer = [0; 256];
        match asks.read(&mut buffer) {
            Ok(read) => self.said.extend(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(error).context("listening to the machine"),
        }
        while let Some(end) = self.said.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.said.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            // One that asks again has given up what it asked for before.
            self.sleeping = None;
            match Wish::parse(&line) {
                Some(Wish::Pause(seconds)) => {
                    let mut qmp = Qmp::connect(&self.run.join("qmp"))?;
                    qmp.execute("stop")?;
                    self.go_ahead(seconds)?;
                    qmp.execute("cont")?;
                    self.answer("done\n")?;
                }
                Some(Wish::Sleep(seconds)) => {
                    self.sleeping = Some((seconds, Qmp::connect(&self.run.join("qmp"))?));
                }
                None => self.answer(&format!("not understood: {line}"))?,
            }
        }
        if let Some((seconds, mut qmp)) = self.sleeping.take() {
            if qmp.execute("query-status")?["status"] == "suspended" {
                self.go_ahead(seconds)?;
                qmp.execute("system_wakeup")?;
                self.answer("done\n")?;
            } else {
                self.sleeping = Some((seconds, qmp));
            }
        }
        Ok(())
    }

    fn answer(&mut self, line: &str) -> Result<()> {
        let Some(asks) = &mut self.asks else { return Ok(()) };
        asks.write_all(line.as_bytes()).context("answering the machine")
    }

    fn go_ahead(&mut self, seconds: u32) -> Result<()> {
        self.ahead += u64::from(seconds);
        self.report_time()
    }

    fn time(&self) -> PathBuf {
        self.run.join("time")
    }

    /// Reports QEMU how far ahead its time is. It may read the file at any moment: it is replaced at once.
    fn report_time(&self) -> Result<()> {
        let new = self.run.join("time.new");
        fs::write(&new, format!("+{}\n", self.ahead))?;
        fs::rename(&new, self.time()).context("giving QEMU the time")
    }
}

/// What a program in a machine may ask for, in seconds.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Pause(u32),
    Sleep(u32),
}

impl Wish {
    fn parse(line: &str) -> Option<Self> {
        let (verb, seconds) = line.trim_end().split_once(' ')?;
        let seconds = seconds.parse().ok()?;
        match verb {
            "pause" => Some(Self::Pause(seconds)),
            "sleep" => Some(Self::Sleep(seconds)),
            _ => None,
        }
    }
}

/// A conversation with QEMU: docs/interop/qmp-spec of QEMU.
#[derive(Debug)]
struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting to QEMU")?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).context("listening to QEMU")?;
        let mut qmp = Self { lines: BufReader::new(stream) };
        qmp.hear()?;
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Has a command executed, and returns what it returns.
    fn execute(&mut self, command: &str) -> Result<Value> {
        writeln!(self.lines.get_mut(), "{{\"execute\": \"{command}\"}}").context("talking to QEMU")?;
        loop {
            let mut answer = self.hear()?;
            if let Some(returned) = answer.get_mut("return") {
                return Ok(returned.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused to {command}: {error}");
            }
            // An event.
        }
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("listening to QEMU")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_a_number_of_seconds() {
        assert_eq!(Wish::parse("pause 86400\n"), Some(Wish::Pause(86400)));
        assert_eq!(Wish::parse("sleep 1\n"), Some(Wish::Sleep(1)));
        assert_eq!(Wish::parse("pause -1\n"), None);
        assert_eq!(Wish::parse("pause\n"), None);
    }
}
