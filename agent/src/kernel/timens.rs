//! The time namespace: in one of its own CLOCK_BOOTTIME is shifted against the kernel's, by which every record is
//! dated, and all dates would be off by as much. So the host's is joined before anything is read.

use std::{fs, fs::File, io, os::fd::AsFd, path::Path};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Inode number of the initial time namespace, `PROC_TIME_INIT_INO` of include/linux/proc_ns.h.
const INITIAL: u64 = 0xefff_fffa;

/// Why dates cannot be right.
#[derive(Debug, thiserror::Error)]
#[error(
    "culprit runs in a time namespace of its own, and the host's cannot be joined ({0}): every date it reports would be wrong; start it in the host's: nsenter --time=/proc/1/ns/time culprit …"
)]
pub struct Error(io::Error);

/// Moves the process into the host's time namespace, unless it is there already. To be called while the process has
/// one thread, as the kernel demands. What it runs is there, too.
///
/// # Errors
/// When it is in another one and cannot leave it.
pub fn join_initial() -> Result<(), Error> {
    // Kernels before 5.6, and those without, have none: then all have the same clocks.
    let Some(own) = inode(Path::new("/proc/self/ns/time")) else { return Ok(()) };
    if own == INITIAL {
        return Ok(());
    }
    let namespace = initial().map_err(Error)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time))
        .map_err(|error| Error(error.into()))
}

/// A process of the host is in it; in a container with processes of its own there may be none to be seen.
fn initial() -> io::Result<File> {
    for process in fs::read_dir("/proc")?.flatten() {
        let path = process.path().join("ns/time");
        if inode(&path) == Some(INITIAL)
            && let Ok(namespace) = File::open(&path)
        {
            return Ok(namespace);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no process of it is to be seen"))
}

/// `time:[4026531834]`.
fn inode(path: &Path) -> Option<u64> {
    fs::read_link(path).ok()?.to_str()?.strip_prefix("time:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_already_stays() {
        if inode(Path::new("/proc/self/ns/time")).is_none_or(|own| own == INITIAL) {
            assert!(join_initial().is_ok());
        }
    }
}
