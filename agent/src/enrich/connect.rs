//! Connects: what each step means in words.

use ebpf_probes::{abi::IPPROTO_UDP, probes::connect::Connect};
use nix::errno::Errno;

use super::{Told, World, dns, ms};
use crate::{
    event::ConnectStep,
    fact::{Outcome, Protocol, What},
};

pub(super) fn tell(
    world: &mut World,
    boot_ns: u64,
    step: ConnectStep,
    connect: &Connect,
    told: &mut Vec<Told>,
) {
    let udp = connect.tuple.protocol == IPPROTO_UDP;
    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
    let destination = world.remote(&connect.tuple, &connect.owner);
    let elapsed_ns = boot_ns.saturating_sub(connect.started_ns);
    let elapsed_ms = ms(elapsed_ns);
    let what = match step {
        ConnectStep::Waiting => return,
        ConnectStep::Start => What::ConnectStarted { protocol, destination },
        ConnectStep::Retry => What::SynRetried { destination, syn_retransmits: connect.retries, elapsed_ms },
        ConnectStep::Drop => What::ConnectDropped {
            destination,
            reason: world
                .drop_reasons
                .get(&connect.drop_reason)
                .cloned()
                .unwrap_or_else(|| "not told by this kernel".into()),
            drops: connect.drops,
            elapsed_ms,
        },
        ConnectStep::Pending => What::ConnectPending {
            destination,
            syn_retransmits: connect.retries,
            drops: connect.drops,
            elapsed_ms,
        },
        ConnectStep::End => {
            let (outcome, errno) = outcome(connect);
            if udp && let Some(errno) = &errno {
                dns::failed(world, boot_ns, connect, errno, told);
            }
            What::ConnectEnded {
                protocol,
                source: world.local(&connect.tuple),
                destination,
                outcome,
                errno,
                syn_retransmits: connect.retries,
                duration_ms: elapsed_ms,
            }
        }
    };
    told.push(("connect", connect.owner, what));
}

/// What became of a connect, and the error's name.
pub fn outcome(connect: &Connect) -> (Outcome, Option<String>) {
    if connect.established != 0 {
        return (Outcome::Established, None);
    }
    if connect.errno == 0 {
        // Given up inside a call whose return nobody sees (io_uring): it failed, and who knows why.
        let failed = connect.phase == ebpf_probes::probes::connect::phase::GIVEN_UP;
        return (if failed { Outcome::Failed } else { Outcome::Aborted }, None);
    }
    let errno = Errno::from_raw(connect.errno);
    let outcome = match errno {
        Errno::ECONNREFUSED => Outcome::Refused,
        Errno::ECONNRESET | Errno::EPIPE => Outcome::Reset,
        Errno::ETIMEDOUT => Outcome::TimedOut,
        Errno::EHOSTUNREACH | Errno::EHOSTDOWN => Outcome::HostUnreachable,
        Errno::ENETUNREACH | Errno::ENETDOWN => Outcome::NetUnreachable,
        Errno::ECONNABORTED => Outcome::Aborted,
        Errno::EPERM | Errno::EACCES => Outcome::Denied,
        _ => Outcome::Failed,
    };
    let name =
        if errno == Errno::UnknownErrno { format!("errno {}", connect.errno) } else { format!("{errno:?}") };
    (outcome, Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_count_an_outcome_as_what_is_said_of_it() {
        for errno in 0..=200 {
            let (said, _) = outcome(&Connect { errno, ..Connect::default() });
            let counted = ebpf_probes::metrics::Ended::by_error(errno);
            let said = if said == Outcome::Failed { "other" } else { said.name() };
            assert_eq!(counted.name(), said, "errno {errno}");
        }
    }
}
