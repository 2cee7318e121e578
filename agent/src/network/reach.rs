//! Can a packet leave for a destination at all? The route there, and the local ports towards it, as they are in one
//! network namespace at this moment. It sends nothing. Blocking: a few milliseconds, and a walk through `/proc`.

use std::{collections::HashMap, fs, net::IpAddr, path::Path};

use crate::{
    known::{
        context::{PortHolder, PortUse, Reach},
        request::Target,
    },
    neighdump,
};

/// Connections looked at, at most.
const CONNECTIONS: usize = 1 << 17;
/// Descriptors gone through, at most.
const DESCRIPTORS: usize = 1 << 17;
/// Holders reported, at most.
const HOLDERS: usize = 5;

/// States of include/net/tcp_states.h, as `ss` writes them.
const STATES: [&str; 12] = [
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSE",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "NEW-SYN-RECV",
];

/// Looks at the way to a destination. What cannot be read is left out.
pub fn reach(target: &Target, boot_ns: u64) -> Reach {
    let asked = target.clone();
    let found = neighdump::within(target.netns, target.process, move || {
        let route_errno = neighdump::route_error(asked.address).unwrap_or(0);
        (route_errno, connections(&asked))
    });
    let Ok(((route_errno, connections), _)) = found else {
        return Reach { boot_ns, target: target.clone(), route_errno: 0, ports: None, read: false };
    };
    let ports = connections.map(Connections::summed);
    Reach { boot_ns, target: target.clone(), route_errno, ports, read: true }
}

/// Connections to a destination, and the range their ports are from.
struct Connections {
    range: (u16, u16),
    /// State and inode number of the socket (0: none) of each.
    found: Vec<(u8, u64)>,
}

/// In the namespace of the calling thread.
fn connections(target: &Target) -> Option<Connections> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut range = range.split_whitespace().map(str::parse::<u16>);
    let range = (range.next()?.ok()?, range.next()?.ok()?);
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(text) = fs::read_to_string(Path::new("/proc/thread-self/net").join(table)) else { continue };
        for line in text.lines().skip(1).take(CONNECTIONS) {
            if let Some((local, remote, state, inode)) = row(line)
                && remote == (target.address, target.port)
                && (range.0..=range.1).contains(&local)
            {
                found.push((state, inode));
            }
        }
    }
    Some(Connections { range, found })
}

/// A row of `/proc/net/tcp` or `tcp6`: local port, remote end, state, inode number.
fn row(line: &str) -> Option<(u16, (IpAddr, u16), u8, u64)> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, remote) = (columns.next()?, columns.next()?);
    let state = u8::from_str_radix(columns.next()?, 16).ok()?;
    let inode = columns.nth(5)?.parse().ok()?;
    Some((end(local)?.1, end(remote)?, state, inode))
}

/// `0100007F:0050`: words in the machine's byte order, as the kernel prints them.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some((ip, port))
}

impl Connections {
    fn summed(self) -> PortUse {
        let mut states: HashMap<u8, u32> = HashMap::new();
        for (state, _) in &self.found {
            *states.entry(*state).or_default() += 1;
        }
        let name = |state: u8| STATES.get(usize::from(state).wrapping_sub(1)).copied().unwrap_or("?");
        let mut states: Vec<(String, u32)> =
            states.into_iter().map(|(state, number)| (name(state).to_owned(), number)).collect();
        states.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
        PortUse {
            first: self.range.0,
            last: self.range.1,
            used: u32::try_from(self.found.len()).unwrap_or(u32::MAX),
            states,
            holders: holders(&self.found),
        }
    }
}

/// The processes that hold these sockets, those with most first.
fn holders(found: &[(u8, u64)]) -> Vec<PortHolder> {
    let wanted: std::collections::HashSet<u64> =
        found.iter().map(|(_, inode)| *inode).filter(|inode| *inode != 0).collect();
    let mut holders: Vec<PortHolder> = Vec::new();
    let mut left = DESCRIPTORS;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let mut ports = 0;
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            let is_wanted = || {
                let link = fs::read_link(descriptor.path()).ok()?;
                let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
                Some(wanted.contains(&inode))
            };
            ports += u32::from(is_wanted().unwrap_or(false));
        }
        if ports > 0 {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(PortHolder { pid, comm: comm.trim_end().to_owned(), ports });
        }
        if left == 0 || wanted.is_empty() {
            break;
        }
    }
    holders.sort_by_key(|holder| (std::cmp::Reverse(holder.ports), holder.pid));
    holders.truncate(HOLDERS);
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_kernels_tables_are_read() {
        let line = "   0: 0100007F:9C41 0A6433C6:0050 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 20";
        let expected = (0x9c41, (IpAddr::from([198, 51, 100, 10]), 80), 1, 4711);
        if cfg!(target_endian = "little") {
            assert_eq!(row(line), Some(expected));
        }
        assert_eq!(row("  sl  local_address rem_address"), None);
        assert_eq!(end("00000000000000000000000000000000:0050"), Some((IpAddr::from([0; 16]), 80)));
    }
}
