//! Whose a namespace is: made by root of the host, or by any user who may make user namespaces.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use nix::libc;

/// `NS_GET_USERNS` of include/uapi/linux/nsfs.h: a descriptor of the user namespace that owns a namespace.
const NS_GET_USERNS: libc::c_ulong = 0xb701;
/// Inode number of the initial user namespace, `PROC_USER_INIT_INO` of include/linux/proc_ns.h.
const INITIAL_USER: u64 = 0xefff_fffd;

/// Whether the initial user namespace owns the namespace behind this file: its root made it.
///
/// # Errors
/// When it cannot be opened or asked; EPERM says that its owner is none of ours.
pub fn is_the_hosts(path: &Path) -> io::Result<bool> {
    let namespace = File::open(path)?;
    // SAFETY: the request takes no argument, and gives a descriptor of our own or an error.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, and nothing else has.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    Ok(owner.metadata()?.ino() == INITIAL_USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_belongs_to_the_own_user_namespace() -> io::Result<()> {
        let own = std::fs::metadata("/proc/self/ns/user")?.ino() == INITIAL_USER;
        assert_eq!(is_the_hosts(Path::new("/proc/self/ns/uts"))?, own);
        Ok(())
    }
}
