//! Which file system a file is of, by the text of `/proc/PID/mountinfo` and the kernel's account of a descriptor.
//! No path is followed, opened or looked at: one that hangs would hang this process too.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::known::context::{Family, SeenMount};

/// Bytes of `/proc/PID/mountinfo` read at most: some ten thousand mounts.
const TABLE: u64 = 4 << 20;

/// A mount, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    id: u64,
    /// Major and minor number.
    device: (u32, u32),
    point: PathBuf,
    fs_type: String,
    source: String,
    family: Option<Family>,
}

impl Mount {
    pub(super) fn seen(&self, family: Family, path: Option<String>) -> SeenMount {
        SeenMount {
            family,
            fs_type: Some(self.fs_type.clone()),
            point: Some(self.point.to_string_lossy().into_owned()),
            source: Some(self.source.clone()),
            path,
            sleeps_in_it: false,
        }
    }

    /// One that does not answer by itself.
    pub(super) fn family(&self) -> Option<Family> {
        self.family
    }
}

/// The mounts a process sees.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    pub(super) fn of(proc: &Path) -> Self {
        let mut text = String::new();
        let Ok(file) = fs::File::open(proc.join("mountinfo")) else { return Self::default() };
        // Cut within a name, what was read is kept.
        let _ = file.take(TABLE).read_to_string(&mut text);
        Self(text.lines().filter_map(mount).collect())
    }

    /// The mount that a path lies in by its words alone; with links or `..` in it, it may lie elsewhere.
    pub(super) fn under(&self, path: &Path) -> Option<&Mount> {
        let above = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        // Of several at one place the last one covers the others.
        above.max_by_key(|mount| mount.point.components().count())
    }

    /// By the number that `/proc/PID/fdinfo` gives.
    pub(super) fn numbered(&self, id: u64) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.id == id)
    }

    /// The only mount of a family; `None` when there are several file systems of it.
    pub(super) fn only(&self, family: Family) -> Option<&Mount> {
        let mut of = self.0.iter().filter(|mount| mount.family == Some(family));
        let first = of.next()?;
        of.all(|other| other.device == first.device).then_some(first)
    }

    /// Whether what is mapped from this device may have to be fetched from elsewhere.
    pub(super) fn is_remote(&self, device: (u32, u32)) -> bool {
        self.0.iter().any(|mount| mount.device == device && mount.family.is_some())
    }
}

/// A line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn mount(line: &str) -> Option<Mount> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ');
    let id = place.next()?.parse().ok()?;
    let (major, minor) = place.nth(1)?.split_once(':')?;
    let point = plain(place.nth(1)?).into();
    let mut what = what.split(' ');
    let fs_type = plain(what.next()?);
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let family = family(&fs_type);
    Some(Mount { id, device, point, family, source: plain(what.next().unwrap_or_default()), fs_type })
}

/// Spaces, tabs, newlines and backslashes stand as three octal digits.
fn plain(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|_| first == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The family of a file system's type.
fn family(fs_type: &str) -> Option<Family> {
    match fs_type {
        "fuse" | "fuseblk" | "virtiofs" => Some(Family::Fuse),
        "nfs" | "nfs4" => Some(Family::Nfs),
        "cifs" | "smb3" => Some(Family::Cifs),
        "ceph" => Some(Family::Ceph),
        "9p" => Some(Family::Plan9),
        _ => fs_type.starts_with("fuse.").then_some(Family::Fuse),
    }
}

/// The family of file systems that a kernel function belongs to.
pub(super) fn family_of_function(name: &str) -> Option<Family> {
    let begins = |with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    match name {
        "request_wait_answer" => Some(Family::Fuse),
        "compound_send_recv" | "wait_for_response" => Some(Family::Cifs),
        _ if begins(&["fuse_", "__fuse_", "virtio_fs_"]) => Some(Family::Fuse),
        _ if begins(&["nfs_", "nfs3_", "nfs4_", "rpc_", "__rpc_"]) => Some(Family::Nfs),
        _ if begins(&["cifs_", "smb2_", "SMB2_"]) => Some(Family::Cifs),
        _ if begins(&["ceph_", "__ceph_"]) => Some(Family::Ceph),
        _ if begins(&["p9_", "v9fs_"]) => Some(Family::Plan9),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts() -> Mounts {
        let table = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                     60 22 0:45 / /srv/web\\040certs rw shared:1 - fuse.bindfs /srv/real rw,user_id=0\n\
                     61 22 0:46 / /home rw - nfs4 192.0.2.7:/home rw,hard\n\
                     62 22 0:47 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n\
                     broken\n";
        Mounts(table.lines().filter_map(mount).collect())
    }

    #[test]
    fn a_file_lies_in_the_deepest_mount_above_it() {
        let mounts = mounts();
        let point = |path: &str| mounts.under(Path::new(path)).map(|mount| mount.fs_type.as_str());
        assert_eq!(point("/srv/web certs/a.crt"), Some("fuse.bindfs"));
        assert_eq!(point("/srv/web certs2/a.crt"), Some("ext4"));
        assert_eq!(point("/home"), Some("nfs4"));
        assert_eq!(point("relative"), None);
        assert_eq!(mounts.numbered(61).map(|mount| mount.source.as_str()), Some("192.0.2.7:/home"));
    }

    #[test]
    fn a_family_has_an_only_mount_when_all_of_it_are_one_file_system() {
        let mut mounts = mounts();
        assert_eq!(mounts.only(Family::Fuse).map(|mount| mount.id), Some(60));
        assert_eq!(mounts.only(Family::Ceph), None);
        let bound = Mount { id: 70, point: "/mnt".into(), ..mounts.0[1].clone() };
        mounts.0.push(bound.clone());
        assert_eq!(mounts.only(Family::Fuse).map(|mount| mount.id), Some(60));
        mounts.0.push(Mount { device: (0, 50), ..bound });
        assert_eq!(mounts.only(Family::Fuse), None);
        assert!(mounts.is_remote((0, 46)) && !mounts.is_remote((254, 0)) && !mounts.is_remote((0, 47)));
    }

    #[test]
    fn a_function_of_the_kernel_shows_which_file_system_it_waits_for() {
        for (name, family) in [
            ("request_wait_answer", Some(Family::Fuse)),
            ("rpc_wait_bit_killable", Some(Family::Nfs)),
            ("nfs_wait_on_request", Some(Family::Nfs)),
            ("p9_client_rpc", Some(Family::Plan9)),
            ("futex_wait_queue", None),
            ("do_sys_poll", None),
        ] {
            assert_eq!(family_of_function(name), family, "{name}");
        }
    }

    #[test]
    fn the_own_mounts_are_read() {
        let mounts = Mounts::of(Path::new("/proc/self"));
        assert!(mounts.under(Path::new("/proc/self")).is_some_and(|mount| mount.fs_type == "proc"));
    }
}
