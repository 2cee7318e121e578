//! Recordings of situations for `tests/incidents/`: made while a live test runs, with
//! `CULPRIT_KEEP_INCIDENTS` (then run with `--test-threads=1`).

use std::path::Path;

use rustix::process::Signal;

use super::{Running, Scratch, culprit::binary};

const RECORDING: &str = "recording.culprit";

/// Keeps the recording of one case.
pub struct Keeper {
    case: &'static str,
    recorder: Option<Running>,
    scratch: Scratch,
}

impl Keeper {
    /// For this case. It records nothing yet.
    pub fn new(case: &'static str) -> Self {
        Self { case, recorder: None, scratch: Scratch::make() }
    }

    /// Records what this process is part of from now on, if recordings are to be kept.
    #[track_caller]
    pub fn keep(&mut self, pid: u32) {
        if self.recorder.is_some() || std::env::var_os("CULPRIT_KEEP_INCIDENTS").is_none() {
            return;
        }
        let mut record = binary();
        record.arg("record").arg(self.scratch.join(RECORDING)).args(["-e", "connect,tls,dns,neigh", "-p"]);
        let running = Running::spawn(record.arg(pid.to_string()));
        super::eventually("the recorder attaches", || running.stderr().contains("^C ends"));
        self.recorder = Some(running);
    }

    /// Ends the recording and puts it where it belongs.
    #[track_caller]
    pub fn end(&mut self) {
        let Some(mut recorder) = self.recorder.take() else { return };
        recorder.signal(Signal::INT);
        assert!(recorder.wait().success(), "{}", recorder.stderr());
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/incidents").join(self.case);
        std::fs::create_dir_all(&kept).expect("the checkout is writable");
        std::fs::copy(self.scratch.join(RECORDING), kept.join(RECORDING)).expect("the checkout is writable");
    }
}
