//! What threads were seen doing, in words.

use crate::known::context::{SeenThread, Snapshot};

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

/// What a thread was seen doing.
pub(super) fn thread_words(thread: &SeenThread) -> String {
    thread.words()
}
