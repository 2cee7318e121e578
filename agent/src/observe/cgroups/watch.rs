//! Directories as they are made below one: a thread of its own, because what is made may be gone again in
//! milliseconds. It sleeps in the kernel until one is made.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    thread::Builder,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    process::setpriority_process,
};

use crate::observe::cgroups::walk;

/// Directories watched at most: half of what older kernels allow a user. Those beyond are reported when the one
/// above them is looked through, not those made in them.
const WATCHES: usize = 4096;
const WATCHED: WatchFlags = WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::ONLYDIR);
/// It reads names and walks directories, nothing deep.
const STACK_BYTES: usize = 256 << 10;
/// Before those who make and remove: a container may last for less than it takes to be scheduled.
const NICE: i32 = -10;

/// Ends the watch when dropped.
pub(super) struct Watch {
    _stop: io::PipeWriter,
}

impl Watch {
    /// Reports every directory below `root` and `root` itself, now and as they are made; one that is gone
    /// already, too, and some twice.
    pub(super) fn start(root: &Path, notify: impl Fn(&Path) + Send + 'static) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let (stopped, stop) = io::pipe()?;
        let mut watching = Watching { inotify, directories: HashMap::new(), notify };
        let root = root.to_owned();
        Builder::new().name("cgroups".into()).stack_size(STACK_BYTES).spawn(move || {
            // Of this thread alone, where that is allowed.
            let _ = setpriority_process(None, NICE);
            watching.enter(&root);
            // An error would be there again at once: a look finds what is there.
            while matches!(watching.wait(&stopped), Ok(true)) {
                if watching.read().is_err() {
                    // More happened than the kernel keeps in mind: what went is not known either.
                    watching.forget();
                    watching.enter(&root);
                }
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

struct Watching<T> {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
    notify: T,
}

/// Some were not reported.
struct Overflown;

impl<T: Fn(&Path)> Watching<T> {
    /// A directory and all below it.
    fn enter(&mut self, directory: &Path) {
        walk(directory, |directory| {
            // Watched before it is looked through: what is made meanwhile is reported twice rather than never.
            if self.directories.len() < WATCHES
                && let Ok(watch) = inotify::add_watch(&self.inotify, directory, WATCHED)
            {
                self.directories.insert(watch, directory.to_owned());
            }
            (self.notify)(directory);
        });
    }

    /// `false`: it is to end.
    fn wait(&self, stopped: &io::PipeReader) -> io::Result<bool> {
        let mut either = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        loop {
            match poll(&mut either, None) {
                Ok(_) => return Ok(either[1].revents().is_empty()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self) -> Result<(), Overflown> {
        let mut happened: Vec<(ReadFlags, PathBuf)> = Vec::new();
        let mut overflown = false;
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut room);
        // Whatever ends it, most likely that there is no more.
        while let Ok(event) = reader.next() {
            overflown |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if let (true, Some(name)) = (event.events().contains(ReadFlags::ISDIR), event.file_name())
                && let Some(above) = self.directories.get(&event.wd())
            {
                happened.push((event.events(), above.join(OsStr::from_bytes(name.to_bytes()))));
            }
        }
        for (what, directory) in happened {
            if what.contains(ReadFlags::CREATE) {
                self.enter(&directory);
            } else {
                self.leave(&directory);
            }
        }
        if overflown { Err(Overflown) } else { Ok(()) }
    }

    fn forget(&mut self) {
        for (watch, _) in self.directories.drain() {
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// The kernel does not end the watch of a cgroup that is removed, and keeps the cgroup's inode for it.
    fn leave(&mut self, directory: &Path) {
        let inotify = &self.inotify;
        self.directories.retain(|&watch, watched| {
            let stays = watched != directory;
            if !stays {
                let _ = inotify::remove_watch(inotify, watch);
            }
            stays
        });
    }
}
