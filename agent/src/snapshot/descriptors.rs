//! How many descriptors a process has open, and how many it may.

use std::{fs, path::Path};

use super::sockets::Sockets;
use crate::known::context::DescriptorUse;

/// `None` where its limit cannot be read.
pub(super) fn look(proc: &Path, sockets: &Sockets) -> Option<DescriptorUse> {
    let limits = fs::read_to_string(proc.join("limits")).ok()?;
    let (limit, hard) = limit(&limits)?;
    // The limit is on the number of a new one: those above it, opened before it was lowered, take no place.
    Some(DescriptorUse { open: sockets.open_below(limit), limit, hard })
}

/// `Max open files            1024                 524288               files`.
fn limit(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut columns = line.split_whitespace().map(|number| match number {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some((columns.next()??, columns.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_open_files_is_read_with_how_far_it_may_be_raised() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            24                   524288               files\n";
        assert_eq!(limit(text), Some((24, 524_288)));
        assert_eq!(limit("Max open files  1024 unlimited files"), Some((1024, u64::MAX)));
        assert_eq!(limit("Max processes 1 1\n"), None);
    }
}
