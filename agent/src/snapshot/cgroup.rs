//! What a process's control groups hold it to: frozen, a CPU quota and how often that was used up, memory above which it
//! is slowed. Both cgroup versions, where this machine has them mounted; of nested groups the tightest. Where nothing
//! can be read nothing is claimed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::known::context::{CgroupLimits, MemoryHigh, Quota};

/// Groups above a process looked at, at most.
const DEPTH: usize = 16;
/// Whose mounts are looked at, and below what they lie; in a container the host's are seen through its first process.
const VIEWS: [(&str, &str); 2] = [("/proc/self/mountinfo", "/"), ("/proc/1/mountinfo", "/proc/1/root")];

/// Looks at the groups of a process.
pub(super) fn look(proc: &Path) -> CgroupLimits {
    let table = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
    let mounted: Vec<Hierarchy> = VIEWS.iter().flat_map(|(table, root)| hierarchies(table, root)).collect();
    let mut limits = CgroupLimits::default();
    for line in table.lines() {
        let mut columns = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (columns.next(), columns.next()) else { continue };
        let wanted =
            ["cpu", "freezer"].into_iter().find(|wanted| controllers.split(',').any(|one| one == *wanted));
        if wanted.is_none() && !controllers.is_empty() {
            continue;
        }
        let of_it = mounted.iter().filter(|hierarchy| hierarchy.has(wanted));
        let groups = of_it.map(|hierarchy| hierarchy.groups(path)).find(|groups| !groups.is_empty());
        for group in groups.unwrap_or_default() {
            tighten(&mut limits, &group);
        }
    }
    limits
}

/// Takes over what a group holds its processes to, where that is tighter.
fn tighten(limits: &mut CgroupLimits, group: &Path) {
    let name = || Some(group.to_string_lossy().into_owned());
    if !limits.frozen && is_frozen(group) {
        (limits.frozen, limits.frozen_group) = (true, name());
    }
    if let Some(quota) = quota(group)
        && limits.quota.is_none_or(|known| quota.share() > known.share())
    {
        (limits.quota, limits.quota_group) = (Some(quota), name());
    }
    if let Some(memory) = memory(group)
        && limits.memory.as_ref().is_none_or(|known| memory.room() < known.room())
    {
        limits.memory = Some(memory);
    }
}

/// A mounted hierarchy of control groups.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Of version 1, its controllers; of version 2 none are named.
    controllers: Option<Vec<String>>,
    /// The group that is mounted.
    root: PathBuf,
    point: PathBuf,
}

fn hierarchies(table: &str, below: &str) -> Vec<Hierarchy> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let mut mounted: Vec<Hierarchy> = text.lines().filter_map(hierarchy).collect();
    for one in &mut mounted {
        one.point = Path::new(below).join(one.point.strip_prefix("/").unwrap_or(&one.point));
    }
    mounted
}

/// `32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu`.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (place, what) = line.split_once(" - ")?;
    let controllers = match what.split_once(' ')? {
        ("cgroup2", _) => None,
        ("cgroup", options) => Some(options.rsplit(' ').next()?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    let mut place = place.split(' ').skip(3);
    Some(Hierarchy { controllers, root: place.next()?.into(), point: place.next()?.into() })
}

impl Hierarchy {
    /// The one with a controller of version 1; without one, that of version 2.
    fn has(&self, controller: Option<&str>) -> bool {
        match (&self.controllers, controller) {
            (None, None) => true,
            (Some(known), Some(wanted)) => known.iter().any(|known| known == wanted),
            _ => false,
        }
    }

    /// A group and those above it, the root left out; none where it cannot be seen.
    fn groups(&self, path: &str) -> Vec<PathBuf> {
        let path = Path::new(path);
        let path = path.strip_prefix(&self.root).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        if !self.point.join(path).join("cgroup.procs").exists() {
            return vec![];
        }
        let below = path.ancestors().take(DEPTH).filter(|path| !path.as_os_str().is_empty());
        below.map(|path| self.point.join(path)).collect()
    }
}

/// The memory above which a group's processes are slowed.
fn memory(group: &Path) -> Option<MemoryHigh> {
    let bytes = |name: &str| read(group, name).trim().parse().ok();
    Some(MemoryHigh {
        current_bytes: bytes("memory.current")?,
        high_bytes: bytes("memory.high")?,
        group: group.to_string_lossy().into_owned(),
    })
}

fn is_frozen(group: &Path) -> bool {
    number(&read(group, "cgroup.events"), "frozen") == Some(1)
        || read(group, "freezer.state").trim() == "FROZEN"
}

fn quota(group: &Path) -> Option<Quota> {
    let max = read(group, "cpu.max");
    let (allowed_us, period_us) = match max.split_once(' ') {
        Some((allowed, period)) => (allowed.parse().ok()?, period.trim().parse().ok()?),
        None => {
            let one = |name: &str| read(group, name).trim().parse().ok();
            (one("cpu.cfs_quota_us")?, one("cpu.cfs_period_us")?)
        }
    };
    let stat = read(group, "cpu.stat");
    let (periods, throttled) = (number(&stat, "nr_periods")?, number(&stat, "nr_throttled")?);
    Some(Quota { allowed_us, period_us, periods, throttled })
}

fn read(group: &Path, name: &str) -> String {
    fs::read_to_string(group.join(name)).unwrap_or_default()
}

/// `name 17` on a line of its own.
fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(known, _)| *known == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_of_either_version_and_an_unlimited_group_has_none() {
        let scratch = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(scratch.path().join(name), text).expect("our own");
        let stat = "nr_periods 100\nnr_throttled 98\nthrottled_time 7\n";
        write("cpu.stat", stat);
        write("cpu.max", "1000 100000\n");
        let expected = Quota { allowed_us: 1000, period_us: 100_000, periods: 100, throttled: 98 };
        assert_eq!(quota(scratch.path()), Some(expected));
        write("cpu.max", "max 100000\n");
        assert_eq!(quota(scratch.path()), None);
        fs::remove_file(scratch.path().join("cpu.max")).expect("our own");
        write("cpu.cfs_period_us", "100000\n");
        write("cpu.cfs_quota_us", "-1\n");
        assert_eq!(quota(scratch.path()), None);
        write("cpu.cfs_quota_us", "1000\n");
        assert_eq!(quota(scratch.path()), Some(expected));
        assert!(!is_frozen(scratch.path()));
        write("cgroup.events", "populated 1\nfrozen 1\n");
        assert!(is_frozen(scratch.path()));
        write("memory.current", "4096\n");
        write("memory.high", "max\n");
        assert_eq!(memory(scratch.path()), None);
        write("memory.high", "2048\n");
        assert_eq!(memory(scratch.path()).map(|memory| memory.room()), Some(0));
    }

    #[test]
    fn a_hierarchy_is_found_where_it_is_mounted() {
        let of = |line| hierarchy(line).expect("a hierarchy");
        let cpu = of("32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct");
        assert!(cpu.has(Some("cpu")) && !cpu.has(Some("freezer")) && !cpu.has(None));
        let unified = of("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw");
        assert!(unified.has(None) && !unified.has(Some("cpu")));
        assert_eq!(unified.point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(hierarchy("24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw"), None);
    }

    #[test]
    fn a_group_is_followed_by_those_above_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let group = scratch.path().join("a/b");
        fs::create_dir_all(&group).expect("our own");
        fs::write(group.join("cgroup.procs"), "").expect("our own");
        let of =
            |root: &str| Hierarchy { controllers: None, root: root.into(), point: scratch.path().into() };
        let expected = [group, scratch.path().join("a")];
        assert_eq!(of("/").groups("/a/b"), expected);
        // A container sees its own group as the root of the mount.
        assert_eq!(of("/machine").groups("/machine/a/b"), expected);
        assert_eq!(of("/").groups("/a/c"), [] as [PathBuf; 0]);
    }
}
