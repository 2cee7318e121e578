//! Which cgroups are in the containers or pods that are asked for: for the kernel, so that what strangers do is not
//! reported and fills no ring. Only what is sure is said: where version 1 has the containers, several of them may share a
//! cgroup of version 2, and the decision is made after the ring.

use std::fs;

use crate::known::bounded::Bounded;

/// Cgroups remembered at most: as many as the kernel's map has room for.
const CGROUPS: usize = 1 << 14;

/// What was found out.
pub(super) struct Verdicts {
    one_hierarchy: bool,
    known: Bounded<u64, bool>,
    new: Vec<(u64, bool)>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { one_hierarchy: one_hierarchy(), known: Bounded::new(CGROUPS), new: Vec::new() }
    }
}

impl Verdicts {
    /// Whether the host has version 2 alone: what that says of a process is all there is.
    pub(super) fn one_hierarchy(&self) -> bool {
        self.one_hierarchy
    }

    pub(super) fn found(&mut self, cgroup: u64, wanted: bool) {
        if self.known.get(&cgroup) != Some(&wanted) {
            self.known.insert(cgroup, wanted);
            self.new.push((cgroup, wanted));
        }
    }

    pub(super) fn take(&mut self) -> Vec<(u64, bool)> {
        std::mem::take(&mut self.new)
    }
}

/// Of the machine's first process, which is in every hierarchy there is.
fn one_hierarchy() -> bool {
    let table = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    !table.is_empty() && table.lines().all(|line| line.starts_with("0::"))
}
