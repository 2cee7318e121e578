//! What threads were seen doing, in words.

use crate::known::context::{Posture, SeenThread, Snapshot};

/// Sentences about the threads of a process at most.
const GROUPS: usize = 3;

/// What the threads of a process were doing, the commonest first: `3 of 4 threads: asleep in futex …`.
pub(super) fn doing(snapshot: &Snapshot) -> Vec<String> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for thread in &snapshot.threads {
        let what = thread_words(thread);
        match groups.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += 1,
            None => groups.push((what, 1)),
        }
    }
    groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    groups.truncate(GROUPS);
    let all = snapshot.threads.len();
    let sentence = |(what, number): (String, usize)| match (number, all) {
        (1, 1) => format!("Its only thread: {what}."),
        (number, _) => format!("{number} of {all} threads: {what}."),
    };
    groups.into_iter().map(sentence).collect()
}

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
