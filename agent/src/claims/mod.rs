//! Who else claims an address of this host, and which of its addresses duplicate address detection refused, in every network
//! namespace: no tracepoint shows it. A thread of its own holds two sockets and the kernel's notifications in each.
//!
//! Sockets keep a namespace alive. They are closed within milliseconds of the removal of its name or the end of the process
//! it was found by, unless something else keeps it. What comes is taken twenty milliseconds apart, so much a time.

mod ask;
mod filter;
mod packet;
mod place;
mod sockets;

use std::{
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

pub use ask::ask;
use place::Place;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open, setrlimit},
};

use crate::{
    known::context::Context,
    namespaces::{self, Found, NAMES},
};

/// Namespaces watched at most.
const NAMESPACES: usize = 128;
/// How often it is looked which there are, when nothing says that there are others.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A name is there before its namespace is: it is looked so long after it has come, and after the look before.
const SETTLES: [Duration; 3] =
    [Duration::from_millis(30), Duration::from_millis(200), Duration::from_millis(1000)];
/// What comes within this long is taken together.
const PAUSE: Duration = Duration::from_millis(20);
/// News that wait to be taken, at most.
const WAITING: usize = 256;

/// What is counted.
#[derive(Debug, Default)]
pub struct Counts {
    watched: AtomicU64,
    refused: AtomicU64,
    packets: AtomicU64,
    dropped: AtomicU64,
    left_out: AtomicU64,
}

/// The same, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Namespaces that are watched.
    pub watched: u64,
    /// Namespaces that are not: there are too many, or they could not be entered.
    pub refused: u64,
    /// Packets taken that speak for an own address.
    pub packets: u64,
    /// Packets the kernel dropped because they were not taken in time.
    pub dropped: u64,
    /// Addresses and claims that were left out for want of room.
    pub left_out: u64,
}

/// The thread that watches; it ends when this is dropped.
pub struct Watch {
    news: Receiver<Context>,
    counts: Arc<Counts>,
    _stop: io::PipeWriter,
}

impl Watch {
    /// Watches every namespace there is, and those that will be.
    ///
    /// # Errors
    /// There are no descriptors left, or no thread can be started.
    pub fn start() -> io::Result<Self> {
        more_descriptors();
        let (report, news) = sync_channel(WAITING);
        let (stopped, stop) = io::pipe()?;
        let counts = Arc::<Counts>::default();
        let mut watching = Watching {
            places: BTreeMap::new(),
            names: names().ok(),
            counts: counts.clone(),
            report,
            warned: 0,
        };
        watching.look();
        thread::Builder::new().name("claims".into()).spawn(move || watching.run(&stopped))?;
        Ok(Self { news, counts, _stop: stop })
    }

    /// What has happened since this was asked last: to addresses, and names of the namespaces that are watched.
    pub fn news(&self) -> impl Iterator<Item = Context> {
        self.news.try_iter()
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let Counts { watched, refused, packets, dropped, left_out } = &*self.counts;
        let [watched, refused, packets, dropped, left_out] =
            [watched, refused, packets, dropped, left_out].map(|count| count.load(Relaxed));
        Counted { watched, refused, packets, dropped, left_out }
    }
}

/// Whether this could be watched here: how many namespaces, and the first that refuses, and why.
pub fn attempt() -> (usize, Option<(u32, io::Error)>) {
    let mut refused = None;
    let mut places = BTreeMap::new();
    let found = namespaces::find().unwrap_or_default();
    for (inode, opened) in open(found.into_iter().take(NAMESPACES).collect()) {
        match opened {
            Ok(watched) => {
                places.insert(inode, watched);
            }
            Err(error) => refused = refused.or(Some((inode, error))),
        }
    }
    (places.len(), refused)
}

/// Half of what is usual would be gone; what is allowed is not always granted.
fn more_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = 4096;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Says when names of namespaces come and go.
fn names() -> io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
    for directory in NAMES {
        // It may be made later: then the next look finds what is in it.
        let _ = inotify::add_watch(&inotify, Path::new(directory), what);
    }
    Ok(inotify)
}

/// A namespace, and the process it was found by.
struct Watched {
    place: Place,
    found: Found,
    keeper: Option<OwnedFd>,
}

struct Watching {
    places: BTreeMap<u32, Watched>,
    names: Option<OwnedFd>,
    counts: Arc<Counts>,
    report: SyncSender<Context>,
    /// As many were refused when that was said last.
    warned: u64,
}

/// What a wait ended with.
#[derive(Default)]
struct Woken {
    stop: bool,
    /// Names have come or gone.
    names: bool,
    /// A process has ended that one was found by.
    ended: bool,
    places: Vec<u32>,
}

impl Watching {
    fn run(mut self, stopped: &io::PipeReader) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        // Looks since names have come or gone.
        let mut looks = SETTLES.len();
        loop {
            let Ok(woken) = self.wait(stopped, look_at.saturating_duration_since(Instant::now())) else {
                return;
            };
            if woken.stop {
                return;
            }
            if woken.names {
                self.read_names();
                // What is gone is let go at once.
                looks = 0;
                look_at = Instant::now() + SETTLES[0];
            }
            if woken.names || woken.ended {
                self.leave();
            }
            for inode in woken.places {
                self.take(inode);
            }
            if Instant::now() >= look_at {
                looks = looks.saturating_add(1);
                look_at = Instant::now() + SETTLES.get(looks).copied().unwrap_or(LOOK_EVERY);
                self.look();
            }
            thread::sleep(PAUSE);
        }
    }

    fn wait(&self, stopped: &io::PipeReader, at_most: Duration) -> rustix::io::Result<Woken> {
        enum For {
            Stop,
            Names,
            End,
            Place(u32),
        }
        let mut all = vec![PollFd::new(stopped, PollFlags::IN)];
        let mut what = vec![For::Stop];
        if let Some(names) = &self.names {
            all.push(PollFd::new(names, PollFlags::IN));
            what.push(For::Names);
        }
        for (inode, watched) in &self.places {
            if let Some(keeper) = &watched.keeper {
                all.push(PollFd::new(keeper, PollFlags::IN));
                what.push(For::End);
            }
            for fd in watched.place.descriptors() {
                all.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                what.push(For::Place(*inode));
            }
        }
        let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
        match poll(&mut all, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut woken = Woken::default();
        for (fd, what) in all.iter().zip(what).filter(|(fd, _)| !fd.revents().is_empty()) {
            debug_assert!(!fd.revents().contains(PollFlags::NVAL));
            match what {
                For::Stop => woken.stop = true,
                For::Names => woken.names = true,
                For::End => woken.ended = true,
                For::Place(inode) if woken.places.last() != Some(&inode) => woken.places.push(inode),
                For::Place(_) => {}
            }
        }
        Ok(woken)
    }

    fn read_names(&self) {
        let Some(names) = &self.names else { return };
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(names, &mut room);
        // Whatever was said, it is looked at what there is.
        while reader.next().is_ok_and(|event| !event.events().contains(ReadFlags::QUEUE_OVERFLOW)) {}
    }

    fn take(&mut self, inode: u32) {
        let Some(watched) = self.places.get_mut(&inode) else { return };
        let (report, counts) = (&self.report, &self.counts);
        watched.place.take(&mut |news| {
            if report.try_send(Context::OwnAddress(Box::new(news))).is_err() {
                counts.left_out.fetch_add(1, Relaxed);
            }
        });
        let dropped = watched.place.newly_dropped();
        counts.dropped.fetch_add(dropped, Relaxed);
        counts.packets.fetch_add(std::mem::take(&mut watched.place.packets), Relaxed);
        counts.left_out.fetch_add(std::mem::take(&mut watched.place.left_out), Relaxed);
        if watched.place.overrun {
            // The next look opens it again.
            let gone: Vec<_> = self.places.remove(&inode).into_iter().collect();
            self.end(gone);
        }
    }

    /// Lets go of what nothing else keeps.
    fn leave(&mut self) {
        let Ok(found) = namespaces::find() else { return };
        let gone: Vec<_> =
            self.places.extract_if(.., |inode, _| !found.contains_key(inode)).map(|(_, gone)| gone).collect();
        self.end(gone);
        for (inode, watched) in &mut self.places {
            if let Some(now) = found.get(inode)
                && *now != watched.found
            {
                watched.found = now.clone();
                watched.keeper = keeper(*inode, now);
            }
        }
    }

    /// Lets go of them: what was reported of their addresses is over.
    fn end(&self, gone: Vec<Watched>) {
        for news in gone.into_iter().flat_map(|watched| watched.place.at_end()) {
            let _ = self.report.try_send(Context::OwnAddress(Box::new(news)));
        }
    }

    /// Says what it is called: nothing else may have happened there.
    fn introduce(&self, watched: &Watched) {
        let ebpf_probes::abi::Netns { inode, generation } = watched.place.netns();
        if let Some(name) = watched.found.name.clone() {
            let _ = self.report.try_send(Context::Netns { inode, generation, name });
        }
    }

    /// What there is now.
    fn look(&mut self) {
        self.leave();
        let Ok(mut found) = namespaces::find() else { return };
        found.retain(|inode, _| !self.places.contains_key(inode));
        let room = NAMESPACES.saturating_sub(self.places.len());
        let mut refused = found.len().saturating_sub(room) as u64;
        for (inode, opened) in open(found.into_iter().take(room).collect()) {
            match opened {
                Ok(mut watched) => {
                    self.introduce(&watched);
                    for news in watched.place.at_start() {
                        let _ = self.report.try_send(Context::OwnAddress(Box::new(news)));
                    }
                    self.places.insert(inode, watched);
                }
                // It was gone before it was entered.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    refused += 1;
                    tracing::debug!("net:[{inode}] is not watched for claims of its addresses: {error}");
                }
            }
        }
        self.counts.watched.store(self.places.len() as u64, Relaxed);
        self.counts.refused.store(refused, Relaxed);
        if refused > self.warned {
            self.warned = refused;
            tracing::warn!(
                "{refused} network namespaces are not watched for other hosts that claim their addresses (culprit doctor says why)"
            );
        }
    }
}

/// Opens them, from a thread that ends with it: the own one first, from where it is.
fn open(found: Vec<(u32, Found)>) -> Vec<(u32, io::Result<Watched>)> {
    if found.is_empty() {
        return vec![];
    }
    let own = namespaces::own();
    let visit = move || {
        let mut found = found;
        found.sort_by_key(|(inode, _)| own.is_none_or(|own| own.inode != *inode));
        let visited = found.into_iter().map(|(inode, found)| {
            let opened = namespaces::enter(&found.path, own).and_then(|netns| {
                // The number may be another's by now.
                if netns.inode != inode {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let keeper = keeper(inode, &found);
                Ok(Watched { place: Place::open(netns)?, found, keeper })
            });
            (inode, opened)
        });
        visited.collect()
    };
    let visitor = thread::Builder::new().name("claims".into()).spawn(visit);
    visitor.ok().and_then(|visitor| visitor.join().ok()).unwrap_or_default()
}

/// Says when the process ends by which a namespace was found.
fn keeper(inode: u32, found: &Found) -> Option<OwnedFd> {
    let process = found.path.strip_prefix("/proc").ok()?.iter().next()?.to_str()?.parse().ok()?;
    let keeper = pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
    // Its number may be another's by now.
    let link = std::fs::read_link(&found.path).ok()?;
    (link.to_str() == Some(&format!("net:[{inode}]"))).then_some(keeper)
}
