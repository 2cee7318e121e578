//! When a time server is asked next: others use it too.

use std::time::{Duration, Instant};

/// How often a server is asked.
const NTP: Duration = Duration::from_secs(64);
/// It is not asked more often than that; this is also how long we wait after it failed first.
const NTP_LEAST: Duration = Duration::from_secs(16);
/// How long we leave a server alone that sent a kiss-o'-death.
const NTP_KISSED: Duration = Duration::from_secs(15 * 60);

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Failed,
    Kissed,
}

/// When a server is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) due: Instant,
    /// When it may be asked if a rule cannot wait.
    earliest: Instant,
    /// How long we wait after the next failure.
    patience: Duration,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, earliest: now, patience: NTP_LEAST }
    }

    pub(super) fn asked(&mut self, now: Instant, outcome: Outcome) {
        let (wait, patience) = match outcome {
            Outcome::Answered => (NTP, NTP_LEAST),
            Outcome::Failed => (self.patience, (2 * self.patience).min(NTP)),
            Outcome::Kissed => (NTP_KISSED, NTP),
        };
        self.due = now + wait;
        self.patience = patience;
        self.earliest = if outcome == Outcome::Kissed { self.due } else { now + NTP_LEAST };
    }

    pub(super) fn hurry(&mut self) {
        self.due = self.due.min(self.earliest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_that_answers_is_asked_every_64_s_and_one_that_fails_ever_later() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin);
        let mut wait = |outcome| {
            schedule.asked(begin, outcome);
            schedule.due - begin
        };
        assert_eq!(wait(Outcome::Answered), second(64));
        assert_eq!([(); 4].map(|()| wait(Outcome::Failed)), [second(16), second(32), second(64), second(64)]);
        assert_eq!(wait(Outcome::Answered), second(64));
        assert_eq!(wait(Outcome::Failed), second(16));
        assert_eq!(wait(Outcome::Kissed), second(900));
        assert_eq!(wait(Outcome::Failed), second(64));
    }

    #[test]
    fn a_hurry_asks_after_16_s_but_never_one_that_reported_us_to_go_away() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin);
        schedule.asked(begin, Outcome::Answered);
        schedule.hurry();
        assert_eq!(schedule.due - begin, second(16));
        schedule.asked(begin, Outcome::Kissed);
        schedule.hurry();
        assert_eq!(schedule.due - begin, second(900));
    }
}
