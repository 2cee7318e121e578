//! What a connection whose data is not acknowledged shows of why: by which segments pass, who is heard, how long it had been
//! idle, and whether other connections with the peer work. It looks at one connection alone.

use ebpf_probes::probes::connect::Unacked;

/// A connection that was silent for this long may have been forgotten by what translates or balances it.
const IDLE_NS: u64 = 2_000_000_000;

/// Why it is not acknowledged, as far as that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) enum Finding {
    /// A neighbour on the way does not answer, or is not where this host believes.
    Neighbour,
    /// This host drops its packets.
    Dropped,
    /// Large segments are lost and small ones pass.
    PathMtu(Passes),
    /// One segment is lost again and again, and others as large pass.
    OneSegment,
    /// It was forgotten on the way, by a NAT, a firewall or a load balancer; `true`: new connections to the peer work.
    Forgotten(bool),
    /// The peer's packets come and do not acknowledge.
    Deaf,
    /// Nothing comes from the peer.
    Silent,
}

/// Which small segments are known to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) enum Passes {
    /// Later ones of this connection: the peer acknowledges them out of order.
    Later,
    /// The peer's own packets come meanwhile, and only small segments were acknowledged until now.
    Earlier,
    /// Other connections with the peer work, and only small segments of this one were acknowledged until now.
    Others,
}

impl Finding {
    pub(in crate::rules) fn of(unacked: &Unacked, explained: bool) -> Self {
        if explained {
            return Self::Neighbour;
        }
        if unacked.drops > 0 {
            return Self::Dropped;
        }
        if unacked.sacked > 0 {
            return if is_large(unacked) && sacked_are_small(unacked) {
                Self::PathMtu(Passes::Later)
            } else {
                Self::OneSegment
            };
        }
        let works = unacked.fresh_ns != 0;
        if is_large(unacked) && only_small_passed(unacked) && idle_ns(unacked).is_none() {
            if unacked.is_heard() {
                return Self::PathMtu(Passes::Earlier);
            }
            if works {
                return Self::PathMtu(Passes::Others);
            }
        }
        if unacked.is_heard() {
            return Self::Deaf;
        }
        if idle_ns(unacked).is_some() || works { Self::Forgotten(works) } else { Self::Silent }
    }

    /// It is a matter of large segments.
    pub(in crate::rules) fn is_path_mtu(self) -> bool {
        matches!(self, Self::PathMtu(_))
    }
}

/// How long nothing had come before the data was sent, if that is long enough to matter.
pub(in crate::rules) fn idle_ns(unacked: &Unacked) -> Option<u64> {
    let idle_ns = unacked.since_ns.saturating_sub(unacked.before_ns);
    (unacked.before_ns != 0 && idle_ns >= IDLE_NS).then_some(idle_ns)
}

/// The segment that is sent again is about as large as segments are.
fn is_large(unacked: &Unacked) -> bool {
    unacked.segment != 0 && u64::from(unacked.segment) * 5 >= u64::from(unacked.mss) * 4
}

/// No more was acknowledged over the whole connection than a small segment or two hold.
fn only_small_passed(unacked: &Unacked) -> bool {
    unacked.acked <= u64::from(unacked.segment)
}

/// What the peer has acknowledged out of order is smaller than what is lost: what is left of the bytes when all others are
/// as large as they can be.
fn sacked_are_small(unacked: &Unacked) -> bool {
    let lost = u64::from(unacked.packets.saturating_sub(unacked.sacked));
    let of_them = u64::from(unacked.bytes()).saturating_sub(lost * u64::from(unacked.mss));
    of_them * 10 <= u64::from(unacked.sacked) * u64::from(unacked.segment) * 9
}
