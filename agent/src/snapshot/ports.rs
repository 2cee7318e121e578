//! On which ports something listens in the network namespace of a process: who connected to whom is known by that.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// Bytes of a table of sockets read at most: some thousand listeners.
const TABLE: u64 = 1 << 20;
/// A listener's state in it.
const LISTEN: &str = "0A";

/// Ports something listens on in the network namespace of a process.
pub(super) fn listening(proc: &Path) -> Option<HashSet<u16>> {
    let mut ports = HashSet::new();
    for table in ["net/tcp", "net/tcp6"] {
        // IPv6 may be missing; IPv4 never is. Listeners come first.
        let Ok(file) = fs::File::open(proc.join(table)) else {
            if table == "net/tcp" {
                return None;
            }
            continue;
        };
        for line in BufReader::new(file.take(TABLE)).lines().skip(1).map_while(Result::ok) {
            let mut columns = line.split_whitespace();
            let (Some(local), Some(state)) = (columns.nth(1), columns.nth(1)) else { continue };
            if state != LISTEN {
                break;
            }
            if let Some(port) = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok()) {
                ports.insert(port);
            }
        }
    }
    Some(ports)
}
