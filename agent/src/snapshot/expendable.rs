//! Looks at a process in a thread that may be left behind: what hangs its threads (a file system whose server is dead)
//! may hang those who look at their memory. A look that does not end in time is given up; how many hang at once is
//! bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

/// Looks that hang at a time, at most; while there are as many, no further one is begun.
const HANGING: u32 = 4;

/// Those that hang now.
static HANG: AtomicU32 = AtomicU32::new(0);
/// Those that did not end in time, or were not begun because too many hung.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// Looks that did not end in time since the start, those not begun because too many hung among them.
pub fn unfinished() -> u64 {
    UNFINISHED.load(Ordering::Relaxed)
}

/// What a look finds, if it ends in time. `None`: it did not, and its thread is left behind; or too many hang.
pub(super) fn within<T: Send + 'static>(
    patience: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let found = attempt(&HANG, patience, look);
    if found.is_none() {
        UNFINISHED.fetch_add(1, Ordering::Relaxed);
    }
    found
}

fn attempt<T: Send + 'static>(
    hang: &'static AtomicU32,
    patience: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if hang.load(Ordering::Relaxed) >= HANGING {
        return None;
    }
    // The one that is second, the look that ends or the patience that does, knows of the other.
    let first = Arc::new(AtomicBool::new(true));
    let (report, reported) = sync_channel(1);
    let looks = {
        let first = Arc::clone(&first);
        move || {
            let found = look();
            if first.swap(false, Ordering::SeqCst) {
                // Only a caller that panics is not there.
                let _ = report.send(found);
            } else {
                hang.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    thread::Builder::new().name("look".into()).spawn(looks).ok()?;
    match reported.recv_timeout(patience) {
        Ok(found) => Some(found),
        // It panicked.
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) if first.swap(false, Ordering::SeqCst) => {
            hang.fetch_add(1, Ordering::Relaxed);
            None
        }
        // It ended at this very moment.
        Err(RecvTimeoutError::Timeout) => reported.recv().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, time::Instant};

    use super::*;

    #[test]
    fn a_look_that_hangs_is_left_behind_and_only_so_many_are() {
        static HANG: AtomicU32 = AtomicU32::new(0);
        const SHORT: Duration = Duration::from_millis(1);
        assert_eq!(attempt(&HANG, Duration::from_secs(60), || 7), Some(7));
        let mut hanging = Vec::new();
        for _ in 0..HANGING {
            let (end, ends) = channel::<()>();
            assert_eq!(attempt(&HANG, SHORT, move || ends.recv().is_ok()), None);
            hanging.push(end);
        }
        let began = Instant::now();
        assert_eq!(attempt(&HANG, Duration::from_secs(60), || 7), None, "as many hang as may");
        assert!(began.elapsed() < Duration::from_secs(30), "it was not even begun");
        for end in hanging {
            end.send(()).expect("it waits for that");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while HANG.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "those that end are no longer counted");
            thread::sleep(SHORT);
        }
        assert_eq!(attempt(&HANG, Duration::from_secs(60), || 7), Some(7));
    }
}
