//! Which DNS servers is a process configured to ask? Its own `/etc/resolv.conf`, as its root directory has it.
//!
//! The file is the process's, and may be anything: it is opened below that root whatever links say, never
//! waited for, and read as far as any resolver reads it.

use std::{
    fs::File,
    io::Read as _,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

/// Bytes read at most.
const LONGEST: u64 = 64 * 1024;
/// Servers kept at most. C libraries ask three (`MAXNS`), others more.
const SERVERS: usize = 8;
/// What a resolver asks that is configured to ask no server (resolv.conf(5)).
const DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// systemd-resolved's own address for programs, and the file that names the servers it asks itself: it does so for
/// programs that ask it by other means than DNS.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const BEHIND_STUB: &str = "run/systemd/resolve/resolv.conf";

/// The servers of a process, by its directory in `/proc`; none when its files cannot be read.
pub(super) fn of(proc: &Path) -> Vec<IpAddr> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = open(proc.join("root"), flags, Mode::empty()) else { return vec![] };
    let mut servers = match read(&root, "etc/resolv.conf") {
        Ok(text) => parse(&text),
        Err(rustix::io::Errno::NOENT) => vec![],
        Err(_) => return vec![],
    };
    if servers.is_empty() {
        servers.push(DEFAULT);
    }
    if servers.contains(&STUB)
        && let Ok(text) = read(&root, BEHIND_STUB)
    {
        servers.extend(parse(&text));
        servers.truncate(SERVERS);
    }
    servers
}

fn read(root: &OwnedFd, path: &str) -> rustix::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root, path, flags, Mode::empty(), resolve)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(rustix::io::Errno::INVAL);
    }
    let mut bytes = Vec::new();
    File::from(file).take(LONGEST).read_to_end(&mut bytes).map_err(|_| rustix::io::Errno::IO)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The addresses after `nameserver`, without the device of a link-local one.
fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        })
        .filter_map(|server| server.split('%').next()?.parse::<IpAddr>().ok())
        .map(|server| server.to_canonical())
        .take(SERVERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_resolvers_read_them() {
        let text = "# by hand\nsearch corp.example\nnameserver 10.0.0.2\n  nameserver\tfe80::1%eth0 # x\n\
                    nameserver not-an-address\nnameserver ::ffff:10.0.0.3\noptions edns0\n;nameserver 9.9.9.9\n";
        let wanted: Vec<IpAddr> =
            ["10.0.0.2", "fe80::1", "10.0.0.3"].iter().map(|text| text.parse().expect("one")).collect();
        assert_eq!(parse(text), wanted);
        assert_eq!(parse(&"nameserver 10.0.0.2\n".repeat(99)).len(), SERVERS);
    }

    #[test]
    fn links_lead_nowhere_but_below_the_root_and_nothing_is_waited_for() {
        let proc = tempfile::tempdir().expect("a directory");
        let root = proc.path().join("root");
        std::fs::create_dir_all(root.join("etc")).expect("made");
        assert_eq!(of(proc.path()), [DEFAULT], "no file: the library's default");
        let conf = root.join("etc/resolv.conf");
        // Absolute, as a container may have it: below its own root.
        std::os::unix::fs::symlink("/run/conf", &conf).expect("a link");
        std::fs::create_dir_all(root.join("run/systemd/resolve")).expect("made");
        std::fs::write(root.join("run/conf"), "nameserver 127.0.0.53\n").expect("written");
        std::fs::write(root.join(BEHIND_STUB), "nameserver 10.0.0.2\n").expect("written");
        assert_eq!(of(proc.path()), [STUB, IpAddr::from([10, 0, 0, 2])]);
        std::fs::remove_file(&conf).expect("removed");
        rustix::fs::mknodat(rustix::fs::CWD, &conf, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert_eq!(of(proc.path()), [IpAddr::V4(Ipv4Addr::LOCALHOST); 0], "a pipe is no configuration");
    }
}
