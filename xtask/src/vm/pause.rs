//! A machine that is paused for a long time, as hypervisors do: a program inside asks for it with
//! `vm-pause` (pause.sh), the machine stops, the hardware clock goes on, the machine continues. It
//! has not noticed: its clocks are behind by the time it lost.
//!
//! Nobody waits and nobody sets this machine's clock: QEMU alone is told another time, by libfaketime.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::FAKETIME;

/// What a command in a machine finds `vm-pause` by.
pub(super) fn env() -> (String, OsString) {
    ("CULPRIT_VM_PAUSE".into(), "/run/vm/bin/vm-pause".into())
}

/// Listens to one machine's wishes.
#[derive(Debug)]
pub(super) struct Pauses {
    run: PathBuf,
    ahead: u64,
    asks: Option<UnixStream>,
    said: Vec<u8>,
}

impl Pauses {
    /// A QEMU about to be started, with what pauses need.
    pub(super) fn qemu(run: &Path) -> Result<(Command, Self)> {
        let pauses = Self { run: run.to_owned(), ahead: 0, asks: None, said: Vec::new() };
        pauses.tell_time()?;
        let library = FAKETIME.iter().find(|file| Path::new(file).is_file());
        let library = library.context("libfaketime is not here: `cargo xtask setup` installs it")?;
        // libfaketime leaves its shared memory behind when it is killed, unless that is private.
        let script = "mount -t tmpfs tmpfs /dev/shm && LD_PRELOAD=\"$0\" exec qemu-system-x86_64 \"$@\"";
        // `setpriv --pdeathsig`: should xtask be killed, the machine goes with it.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", script, library])
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
            let answer = match wish(&line) {
                Some(seconds) => self.pause(seconds).map(|()| "done\n".to_owned())?,
                None => format!("not understood: {line}"),
            };
            if let Some(asks) = &mut self.asks {
                asks.write_all(answer.as_bytes()).context("answering the machine")?;
            }
        }
        Ok(())
    }

    fn pause(&mut self, seconds: u32) -> Result<()> {
        let mut qmp = Qmp::connect(&self.run.join("qmp"))?;
        qmp.execute("stop")?;
        self.ahead += u64::from(seconds);
        self.tell_time()?;
        qmp.execute("cont")
    }

    fn time(&self) -> PathBuf {
        self.run.join("time")
    }

    /// Tells QEMU how far ahead its time is. It may read the file at any moment: it is replaced at once.
    fn tell_time(&self) -> Result<()> {
        let new = self.run.join("time.new");
        super::qemu::write(&new, format!("+{}\n", self.ahead).as_bytes())?;
        fs::rename(&new, self.time()).context("telling QEMU the time")
    }
}

/// The seconds in `pause SECONDS`.
fn wish(line: &str) -> Option<u32> {
    line.trim_end().strip_prefix("pause ")?.parse().ok()
}

/// A conversation with QEMU: docs/interop/qmp-spec of QEMU.
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

    /// Has a command executed that returns nothing.
    fn execute(&mut self, command: &str) -> Result<()> {
        writeln!(self.lines.get_mut(), "{{\"execute\": \"{command}\"}}").context("talking to QEMU")?;
        loop {
            let answer = self.hear()?;
            if answer.get("return").is_some() {
                return Ok(());
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
        assert_eq!(wish("pause 86400\n"), Some(86400));
        assert_eq!(wish("pause -1\n"), None);
        assert_eq!(wish("sleep 1\n"), None);
    }
}
