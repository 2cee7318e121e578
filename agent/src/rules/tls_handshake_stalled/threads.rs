//! What a thread was seen doing, in words.

use crate::known::context::{Posture, SeenThread};

/// What a thread was seen doing: `asleep in poll on … (do_sys_poll)`.
pub(super) fn thread_words(thread: &SeenThread) -> String {
    let seen = &thread.shown;
    let mut words = match thread.posture {
        Posture::Running => "running".to_owned(),
        Posture::Disk => "in uninterruptible sleep".into(),
        Posture::Stopped => "stopped".into(),
        Posture::Frozen => "frozen".into(),
        _ => "asleep".into(),
    };
    if let Some(call) = &seen.syscall {
        words.push_str(&format!(" in {call}"));
    }
    if !seen.waits_on.is_empty() {
        words.push_str(&format!(" on {}", seen.waits_on.join(", ")));
    }
    match thread.posture {
        Posture::EventLoop => words.push_str(" (its event loop)"),
        Posture::Threads => words.push_str(" (waiting for another thread)"),
        _ => {}
    }
    match &seen.wchan {
        Some(wchan) if seen.syscall.is_none() => words.push_str(&format!(" in the kernel's {wchan}")),
        _ => {}
    }
    words
}
