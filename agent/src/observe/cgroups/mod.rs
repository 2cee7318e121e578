//! Which cgroup a number stands for: for processes that are gone before `/proc` could be asked. The kernel
//! notes a cgroup's id with whatever a process does; the id is the inode number of its directory. Cgroups are
//! watched as they are made, for a container may be gone when its number is asked about.

mod watch;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use watch::Watch;

use crate::known::bounded::Bounded;

/// Cgroups remembered at most.
const CGROUPS: usize = 8192;
/// Directories looked through at most for those not known yet, and how often at most.
const DIRECTORIES: usize = 65_536;
const EVERY: Duration = Duration::from_secs(1);

/// Paths by id.
pub(super) struct Cgroups {
    root: PathBuf,
    known: Arc<Mutex<Bounded<u64, String>>>,
    looked: Option<Instant>,
    _watch: Option<Watch>,
}

impl Cgroups {
    /// Those below the host's cgroup v2 root.
    pub(super) fn new(root: PathBuf) -> Self {
        let mut cgroups = Self::unwatched(root);
        let (root, known) = (cgroups.root.clone(), cgroups.known.clone());
        let watch = Watch::start(&cgroups.root, move |directory| note(&known, &root, directory));
        cgroups._watch = watch
            .inspect_err(|error| {
                tracing::warn!("cgroups cannot be watched as they are made: {error}");
            })
            .ok();
        cgroups
    }

    fn unwatched(root: PathBuf) -> Self {
        Self { root, known: Arc::new(Mutex::new(Bounded::new(CGROUPS))), looked: None, _watch: None }
    }

    /// The path of a cgroup below the root, as `/proc/PID/cgroup` has it; of one that is gone, if it was seen.
    pub(super) fn path(&mut self, id: u64) -> Option<String> {
        if id == 0 {
            return None;
        }
        let known = lock(&self.known).get(&id).cloned();
        if known.is_none() && self.looked.is_none_or(|at| at.elapsed() >= EVERY) {
            self.looked = Some(Instant::now());
            walk(&self.root, |directory| {
                note(&self.known, &self.root, directory);
            });
            return lock(&self.known).get(&id).cloned();
        }
        known
    }
}

fn lock(known: &Mutex<Bounded<u64, String>>) -> MutexGuard<'_, Bounded<u64, String>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a cgroup, if it is still there.
fn note(known: &Mutex<Bounded<u64, String>>, root: &Path, directory: &Path) {
    let Ok(metadata) = fs::metadata(directory) else { return };
    let below = directory.strip_prefix(root).unwrap_or(Path::new(""));
    lock(known).insert(metadata.ino(), format!("/{}", below.display()));
}

/// A directory and all below it, those above first.
fn walk(directory: &Path, mut each: impl FnMut(&Path)) {
    let mut left = vec![directory.to_owned()];
    for _ in 0..DIRECTORIES {
        let Some(directory) = left.pop() else { return };
        each(&directory);
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_by_its_number_and_one_made_later_too() {
        let root = tempfile::tempdir().expect("a place for it");
        let inner = root.path().join("system.slice/web.service");
        fs::create_dir_all(&inner).expect("our own directory");
        let id = |path: &Path| fs::metadata(path).expect("just made").ino();
        let mut cgroups = Cgroups::unwatched(root.path().to_owned());
        assert_eq!(cgroups.path(id(&inner)).as_deref(), Some("/system.slice/web.service"));
        assert_eq!(cgroups.path(id(root.path())).as_deref(), Some("/"));
        assert_eq!((cgroups.path(0), cgroups.path(u64::MAX)), (None, None));
        let later = root.path().join("later.scope");
        fs::create_dir(&later).expect("our own directory");
        // Not looked for again within a second.
        assert_eq!(cgroups.path(id(&later)), None);
        cgroups.looked = None;
        assert_eq!(cgroups.path(id(&later)).as_deref(), Some("/later.scope"));
    }

    #[test]
    fn one_that_is_gone_was_seen_when_it_was_made() {
        let root = tempfile::tempdir().expect("a place for it");
        fs::create_dir(root.path().join("docker")).expect("our own directory");
        let mut cgroups = Cgroups::new(root.path().to_owned());
        let id = |path: &Path| fs::metadata(path).expect("just made").ino();
        let eventually = |cgroups: &mut Cgroups, id: u64| {
            (0..500).find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                lock(&cgroups.known).get(&id).cloned()
            })
        };
        let docker = id(&root.path().join("docker"));
        assert_eq!(eventually(&mut cgroups, docker).as_deref(), Some("/docker"));
        let container = root.path().join("docker/1/inner");
        fs::create_dir_all(&container).expect("our own directory");
        let gone = id(&container);
        assert_eq!(eventually(&mut cgroups, gone).as_deref(), Some("/docker/1/inner"));
        fs::remove_dir_all(root.path().join("docker/1")).expect("our own directory");
        assert_eq!(cgroups.path(gone).as_deref(), Some("/docker/1/inner"));
    }
}
