//! Where the network namespaces of this machine are, and how to get there.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` and container engines keep namespaces by name.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// A namespace that was found, and how to get there.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) name: Option<String>,
}

/// The namespaces by inode number: of processes, and named ones.
pub(super) fn find() -> io::Result<BTreeMap<u32, Found>> {
    let mut found = BTreeMap::new();
    let names = names();
    for process in fs::read_dir("/proc")?.flatten() {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let path = process.path().join("ns/net");
        // Processes come and go, and not all may be looked at.
        if is_process && let Some(netns) = fs::read_link(&path).ok().and_then(|link| inode_of(&link)) {
            found.entry(netns).or_insert(Found { path, name: None });
        }
    }
    for (netns, (name, path)) in names {
        found.entry(netns).or_insert(Found { path, name: None }).name = Some(name);
    }
    Ok(found)
}

/// The namespace of this process.
pub(super) fn own() -> Option<u32> {
    inode_of(&fs::read_link("/proc/self/ns/net").ok()?)
}

/// `net:[4026531840]`.
fn inode_of(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Named namespaces, by inode number.
fn names() -> HashMap<u32, (String, PathBuf)> {
    NAMED
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| {
            // A name whose namespace is gone is an empty file on another file system.
            let netns = u32::try_from(fs::metadata(entry.path()).ok()?.ino()).ok()?;
            let is_namespace = rustix::fs::statfs(entry.path()).ok()?.f_type == NSFS_MAGIC;
            is_namespace.then(|| (netns, (entry.file_name().to_string_lossy().into_owned(), entry.path())))
        })
        .collect()
}

/// `NSFS_MAGIC` of include/uapi/linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Moves the calling thread, for good.
pub(super) fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_links_are_read() {
        assert_eq!(inode_of(Path::new("net:[4026531840]")), Some(4026531840));
        assert_eq!(inode_of(Path::new("mnt:[4026531840]")), None);
        assert_eq!(inode_of(Path::new("net:[]")), None);
    }
}
