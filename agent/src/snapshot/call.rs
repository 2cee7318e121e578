//! The system call a thread is in, its arguments, and what these point to. A path is read only from memory that is
//! not backed by a file system which may have to fetch it: to read it could hang as its owner does.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::mounts::Mounts;

/// The longest path the kernel takes, `PATH_MAX`.
const PATH_MAX: u64 = 4096;
/// Bytes of `/proc/PID/maps` read at most.
const MAPS: u64 = 4 << 20;
/// Frames of a kernel stack kept, at most.
const FRAMES: usize = 16;
/// "Below the working directory", in place of a directory's descriptor.
const AT_FDCWD: i32 = -100;

/// A system call and its arguments, as `/proc/PID/task/TID/syscall` shows them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) args: [u64; 6],
}

impl Call {
    /// `None` for a thread that runs or is in no call.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let number: usize = words.next()?.parse().ok()?;
        let name = syscalls::Sysno::new(number)?.name();
        let mut args = [0; 6];
        for arg in &mut args {
            *arg = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        Some(Self { name, args })
    }
}

/// The file or directory a call is about, by a path in the process's memory; `None` for other calls, and where that
/// cannot be known by its words.
pub(super) fn path(proc: &Path, process: u32, call: &Call, mounts: &Mounts) -> Option<PathBuf> {
    let [first, second, ..] = call.args;
    let (below, address) = match call.name {
        "open" | "creat" | "stat" | "lstat" | "access" | "readlink" | "statfs" | "chdir" | "execve"
        | "unlink" | "mkdir" | "rename" | "truncate" => (AT_FDCWD, first),
        "openat" | "openat2" | "newfstatat" | "statx" | "faccessat" | "faccessat2" | "readlinkat"
        | "unlinkat" | "mkdirat" | "execveat" | "name_to_handle_at" => (first as i32, second),
        _ => return None,
    };
    let text = text(proc, process, address, mounts)?;
    let path = Path::new(&text);
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return None;
    }
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let base = match u32::try_from(below) {
        Ok(fd) => proc.join("fd").join(fd.to_string()),
        Err(_) if below == AT_FDCWD => proc.join("cwd"),
        Err(_) => return None,
    };
    let base = fs::read_link(base).ok()?;
    Some(if text.is_empty() { base } else { base.join(path) })
}

/// A string that ends with a zero byte.
fn text(proc: &Path, process: u32, address: u64, mounts: &Mounts) -> Option<String> {
    let end = local_until(proc, address, mounts)?;
    let len = usize::try_from((end - address).min(PATH_MAX)).ok()?;
    let bytes = memory(process, address, len);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// The end of the mapping that an address is in, if it is in memory, or mapped from a file that is at hand.
fn local_until(proc: &Path, address: u64, mounts: &Mounts) -> Option<u64> {
    let file = fs::File::open(proc.join("maps")).ok()?;
    let lines = BufReader::new(file.take(MAPS)).lines().map_while(Result::ok);
    let mapping = lines.filter_map(|line| Mapping::parse(&line)).find(|one| one.holds(address))?;
    let local = mapping.inode == 0 || !mounts.is_remote(mapping.device);
    local.then_some(mapping.end)
}

/// A line of `/proc/PID/maps`: `7f00-7f10 r--p 00000000 fe:01 4711 /usr/lib/…`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    device: (u32, u32),
    inode: u64,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut columns = line.split_whitespace();
        let (start, end) = columns.next()?.split_once('-')?;
        let (major, minor) = columns.nth(2)?.split_once(':')?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        Some(Self {
            start: hex(start)?,
            end: hex(end)?,
            device: (number(major)?, number(minor)?),
            inode: columns.next()?.parse().ok()?,
        })
    }

    fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// Memory of another process; less or nothing when it cannot be read.
pub(super) fn memory(process: u32, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let Ok(pid) = i32::try_from(process) else { return vec![] };
    let remote = [RemoteIoVec { base: address as usize, len }];
    let read = process_vm_readv(Pid::from_raw(pid), &mut [std::io::IoSliceMut::new(&mut bytes)], &remote);
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// `[<0>] function+0x1/0x2` lines, innermost first.
pub(super) fn stack(task: &Path) -> Vec<String> {
    let text = fs::read_to_string(task.join("stack")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|frame| frame.split(['+', '.']).next().unwrap_or(frame).to_owned())
        .take(FRAMES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_call_is_read_with_its_name_and_arguments() {
        let call = Call::parse("45 0x7 0x7f93 0x1 0x0 0x0 0x0 0x7ffd 0x7f93\n").expect("a call");
        assert_eq!((call.name, call.args[0]), ("recvfrom", 7));
        assert_eq!(Call::parse("running\n"), None);
        assert_eq!(Call::parse("-1 0x7ffd 0x7f93\n"), None);
        assert_eq!(Call::parse("99999 0x0 0x0 0x0 0x0 0x0 0x0 0x1 0x2"), None);
    }

    #[test]
    fn a_path_is_read_from_memory_and_joined_with_its_directory() {
        let (me, proc) = (std::process::id(), Path::new("/proc/self"));
        let mounts = Mounts::of(proc);
        let read = |name: &'static str, first: u64, text: &std::ffi::CStr| {
            let call = Call { name, args: [first, text.as_ptr() as u64, 0, 0, 0, 0] };
            path(proc, me, &call, &mounts)
        };
        let below = AT_FDCWD as u64;
        assert_eq!(read("openat", below, c"/mnt/www.crt"), Some("/mnt/www.crt".into()));
        assert_eq!(
            read("openat", below, c"www.crt"),
            Some(std::env::current_dir().expect("it is there").join("www.crt"))
        );
        assert_eq!(read("openat", below, c"/mnt/../www.crt"), None);
        assert_eq!(read("futex", below, c"/mnt/www.crt"), None);
        assert_eq!(read("openat", u64::from(u32::MAX), c"www.crt"), None);
    }

    #[test]
    fn memory_that_a_remote_file_is_mapped_to_is_not_read() {
        let line = "7f00-7f10 r--p 00000000 00:2d 4711   /mnt/a file";
        let mapping = Mapping { start: 0x7f00, end: 0x7f10, device: (0, 45), inode: 4711 };
        assert_eq!(Mapping::parse(line), Some(mapping));
        let me = Path::new("/proc/self");
        let here = 0u8;
        let address = &raw const here as u64;
        assert!(local_until(me, address, &Mounts::of(me)).is_some_and(|end| end > address));
        assert_eq!(local_until(me, 8, &Mounts::of(me)), None);
    }
}
