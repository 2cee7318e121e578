//! Who listens on which TCP port of which network namespace.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use ebpf_probes::abi::Netns;

use crate::{
    known::context::Context,
    namespaces,
    observe::{Observer, proc::pids},
    records,
};

/// The listeners of the machine are looked through at most this often, nanoseconds.
const LISTENERS_EVERY_NS: u64 = 1_000_000_000;

impl Observer {
    /// Who listens where: for ClientHellos that were not read, which therefore have no owner yet.
    pub(super) fn listeners(&mut self, boot_ns: u64, apply: &mut impl FnMut(Context)) {
        if self.listeners_at_ns.is_some_and(|at| boot_ns.saturating_sub(at) < LISTENERS_EVERY_NS) {
            return;
        }
        self.listeners_at_ns = Some(boot_ns);
        let found = everywhere(None);
        // Which namespaces those are, each once, by way of some process that listens there.
        let mut places: Vec<PathBuf> = Vec::new();
        let mut numbers: HashSet<u64> = HashSet::new();
        places.extend(found.iter().filter(|at| numbers.insert(at.netns)).map(|at| at.place.clone()));
        let which: Vec<Netns> = namespaces::identify(places).into_iter().map(|(_, netns)| netns).collect();
        for Listens { netns, pid, address, port, .. } in found {
            let Some(&netns) = which.iter().find(|which| u64::from(which.inode) == netns) else { continue };
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let comm = comm.trim_end().to_owned();
            apply(Context::Process(self.process(pid, &comm, (0, 0), false)));
            apply(Context::Listener { netns, address, port, process: pid, comm });
        }
    }
}

/// Every process that listens, and where; of one network namespace, by its inode number, or of all.
fn everywhere(only: Option<u64>) -> Vec<Listens> {
    let mut ports: HashMap<(u64, u64), (IpAddr, u16)> = HashMap::new();
    let mut looked: HashSet<u64> = HashSet::new();
    let mut found: Vec<Listens> = Vec::new();
    for pid in pids() {
        let place = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let Ok(ns) = fs::metadata(&place) else { continue };
        if only.is_some_and(|only| only != ns.ino()) {
            continue;
        }
        if looked.insert(ns.ino()) {
            for (address, port, inode) in listening(pid) {
                ports.insert((ns.ino(), inode), (address, port));
            }
        }
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for fd in fds.flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            let Some(inode) = socket_inode(&target.to_string_lossy()) else { continue };
            let Some(&(address, port)) = ports.get(&(ns.ino(), inode)) else { continue };
            found.push(Listens { place: place.clone(), netns: ns.ino(), pid, address, port });
        }
    }
    found
}

/// The processes that listen on a TCP port, in whichever network namespace.
pub(super) fn on_port(port: u16) -> Vec<u32> {
    everywhere(None).into_iter().filter(|listens| listens.port == port).map(|listens| listens.pid).collect()
}

/// The processes that a TCP connection to an address of a network namespace reaches: their names, ports, and whether they
/// listen at this very address. The number of the namespace is believed.
pub fn listening_at(netns: Netns, address: IpAddr) -> Vec<(u32, String, u16, bool)> {
    let any = |at: IpAddr| at.is_unspecified() && (at.is_ipv6() || address.is_ipv4());
    let here = everywhere(Some(netns.inode.into()));
    let reached = here.into_iter().filter(|listens| listens.address == address || any(listens.address));
    let named = reached.map(|Listens { pid, address: at, port, .. }| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (pid, comm.trim_end().to_owned(), port, at == address)
    });
    named.collect()
}

/// A process that listens.
struct Listens {
    place: PathBuf,
    netns: u64,
    pid: u32,
    address: IpAddr,
    port: u16,
}

/// Address, port and socket inode of each TCP listener in the network namespace of `pid`.
fn listening(pid: u32) -> Vec<(IpAddr, u16, u64)> {
    let tables = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listener).collect()
}

/// Columns of /proc/net/tcp: slot, local, remote, state (0A: listening), …, inode (tenth).
fn listener(line: &str) -> Option<(IpAddr, u16, u64)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if *columns.get(3)? != "0A" {
        return None;
    }
    let (address, port) = columns.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((table_address(address)?, port, columns.get(9)?.parse().ok()?))
}

/// An address as /proc/net/tcp writes it: words of the machine's own byte order, in hexadecimal.
fn table_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let address: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(records::address(address))
        }
        _ => None,
    }
}

fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_are_taken_from_the_tcp_table() {
        let line = "   0: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1";
        assert_eq!(listener(line), Some((IpAddr::from([0, 0, 0, 0]), 443, 4711)));
        assert_eq!(table_address("0100007F"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(
            table_address(&format!("{}01000000", "0".repeat(24))),
            Some("::1".parse().expect("an address"))
        );
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }
}
