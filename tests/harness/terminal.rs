//! A terminal to run a program on: a pseudo-terminal of 80 by 24, and what it would show.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use super::eventually;

/// A program on a terminal, ended with it.
pub struct Terminal {
    child: Child,
    master: File,
    /// Its other end, held so that its modes can be read when the program is gone.
    slave: File,
    parser: Arc<Mutex<vt100::Parser>>,
    before: Termios,
}

impl Terminal {
    /// Starts a command on a terminal of its own.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("our own");
        let name = ptsname(&master, Vec::new()).expect("it has a name").into_string().expect("a plain path");
        let slave = File::options().read(true).write(true).open(name).expect("our own");
        tcsetwinsize(&slave, size(24, 80)).expect("our own");
        let before = tcgetattr(&slave).expect("a terminal");
        let end = || slave.try_clone().expect("our own");
        let child = command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let child = child.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let master = File::from(master);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(lines(24), lines(80), 0)));
        let (mut from, into) = (master.try_clone().expect("our own"), parser.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                into.lock().expect("no panic").process(&chunk[..n]);
            }
        });
        Self { child, master, slave, parser, before }
    }

    /// What is seen.
    pub fn screen(&self) -> String {
        self.parser.lock().expect("no panic").screen().contents()
    }

    /// Whether the program has the whole screen.
    pub fn is_taken(&self) -> bool {
        self.parser.lock().expect("no panic").screen().alternate_screen()
    }

    /// Whether the cursor is hidden.
    pub fn hides_cursor(&self) -> bool {
        self.parser.lock().expect("no panic").screen().hide_cursor()
    }

    /// Whether the terminal's modes are those from before the program ran.
    pub fn is_as_before(&self) -> bool {
        let now = tcgetattr(&self.slave).expect("a terminal");
        let modes = |of: &Termios| (of.local_modes, of.input_modes, of.output_modes, of.control_modes);
        modes(&now) == modes(&self.before)
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Changes its size; the kernel signals only processes whose terminal it is, so this signals the program.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.parser.lock().expect("no panic").screen_mut().set_size(lines(rows), lines(columns));
        tcsetwinsize(&self.slave, size(rows, columns)).expect("our own");
        self.signal(Signal::WINCH);
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child, not waited for yet");
    }

    /// Waits until a line is seen that has all of these.
    #[track_caller]
    pub fn wait_for(&mut self, words: &[&str]) {
        let deadline = super::deadline();
        while !self.screen().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            let ended = self.child.try_wait().expect("our own child");
            assert!(
                std::time::Instant::now() < deadline && ended.is_none(),
                "no line with {words:?} ({ended:?}):\n{}",
                self.screen()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program on the terminal ends", || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn lines(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has some")
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
