//! What the live tests printed, as numbers: for the verdict on a run, and for the closing table of several.
//!
//! Reads libtest's lines, the line that a live test writes when it cannot run on this kernel
//! (`SKIPPED name: reason`), and the line that names a test which passed at its second try (`passed alone: name`).

use std::{fmt::Write as _, time::Duration};

/// What begins the line of a test that cannot run here.
pub(crate) const SKIPPED: &str = "SKIPPED ";
/// What begins the line of a test that failed among others and passed alone.
pub(crate) const PASSED_ALONE: &str = "passed alone: ";

/// The outcome of the live tests on one kernel.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) version: String,
    pub(crate) passed: Vec<String>,
    pub(crate) failed: Vec<String>,
    /// Those that failed among others and passed alone; not among the failed.
    pub(crate) alone: Vec<String>,
    /// Those of them that did so in an earlier run as well: [`super::history`].
    pub(crate) repeated: Vec<String>,
    /// (test, reason)
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) seconds: Duration,
    /// Why there is no complete result: a crash, a timeout, a machine that did not boot.
    pub(crate) broken: Option<String>,
}

impl Report {
    /// Takes one line of the tests' output.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some((_, skip)) = line.split_once(SKIPPED) {
            let (test, reason) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
            self.skipped.push((test.trim().to_owned(), reason.trim().to_owned()));
        } else if let Some(test) = line.strip_prefix(PASSED_ALONE) {
            self.passed_alone(test.trim());
        } else if let Some((test, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            match verdict.split_whitespace().next() {
                // A second try counts by its own line.
                _ if self.failed.iter().any(|failed| failed == test) => {}
                Some("ok") => self.passed.push(test.to_owned()),
                Some("FAILED") => self.failed.push(test.to_owned()),
                Some("ignored") => {
                    let reason = verdict.split_once(", ").map_or("ignored", |(_, reason)| reason);
                    self.skipped.push((test.to_owned(), reason.to_owned()));
                }
                _ => {}
            }
        }
    }

    /// Takes note that a test which failed among others has passed alone.
    pub(crate) fn passed_alone(&mut self, test: &str) {
        self.failed.retain(|failed| failed != test);
        self.passed.push(test.to_owned());
        self.alone.push(test.to_owned());
    }

    /// Takes what ran beside it.
    pub(crate) fn merge(&mut self, other: Self) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.alone.extend(other.alone);
        self.skipped.extend(other.skipped);
        self.seconds = self.seconds.max(other.seconds);
        self.broken = self.broken.take().or(other.broken);
    }

    /// Tests that came to an end so far.
    pub(crate) fn verdicts(&self) -> usize {
        self.passed.len() + self.failed.len()
    }

    /// Takes the exit status of the test binary; none when it ran out of time.
    pub(crate) fn ended(&mut self, status: Option<i32>) {
        // libtest exits with 101 when tests failed: those are counted one by one.
        self.broken = match status {
            Some(0) => None,
            Some(101) if !self.failed.is_empty() => None,
            Some(status) => Some(format!("the tests ended with status {status}")),
            None => Some("the tests ran out of time".to_owned()),
        };
    }

    pub(crate) fn is_success(&self) -> bool {
        self.broken.is_none() && self.failed.is_empty() && self.repeated.is_empty()
    }

    /// Why the run is no success, a line each.
    pub(crate) fn failures(&self) -> String {
        let mut text = String::new();
        if let Some(why) = &self.broken {
            let _ = writeln!(text, "{why}");
        }
        for test in &self.failed {
            let _ = writeln!(text, "{test} failed");
        }
        for test in &self.repeated {
            let _ = writeln!(text, "{test} passed only alone, as in another of the last five runs: mend it");
        }
        text
    }
}

/// The closing table, with every failure and every reason below it.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "\n{:<7} {:<26} {:>6} {:>6} {:>7} {:>7}\n",
        "kernel", "version", "passed", "failed", "skipped", "seconds"
    );
    let mut notes = String::new();
    for report in reports {
        // A test that skipped itself is "ok" to libtest.
        let is_skipped = |test: &String| report.skipped.iter().any(|(skipped, _)| skipped == test);
        let passed = report.passed.iter().filter(|test| !is_skipped(test)).count();
        let _ = writeln!(
            text,
            "{:<7} {:<26} {:>6} {:>6} {:>7} {:>7.1}{}",
            report.kernel,
            report.version,
            passed,
            report.failed.len(),
            report.skipped.len(),
            report.seconds.as_secs_f64(),
            if report.is_success() { "" } else { "  FAILED" },
        );
        let id = &report.kernel;
        if let Some(why) = &report.broken {
            let _ = writeln!(notes, "{id}: {why}");
        }
        for test in &report.alone {
            let repeated = report.repeated.contains(test);
            let why = if repeated { ", as in another of the last five runs: mend it" } else { "" };
            let _ = writeln!(notes, "{id}: {PASSED_ALONE}{test}{why}");
        }
        for test in &report.failed {
            let _ = writeln!(notes, "{id}: {test} failed");
        }
        for (test, reason) in &report.skipped {
            let _ = writeln!(notes, "{id}: {test} skipped: {reason}");
        }
    }
    text + &notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str], status: Option<i32>) -> Report {
        let mut report = Report { kernel: "6.1".into(), version: "6.1.0".into(), ..Report::default() };
        lines.iter().for_each(|line| report.line(line));
        report.ended(status);
        report
    }

    #[test]
    fn a_skipped_test_does_not_count_as_passed() {
        let lines = ["running 2 tests", "SKIPPED b: no kprobes here", "test a ... ok", "test b ... ok"];
        let report = report(&lines, Some(0));
        assert!(report.is_success());
        let text = table(&[report]);
        let row: Vec<_> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["6.1", "6.1.0", "1", "0", "1"]);
        assert!(text.contains("6.1: b skipped: no kprobes here"));
    }

    #[test]
    fn a_test_that_passes_at_its_second_try_counts_once_and_is_named() {
        let lines = ["test a ... FAILED", "test b ... ok", "test a ... ok", "passed alone: a"];
        let mut report = report(&lines, Some(0));
        assert_eq!((report.verdicts(), report.failed.len(), report.alone.len()), (2, 0, 1));
        assert!(report.is_success());
        report.repeated = vec!["a".into()];
        assert!(!report.is_success());
        assert!(report.failures().contains("a passed only alone"));
        assert!(table(&[report]).contains("6.1: passed alone: a, as in another"));
    }

    #[test]
    fn a_failure_a_crash_and_a_timeout_are_no_success() {
        let failing = report(&["test a ... FAILED"], Some(101));
        assert!(!failing.is_success());
        assert!(table(&[failing]).contains("6.1: a failed\n"));
        assert!(!report(&["test a ... ok"], Some(139)).is_success());
        assert!(!report(&["test a ... ok"], None).is_success());
        assert!(!report(&[], Some(101)).is_success());
    }
}
