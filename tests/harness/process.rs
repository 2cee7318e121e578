//! Processes a test starts: ended with it, whatever happens, and nothing else is.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Not in time.
#[derive(Debug)]
pub struct Late;

/// A process in a process group of its own, ended with all its children when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Arc<Mutex<String>>,
}

impl Running {
    /// Starts a command whose output is read line by line, in the namespaces of the calling thread.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (to, lines) = channel();
        let said = Arc::new(Mutex::new(String::new()));
        let out = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    // Lines are no longer waited for, but the process may still want to write them.
                    continue;
                }
            }
        });
        let mut err = child.stderr.take().expect("piped");
        let errors = said.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut chunk) {
                errors.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        Self { child, lines, said }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on stderr so far.
    pub fn stderr(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// Writes to its stdin.
    pub fn say(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("the process reads its stdin");
    }

    /// Closes its stdin.
    pub fn hush(&mut self) {
        self.child.stdin = None;
    }

    /// The next line it writes, `None` at the end of its output.
    pub fn next_line(&self, deadline: Instant) -> Result<Option<String>, Late> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Late),
        }
    }

    /// Waits until it has written a line that contains `text`.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        let deadline = super::deadline();
        let mut seen = Vec::new();
        loop {
            match self.next_line(deadline) {
                Ok(Some(line)) if line.contains(text) => return line,
                Ok(Some(line)) => seen.push(line),
                end => panic!("no line with {text:?} ({end:?}): {seen:#?}\nstderr: {}", self.stderr()),
            }
        }
    }

    /// Sends it a signal, and only it.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child, not waited for yet");
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = super::deadline();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} does not end: {}", self.pid(), self.stderr());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, which must come soon and be good.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    output
}

/// A command, split as a shell splits it: remedies are quoted.
pub fn words(line: &str) -> Command {
    let mut words = shell_words::split(line).expect("quotes in pairs").into_iter();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}
