//! Which processes there are, whose children they are and when they began, by `/proc`.

use std::fs;

use procfs::process::Stat;

/// Threads of one process whose names are read, at most.
const THREADS: usize = 32_768;

/// Every process there is.
pub fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process that has a thread of one of these names now.
pub fn named(names: &[String]) -> Vec<u32> {
    pids().filter(|&pid| has_thread_named(pid, names)).collect()
}

/// Whether a thread of a process has one of these names now.
pub(super) fn has_thread_named(pid: u32, names: &[String]) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.take(THREADS).any(|thread| {
        let comm = fs::read(thread.path().join("comm")).unwrap_or_default();
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        names.iter().any(|name| name.as_bytes() == comm)
    })
}

/// Every process and its descendants that run now.
pub fn with_descendants(processes: &[u32]) -> Vec<u32> {
    let mut all: Vec<u32> = processes.to_vec();
    let parents: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    loop {
        let before = all.len();
        for &(pid, parent) in &parents {
            if all.contains(&parent) && !all.contains(&pid) {
                all.push(pid);
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

pub(super) fn parent(pid: u32) -> Option<u32> {
    parent_and_start(pid).map(|(parent, _)| parent)
}

/// Parent of a process and CLOCK_BOOTTIME of its start in nanoseconds, to the clock tick.
pub fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = stat(pid)?;
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    Some((u32::try_from(stat.ppid).ok()?, stat.starttime.saturating_mul(1_000_000_000 / hertz)))
}

/// Whether a process has ended and is only not waited for yet.
pub fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| matches!(stat.state, 'Z' | 'X'))
}

fn stat(pid: u32) -> Option<Stat> {
    procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_any_thread_s_name() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let named_so = std::thread::Builder::new().name("finch;\u{e9}".into());
        let thread = named_so.spawn(move || wait.recv()).expect("a thread");
        let (own, names) = (std::process::id(), ["other".to_owned(), "finch;\u{e9}".to_owned()]);
        while !has_thread_named(own, &names) {
            assert!(!thread.is_finished(), "the thread was never seen by its name");
            std::thread::yield_now();
        }
        assert!(named(&names).contains(&own) && !has_thread_named(own, &["finch".to_owned()]));
        drop(done);
        thread.join().expect("it only waits").expect_err("nothing sends");
    }

    #[test]
    fn a_process_whose_name_is_no_text_has_a_parent_nevertheless() {
        let directory = tempfile::tempdir().expect("a directory");
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a) \xff(");
        let program = directory.path().join(name);
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
        let mut child = std::process::Command::new(&program).arg("60").spawn().expect("it runs");
        let seen = parent(child.id());
        child.kill().expect("our child");
        child.wait().expect("our child");
        assert_eq!(seen, Some(std::process::id()));
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
