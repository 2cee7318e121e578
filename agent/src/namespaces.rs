//! Where the network namespaces of this machine are, what they are called and which ones they are, by `/proc`
//! and `/run/netns`. A name or a process number says where one is now; [`Netns`] says which one it is, so that
//! what is remembered of a deleted namespace is not taken for its successor's.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
};

use ebpf_probes::abi::Netns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::kernel::generation;

/// Where `ip netns` keeps namespaces by name: the names `ip -n` understands.
const NAMED: &str = "/run/netns";
/// Where a container engine keeps some that may be of no process; their names mean nothing to people.
const ENGINES: &str = "/run/docker/netns";
/// Where namespaces are kept by a file.
pub const NAMES: [&str; 2] = [NAMED, ENGINES];
/// `NSFS_MAGIC` of include/uapi/linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// A way to a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// A file that is the namespace at this moment.
    pub path: PathBuf,
    /// Its name, as `ip netns` knows it.
    pub name: Option<String>,
}

/// The file behind a name, as far as it can be known without entering the namespace: another one of the same
/// name and number has another birthday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    born: (i64, i64),
}

impl Stamp {
    /// Whether the file is, by number, this namespace.
    pub fn is(&self, netns: Netns) -> bool {
        self.inode == u64::from(netns.inode)
    }
}

/// The namespaces by inode number: of processes, and those kept by a file. Of one that is kept by a file that file is
/// the way to it: the process may be gone before the namespace is entered.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find() -> io::Result<BTreeMap<u32, Found>> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let path = process.path().join("ns/net");
        // Processes come and go, and not all may be looked at.
        if is_process && let Some(inode) = fs::read_link(&path).ok().and_then(|link| inode_of(&link)) {
            found.entry(inode).or_insert(Found { path, name: None });
        }
    }
    for (path, stamp) in files(ENGINES) {
        if let Ok(inode) = u32::try_from(stamp.inode) {
            found.insert(inode, Found { path, name: None });
        }
    }
    for (name, path, stamp) in named() {
        if let Ok(inode) = u32::try_from(stamp.inode) {
            found.insert(inode, Found { path, name: Some(name) });
        }
    }
    Ok(found)
}

/// The names `ip netns` knows, with their files. A few microseconds each.
pub fn named() -> impl Iterator<Item = (String, PathBuf, Stamp)> {
    files(NAMED).filter_map(|(path, stamp)| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some((name, path, stamp))
    })
}

fn files(directory: &str) -> impl Iterator<Item = (PathBuf, Stamp)> {
    fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| {
        let path = entry.path();
        // A name whose namespace is gone, or not there yet, is an empty file on another file system.
        let is_namespace = rustix::fs::statfs(&path).ok()?.f_type == NSFS_MAGIC;
        let metadata = fs::metadata(&path).ok()?;
        let born = (metadata.ctime(), metadata.ctime_nsec());
        is_namespace.then_some((path, Stamp { inode: metadata.ino(), born }))
    })
}

/// The namespace of this process.
pub fn own() -> Option<Netns> {
    static OWN: OnceLock<Netns> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Some(*own);
    }
    let inode = inode_of(&fs::read_link("/proc/self/ns/net").ok()?)?;
    let netns = Netns { inode, generation: generation::here().ok()? };
    // Before probes are loaded generations are not needed.
    Some(if generation::matters() { *OWN.get_or_init(|| netns) } else { netns })
}

/// Which namespaces these files are: those that cannot be entered are left out. Where generations matter it
/// enters each from a thread that ends with it, some ten microseconds each.
pub fn identify(paths: Vec<PathBuf>) -> Vec<(PathBuf, Netns)> {
    if paths.is_empty() {
        return vec![];
    }
    let own = own();
    let look = move || {
        paths
            .into_iter()
            .filter_map(|path| {
                let netns = which(&path, own).ok()?;
                Some((path, netns))
            })
            .collect()
    };
    if !generation::matters() {
        return look();
    }
    let visitor = thread::Builder::new().name("namespaces".into()).spawn(look);
    visitor.ok().and_then(|visitor| visitor.join().ok()).unwrap_or_default()
}

/// Leaves the calling thread where it has looked.
fn which(path: &Path, own: Option<Netns>) -> io::Result<Netns> {
    let file = File::open(path)?;
    let inode = u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)?;
    if let Some(own) = own.filter(|own| own.inode == inode) {
        return Ok(own);
    }
    if !generation::matters() {
        return Ok(Netns::numbered(inode));
    }
    move_into(&file)?;
    Ok(Netns { inode, generation: generation::here()? })
}

/// Moves the calling thread into a namespace, for good, and says which one it is.
///
/// # Errors
/// When it is gone, may not be entered, or cannot be distinguished from others.
pub fn enter(path: &Path, own: Option<Netns>) -> io::Result<Netns> {
    let file = File::open(path)?;
    let inode = u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)?;
    // From where the thread is when it has not moved yet: that takes no privilege.
    if let Some(own) = own.filter(|own| own.inode == inode) {
        return Ok(own);
    }
    move_into(&file)?;
    Ok(Netns { inode, generation: generation::here()? })
}

fn move_into(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// `net:[4026531840]`.
fn inode_of(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
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

    #[test]
    fn the_own_namespace_is_found_without_privilege() {
        let own = own().expect("/proc");
        assert_eq!(identify(vec!["/proc/self/ns/net".into()]), [("/proc/self/ns/net".into(), own)]);
    }
}
