//! What a process's control group holds it to: frozen, or a CPU quota and how often that was used up. Both
//! cgroup versions; of nested groups the tightest. Where nothing can be read nothing is claimed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::known::context::{CgroupLimits, Quota};

/// Groups above a process looked at, at most.
const DEPTH: usize = 16;
/// Where the hierarchies are usually mounted; in a container the host's are seen through its first process.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"];

/// Looks at the groups of a process.
pub(super) fn look(proc: &Path) -> CgroupLimits {
    let table = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
    let mut limits = CgroupLimits::default();
    for line in table.lines() {
        let mut columns = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (columns.next(), columns.next()) else { continue };
        let has = |name: &str| controllers.split(',').any(|controller| controller == name);
        let mounts: &[&str] = match controllers {
            "" => &["", "unified"],
            _ if has("cpu") => &["cpu", "cpu,cpuacct"],
            _ if has("freezer") => &["freezer"],
            _ => continue,
        };
        for group in groups(mounts, path) {
            limits.frozen |= is_frozen(&group);
            if let Some(quota) = quota(&group)
                && limits.quota.is_none_or(|known| quota.share() > known.share())
            {
                limits.quota = Some(quota);
            }
        }
    }
    limits
}

/// A group and those above it, the root left out.
fn groups(mounts: &[&str], path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let root = ROOTS
        .iter()
        .flat_map(|root| mounts.iter().map(move |mount| Path::new(root).join(mount)))
        .find(|root| root.join(path).join("cgroup.procs").exists());
    let Some(root) = root else { return vec![] };
    let below = path.ancestors().take(DEPTH).filter(|path| !path.as_os_str().is_empty());
    below.map(|path| root.join(path)).collect()
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
    }
}
