//! Since when a neighbour that is asked for has been asked for, at least. Its table shows only when the questions of this
//! round began: the kernel gives up after some, and those who still wait have it begin again.

use std::{fs, path::PathBuf, time::Duration};

use ebpf_probes::abi::AF_INET;

use super::Neighbour;

/// How long before its making an entry says that it was confirmed, in times of what it stays reachable (`neigh_create()`,
/// net/core/neighbour.c).
const NEVER: u32 = 2;

/// What a device's settings say of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking {
    /// How long an entry stays reachable.
    reachable: Duration,
    /// How long a round of questions lasts.
    round: Duration,
}

impl Asking {
    /// Those of the device a neighbour is behind, in the namespace that the calling thread is in.
    pub(super) fn of(neighbour: &Neighbour) -> Option<Self> {
        let family = if neighbour.family == AF_INET { "ipv4" } else { "ipv6" };
        let directory = PathBuf::from(format!("/proc/sys/net/{family}/neigh")).join(&neighbour.device);
        let number = |name: &str| fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u32>().ok();
        let millis = |name: &str| Some(Duration::from_millis(number(name)?.into()));
        Some(Self {
            reachable: millis("base_reachable_time_ms")?,
            round: millis("retrans_time_ms")?.checked_mul(number("mcast_solicit")?)?,
        })
    }

    /// How long it has been asked for at least, by how long ago this round began and how long ago it was confirmed. A
    /// round after the first comes after one that went unanswered.
    pub(super) fn asked(self, updated: Duration, confirmed: Duration) -> Duration {
        let made = confirmed.saturating_sub(self.reachable * NEVER);
        updated.max(made.min(updated.saturating_add(self.round)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKING: Asking = Asking { reachable: Duration::from_secs(30), round: Duration::from_secs(3) };

    fn asked(updated: u64, confirmed: u64) -> u64 {
        let asked = ASKING.asked(Duration::from_millis(updated), Duration::from_millis(confirmed));
        u64::try_from(asked.as_millis()).expect("seconds")
    }

    #[test]
    fn an_entry_in_its_first_round_has_been_asked_for_since_it_was_made() {
        assert_eq!(asked(1500, 61_500), 1500);
    }

    #[test]
    fn one_in_a_later_round_for_a_round_more_and_never_for_longer_than_there_is_the_entry() {
        assert_eq!(asked(1500, 64_000), 4000);
        assert_eq!(asked(1500, 68_000), 4500);
    }

    #[test]
    fn one_that_had_answered_once_has_failed_before() {
        assert_eq!(asked(500, 600_000), 3500);
        // It was confirmed a moment ago: only this round is known.
        assert_eq!(asked(500, 20_000), 500);
    }
}
