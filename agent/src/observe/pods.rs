//! What Kubernetes calls a container: pod, namespace and container name by the container's id, from the links the
//! kubelet makes for every container's log. It makes one a moment after the container has started: whose names are
//! not there yet waits for them. Refuses to know anything the links do not say.

use std::{
    collections::VecDeque,
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use crate::known::{bounded::Bounded, context::ProcessContext};

/// Where the kubelet makes the links.
pub const LINKS: &str = "/var/log/containers";
/// Where they are, seen from the host or from a container of ours.
const PLACES: [&str; 2] = [LINKS, "/proc/1/root/var/log/containers"];
/// Containers whose names are remembered; the oldest give way, and are looked up again when they are asked for.
const CONTAINERS: usize = 8192;
/// Processes that wait for names at most; the one that waits longest gives way.
const WAITING: usize = 1024;
/// Whose names are not there by then is no container of the kubelet's.
const PATIENCE: Duration = Duration::from_secs(60);
/// The links are looked at again for those who wait at most this often.
const EVERY: Duration = Duration::from_millis(200);

/// Whether there is a kubelet that names pods, as far as can be seen: a place that may not be looked at may have one.
pub fn kubelet() -> bool {
    PLACES.iter().any(|place| match fs::metadata(place) {
        Ok(place) => place.is_dir(),
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    })
}

/// A process whose container's names are not known yet.
pub(super) struct Waiting {
    pub(super) context: ProcessContext,
    pub(super) cgroup: u64,
    pub(super) cgroups: Vec<String>,
    pub(super) vouched: bool,
    pub(super) since: Instant,
}

/// The names.
pub(super) struct Pods {
    places: Vec<String>,
    known: Bounded<String, [String; 3]>,
    /// When each place changed last, as it was read.
    read: Vec<Option<(i64, i64)>>,
    waiting: VecDeque<Waiting>,
    looked: Option<Instant>,
}

impl Default for Pods {
    fn default() -> Self {
        Self::below(PLACES.map(str::to_owned).to_vec(), CONTAINERS)
    }
}

impl Pods {
    fn below(places: Vec<String>, containers: usize) -> Self {
        let read = vec![None; places.len()];
        Self { places, known: Bounded::new(containers), read, waiting: VecDeque::new(), looked: None }
    }

    /// Pod, namespace and container name of a container id.
    pub(super) fn names(&mut self, id: &str) -> Option<[String; 3]> {
        if let Some(known) = self.known.get(&id.to_owned()) {
            return Some(known.clone());
        }
        let mut found = None;
        for at in 0..self.places.len() {
            let place = &self.places[at];
            let changed = fs::metadata(place).ok().map(|place| (place.mtime(), place.mtime_nsec()));
            // Those that gave way are in a directory that has not changed.
            if changed.is_none() || (changed == self.read[at] && self.known.evicted() == 0) {
                continue;
            }
            // A change within the same tick of the clock is not seen by its time: read again next time.
            let settled = |(seconds, _): &(i64, i64)| {
                let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
                now.abs_diff(u64::try_from(*seconds).unwrap_or(0)) > 1
            };
            self.read[at] = changed.filter(settled);
            let Ok(entries) = fs::read_dir(place) else { continue };
            for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
                let Some((link, names)) = log_link(&name) else { continue };
                if link == id {
                    found = Some(names);
                } else if self.known.get(&link).is_none() {
                    self.known.insert(link, names);
                }
            }
        }
        // Last, so that nothing of the same look makes it give way.
        if let Some(names) = &found {
            self.known.insert(id.to_owned(), names.clone());
        }
        found
    }

    /// A process of a pod whose names are not known.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.retain(|other| other.context.pid != waiting.context.pid);
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(waiting);
    }

    /// Those whose names have come.
    pub(super) fn named_late(&mut self) -> Vec<(Waiting, [String; 3])> {
        if self.waiting.is_empty() || self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return vec![];
        }
        self.looked = Some(Instant::now());
        let mut named = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let id = waiting.context.container_id.clone().unwrap_or_default();
            match self.names(&id) {
                Some(names) => named.push((waiting, names)),
                None if waiting.since.elapsed() < PATIENCE => self.waiting.push_back(waiting),
                None => {}
            }
        }
        named
    }
}

/// `<pod>_<namespace>_<container>-<id>.log`, as the kubelet links every container's log.
fn log_link(name: &str) -> Option<(String, [String; 3])> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut names = names.splitn(3, '_').map(str::to_owned);
    Some((id.to_owned(), [names.next()?, names.next()?, names.next()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d3f4b1c0d";

    #[test]
    fn the_kubelets_log_links_name_pod_namespace_and_container() {
        let (id, names) = log_link(&format!("web-7d4_shop_nginx-{ID}.log")).expect("a log link");
        assert_eq!((id.as_str(), names), (ID, ["web-7d4".into(), "shop".into(), "nginx".into()]));
    }

    #[test]
    fn however_many_containers_there_are_the_one_asked_for_is_named() {
        let place = tempfile::tempdir().expect("a place for them");
        let link = |number: usize| format!("{number:064x}");
        let make = |numbers: std::ops::Range<usize>| {
            for number in numbers {
                let name = format!("pod{number}_shop_web-{}.log", link(number));
                fs::write(place.path().join(name), "").expect("our own directory");
            }
        };
        let mut pods = Pods::below(vec![place.path().to_string_lossy().into_owned()], 8);
        make(0..40);
        for number in (0..40).chain([0, 39, 7]) {
            assert_eq!(pods.names(&link(number)).map(|[pod, ..]| pod), Some(format!("pod{number}")));
        }
        assert_eq!(pods.names(&link(40)), None);
        make(40..41);
        assert_eq!(pods.names(&link(40)).map(|[pod, ..]| pod), Some("pod40".to_owned()));
    }

    #[test]
    fn who_came_before_the_link_is_named_when_it_is_there() {
        let place = tempfile::tempdir().expect("a place for it");
        let mut pods = Pods::below(vec![place.path().to_string_lossy().into_owned()], 8);
        let context =
            ProcessContext { pid: 7, container_id: Some(ID.to_owned()), ..ProcessContext::default() };
        pods.wait(Waiting { context, cgroup: 0, cgroups: vec![], vouched: true, since: Instant::now() });
        assert!(pods.named_late().is_empty());
        fs::write(place.path().join(format!("web-7d4_shop_nginx-{ID}.log")), "").expect("our own directory");
        pods.looked = None;
        let named = pods.named_late();
        assert_eq!((named.len(), named[0].0.context.pid, named[0].1[0].as_str()), (1, 7, "web-7d4"));
        pods.looked = None;
        assert!(pods.named_late().is_empty());
    }
}
