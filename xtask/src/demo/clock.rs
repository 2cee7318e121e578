//! The outage of a clock from the future: it jumps four months ahead and comes back in two steps, and a program that
//! took credentials meanwhile is refused long after it is right again.
//!
//! Inside a virtual machine: this machine's clock is everybody's. With `--here` it is stepped all the same,
//! by one second, and put back.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

use super::{lab::Lab, watch::Watch};
use crate::{
    cmd,
    setup::{self, Need},
    vm::{self, Machine, Output},
};

const KERNEL: &str = "6.12";
/// Early enough for everything to be attached at 03:58:03, when the outage began.
const BOOT: &str = "2028-08-10T03:57:45";

pub(super) fn play() -> Result<()> {
    let culprit = super::build()?;
    setup::ensure(&[Need::Vm])?;
    let lab = Lab::new()?;
    eprintln!(
        "\
The outage: on 10 August at 03:58:03 a machine's clock jumps to December, six minutes later to October,
and six minutes later back. APIs refuse it all the while, and go on refusing some of its services long after
its clock is right: those keep credentials that they believe to be good until December, and fetch no others.

  03:58:03  10 August → 14 December  →  12 October  →  10 August          (here in seconds, not minutes)

Booting a virtual machine with a clock of its own; this machine's is left alone …"
    );
    // One openssl under the names of those whose parts it plays.
    for name in ["api", "early", "worker"] {
        let openssl =
            cmd::which("openssl").context("openssl is not here: `cargo xtask setup` installs it")?;
        std::os::unix::fs::symlink(openssl, lab.path(name)).context("naming openssl")?;
    }
    let mut request = Command::new("openssl");
    request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    request.args(["-subj", "/CN=api.example", "-keyout"]).arg(lab.path("key.pem"));
    cmd::output(request.arg("-out").arg(lab.path("cert.pem")))?;
    let script = lab.file("clock.sh", include_str!("clock.sh"))?;
    let colour = if io::stdout().is_terminal() { "always" } else { "never" };

    eprintln!("\n$ sudo culprit run");
    let files = script.parent().unwrap_or(Path::new("/"));
    let mut command = vec!["/bin/sh".into(), script.clone().into(), files.into(), culprit.clone().into()];
    command.extend(
        ["run", "--for", "90s", "--store", "none", "--listen", "none", "--color", colour].map(Into::into),
    );
    let kernel = vm::kernels::named(&[KERNEL.to_owned()])?.remove(0);
    let visible = [files.to_owned(), culprit.parent().unwrap_or(files).to_owned()];
    let machine = Machine { clock: BOOT, visible: &visible, ..Machine::of(&kernel) };
    let path = ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut reported = false;
    let outcome = machine.run(&[path], Path::new("/"), &command, |output| {
        reported |= matches!(output, Output::Stdout(_));
        vm::pass_on(output);
    })?;
    match outcome.status {
        Some(0) => {}
        Some(status) => bail!("the demo failed in the machine: status {status}"),
        None => bail!("the machine took too long"),
    }
    ensure!(reported, "culprit reported no incident: the demo shows nothing here");
    eprintln!(
        "
What you saw:
  · CLOCK STEPPED is the incident, open as soon as the clock had jumped: by how much, from when to when, and
    who did it by which call. The second jump and the way back belong to it: they are no incidents of their own.
  · `worker` opened its TLS session while the clock was wrong, and still runs: what it was given then is dated
    then, so it is named as one to restart. `early` opened its own before the first jump, and is not.
  · Afterwards `date` says the right time and APIs say `Forbidden`; that the clock was ever wrong, and for
    whom this still matters, is written nowhere else."
    );
    Ok(())
}

/// The same in small, on this machine.
pub(super) fn here() -> Result<()> {
    let culprit = super::build()?;
    eprintln!(
        "\
The clock of this machine is put one second ahead, exactly, and three seconds later one second back, exactly.
Programs that look at it now see that second; a time daemon may find the clock unsynchronized until it next
asks its servers."
    );
    // From here on ^C ends the waiting, and nothing else: the clock is put back in any case.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted)).context("listening for signals")?;
    }
    let wait = |time| {
        let began = Instant::now();
        while began.elapsed() < time && !interrupted.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20));
        }
    };
    eprintln!("\n$ sudo culprit run");
    let watch = Watch::start(&culprit, &["run", "--for", "30s"])?;
    eprintln!("\n# One second ahead.");
    let ahead = Ahead::by_one_second()?;
    wait(Duration::from_secs(3));
    drop(ahead);
    eprintln!("\n# Right again.");
    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
    // Long enough for those who watch to see that it stays so.
    wait(Duration::from_millis(3500));
    watch.end()?;
    eprintln!(
        "
What you saw:
  · CLOCK STEPPED opened with the step: one second forward, by this xtask, through clock_adjtime.
  · The step back undid it, so both are one incident, and it is over."
    );
    Ok(())
}

/// This machine's clock while it is one second ahead; put back when dropped.
struct Ahead;

impl Ahead {
    fn by_one_second() -> Result<Self> {
        step(1).context("stepping the clock")?;
        Ok(Self)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Err(error) = step(-1) {
            // The reader may have gone, which must not end the way back.
            let _ = writeln!(io::stderr(), "demo: the clock is one second ahead and stays so: {error}");
        }
    }
}

/// Adds whole seconds to the clock: exact, whatever time passes between reading it and setting it.
fn step(seconds: i8) -> io::Result<()> {
    // SAFETY: all zeroes is a value of every field.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = libc::ADJ_SETOFFSET;
    timex.time.tv_sec = seconds.into();
    // SAFETY: the pointer is to a whole timex, which the kernel reads and writes.
    match unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut timex) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
