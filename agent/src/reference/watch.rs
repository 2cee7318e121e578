//! Reads the clocks again and again, in threads of its own: a hardware clock is slow to read, and a server's
//! name may take long to resolve when the network is what is broken.

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Answer, Failure, Roots, Server, local,
    schedule::{Outcome, Schedule},
    sntp,
};

/// Answers waiting to be taken, at most: the next ones are dropped, and there will be others.
const WAITING: usize = 64;
/// How often the machine's own clocks are read.
const LOCAL: Duration = Duration::from_secs(10);
/// They are not read more often than that, however often it is asked.
const LOCAL_LEAST: Duration = Duration::from_millis(200);

/// Watches the reference clocks. Its threads end when it is dropped: at once, or when the exchange they are in
/// is over.
#[derive(Debug)]
pub struct Watch {
    answers: mpsc::Receiver<Answer>,
    /// Wakes a thread; gone, it ends it.
    wakers: Vec<SyncSender<()>>,
}

impl Watch {
    /// Begins: the first answers come at once.
    pub fn start(servers: Vec<Server>) -> io::Result<Self> {
        Self::of(Roots::default(), servers)
    }

    fn of(roots: Roots, servers: Vec<Server>) -> io::Result<Self> {
        let (sender, answers) = mpsc::channel(WAITING);
        let mut watch = Self { answers, wakers: Vec::new() };
        let reported = Reported { sender: sender.clone(), failures: BTreeMap::new() };
        watch.spawn("culprit-clocks", move |wake| watch_local(&roots, reported, &wake))?;
        if !servers.is_empty() {
            let reported = Reported { sender, failures: BTreeMap::new() };
            watch.spawn("culprit-ntp", move |wake| watch_servers(servers, reported, &wake))?;
        }
        Ok(watch)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(Receiver<()>) + Send + 'static) -> io::Result<()> {
        // One wish is as good as two.
        let (waker, wake) = sync_channel(1);
        thread::Builder::new().name(name.into()).spawn(move || run(wake))?;
        self.wakers.push(waker);
        Ok(())
    }

    /// Has the machine's own clocks read at once, and the servers that were not asked in the last 16 s. The
    /// answers come as all others do.
    pub fn ask_now(&self) {
        for waker in &self.wakers {
            // Full: it was asked already.
            let _ = waker.try_send(());
        }
    }

    /// The next answer. A failure comes once, and again when its reason changes or the clock was read in between.
    /// Nothing is lost if the future is dropped. `None` does not come while the threads live.
    pub async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    /// An answer that is there already.
    pub fn try_next(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

/// Hands answers over, and remembers the failures reported.
struct Reported {
    sender: mpsc::Sender<Answer>,
    failures: BTreeMap<String, String>,
}

impl Reported {
    fn report(&mut self, answer: Answer) {
        match &answer {
            Ok(reading) => {
                self.failures.remove(&reading.name);
            }
            Err(Failure { name, why }) if self.failures.get(name) == Some(why) => return,
            Err(_) => {}
        }
        let failure = answer.as_ref().err().cloned();
        if self.sender.try_send(answer).is_ok()
            && let Some(Failure { name, why }) = failure
        {
            self.failures.insert(name, why);
        }
    }

    fn is_over(&self) -> bool {
        self.sender.is_closed()
    }
}

fn watch_local(roots: &Roots, mut reported: Reported, wake: &Receiver<()>) {
    loop {
        let began = Instant::now();
        local(roots).into_iter().for_each(|answer| reported.report(answer));
        if wake.recv_timeout(LOCAL) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        thread::sleep(LOCAL_LEAST.saturating_sub(began.elapsed()));
    }
}

fn watch_servers(servers: Vec<Server>, mut reported: Reported, wake: &Receiver<()>) {
    let now = Instant::now();
    let mut servers: Vec<_> = servers.into_iter().map(|server| (server, Schedule::new(now))).collect();
    loop {
        for (server, schedule) in servers.iter_mut().filter(|(_, schedule)| schedule.due <= Instant::now()) {
            if reported.is_over() {
                return;
            }
            let answer = sntp::ask(server);
            schedule.asked(
                Instant::now(),
                match &answer {
                    Ok(_) => Outcome::Answered,
                    Err(refusal) if refusal.kiss => Outcome::Kissed,
                    Err(_) => Outcome::Failed,
                },
            );
            reported.report(answer.map_err(|refusal| refusal.failure));
        }
        let due = servers.iter().map(|(_, schedule)| schedule.due).min().unwrap_or_else(Instant::now);
        match wake.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(()) => servers.iter_mut().for_each(|(_, schedule)| schedule.hurry()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{fact::ReferenceKind, reference::sntp::tests::fake};

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_failure_is_reported_once_until_it_changes_and_again_after_a_reading_or_if_it_could_not_be_taken() {
        let (sender, mut answers) = mpsc::channel(1);
        let mut reported = Reported { sender, failures: BTreeMap::new() };
        let failure = |why: &str| Err(Failure { name: "rtc0".into(), why: why.into() });
        let reading = || {
            let reading = crate::fact::Reading {
                boot_ns: 1,
                kind: ReferenceKind::Rtc,
                name: "rtc0".into(),
                utc_ns: 1,
                error_ns: 1,
            };
            Ok(reading)
        };
        let mut report = |answer: Answer| {
            reported.report(answer);
            answers.try_recv().is_ok()
        };
        assert!(report(failure("a")));
        assert!(!report(failure("a")));
        assert!(report(failure("b")) && report(reading()) && report(reading()) && report(failure("b")));
        reported.report(reading());
        reported.report(failure("c"));
        assert!(answers.try_recv().is_ok_and(|answer| answer.is_ok()) && answers.try_recv().is_err());
        reported.report(failure("c"));
        assert_eq!(answers.try_recv(), Ok(failure("c")));
    }

    #[tokio::test]
    async fn clocks_and_servers_answer_from_the_start_and_a_wish_is_heard_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let rtc = dir.path().join("class/rtc/rtc0");
        std::fs::create_dir_all(&rtc).expect("a directory");
        std::fs::write(rtc.join("since_epoch"), "1700000000").expect("a file");
        let roots = Roots { sysfs: dir.path().into(), dev: dir.path().into() };
        let mut watch = Watch::of(roots, vec![fake(1, Some)]).expect("threads");
        let mut wanted = vec![ReferenceKind::Rtc, ReferenceKind::Ntp];
        while !wanted.is_empty() {
            let answer = tokio::time::timeout(second(5), watch.next()).await.expect("in time");
            if let Some(Ok(reading)) = answer {
                wanted.retain(|kind| *kind != reading.kind);
            }
        }
        let wished = Instant::now();
        watch.ask_now();
        let mut kind = None;
        while kind != Some(ReferenceKind::Rtc) {
            let answer = tokio::time::timeout(second(5), watch.next()).await.expect("in time");
            kind = answer.and_then(Result::ok).map(|reading| reading.kind);
        }
        assert!(wished.elapsed() < LOCAL / 2);
        assert!(watch.try_next().is_none_or(|answer| answer.is_ok_and(|r| r.kind != ReferenceKind::Ntp)));
    }

    #[test]
    fn the_threads_end_with_the_watch() {
        static ENDED: AtomicBool = AtomicBool::new(false);
        let (_, answers) = mpsc::channel(1);
        let mut watch = Watch { answers, wakers: Vec::new() };
        let run = |wake: Receiver<()>| {
            let (sender, _) = mpsc::channel(1);
            let nowhere = Roots { sysfs: "/nonexistent".into(), dev: "/nonexistent".into() };
            watch_local(&nowhere, Reported { sender, failures: BTreeMap::new() }, &wake);
            ENDED.store(true, Ordering::SeqCst);
        };
        watch.spawn("test", run).expect("a thread");
        drop(watch);
        let begin = Instant::now();
        while !ENDED.load(Ordering::SeqCst) {
            assert!(begin.elapsed() < second(5), "it goes on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
