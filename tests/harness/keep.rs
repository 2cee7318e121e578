//! Recordings of situations for `tests/incidents/<rule>/<case>/`: made while a live test runs, with
//! `CULPRIT_KEEP_INCIDENTS` (then run with `--test-threads=1`).

use std::{path::Path, time::Duration};

use rustix::process::Signal;

use super::{Running, Scratch, culprit::binary};

const RECORDING: &str = "recording.culprit";

/// Keeps the recording of one case.
pub struct Keeper {
    case: Option<&'static str>,
    recorder: Option<Running>,
    scratch: Scratch,
}

impl Keeper {
    /// For this case, `rule/case`. It records nothing yet.
    #[track_caller]
    pub fn new(case: &'static str) -> Self {
        assert_eq!(case.split('/').count(), 2, "{case} is no rule/case");
        Self { case: Some(case), recorder: None, scratch: Scratch::make() }
    }

    /// Whether it records.
    pub fn is_idle(&self) -> bool {
        self.recorder.is_none()
    }

    /// Keeps nothing.
    pub fn idle() -> Self {
        Self { case: None, recorder: None, scratch: Scratch::make() }
    }

    /// Records what this process is part of from now on, if recordings are to be kept.
    #[track_caller]
    pub fn keep(&mut self, pid: u32) {
        self.record(&format!("-e connect,tls,dns,neighbour -p {pid}"));
    }

    /// The same without neighbours, which all processes share.
    #[track_caller]
    pub fn keep_connects(&mut self, pid: u32) {
        self.record(&format!("-e connect,tls,dns -p {pid}"));
    }

    /// The same of the clock, which all processes share; `args` are more arguments.
    #[track_caller]
    pub fn keep_clock(&mut self, args: &str) {
        self.record(&format!("-e clock {args}"));
    }

    #[track_caller]
    fn record(&mut self, args: &str) {
        if self.case.is_none()
            || self.recorder.is_some()
            || std::env::var_os("CULPRIT_KEEP_INCIDENTS").is_none()
        {
            return;
        }
        let mut record = binary();
        record.arg("record").arg(self.scratch.join(RECORDING)).args(args.split_whitespace());
        let running = Running::spawn(&mut record);
        super::eventually("the recorder attaches", || running.stderr().contains("^C ends"));
        self.recorder = Some(running);
    }

    /// Lets the situation last until the recorder, whose clock ticks at other moments, has seen it too.
    pub fn catches_up(&self) {
        if self.recorder.is_some() {
            std::thread::sleep(Duration::from_millis(700));
        }
    }

    /// Ends the recording and puts it into its folder.
    #[track_caller]
    pub fn end(&mut self) {
        let (Some(case), Some(mut recorder)) = (self.case, self.recorder.take()) else { return };
        recorder.signal(Signal::INT);
        assert!(recorder.wait().success(), "{}", recorder.stderr());
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/incidents").join(case);
        std::fs::create_dir_all(&kept).expect("the checkout is writable");
        std::fs::copy(self.scratch.join(RECORDING), kept.join(RECORDING)).expect("the checkout is writable");
    }
}
