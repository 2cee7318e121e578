//! Connects: what each step means in words.

use ebpf_probes::{
    abi::IPPROTO_UDP,
    probes::connect::{Connect, phase},
};
use nix::errno::Errno;

use super::{ConnectStep, Memory, Outcome, What};
use crate::{domains::ms, fact::Protocol, known::Known};

impl Memory {
    /// What a step of a connect means; nothing of what is for the correlation alone.
    pub(super) fn means(
        &self,
        known: &Known,
        boot_ns: u64,
        step: ConnectStep,
        connect: &Connect,
    ) -> Option<What> {
        let udp = connect.tuple.protocol == IPPROTO_UDP;
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        // What waits is seen four times a second: its ends are looked up where they are said.
        let (source, destination) = (|| known.local(&connect.tuple), || known.destination(connect));
        let elapsed_ms = ms(boot_ns.saturating_sub(connect.started_ns));
        Some(match step {
            ConnectStep::Waiting => return None,
            ConnectStep::Pending => self.pending(known, connect, boot_ns),
            ConnectStep::Start => {
                What::ConnectStarted { protocol, source: source(), destination: destination() }
            }
            ConnectStep::Retry => What::SynRetransmitted {
                source: source(),
                destination: destination(),
                syn_retransmits: connect.retries,
                elapsed_ms,
            },
            ConnectStep::Drop => What::ConnectDropped {
                source: source(),
                destination: destination(),
                reason: self
                    .drop_reason(connect.drop_reason)
                    .unwrap_or_else(|| "not reported by this kernel".into()),
                drops: connect.drops,
                site: self.drop_site(known, connect),
                elapsed_ms,
            },
            ConnectStep::End => {
                let (outcome, errno) = outcome(connect);
                What::ConnectEnded {
                    protocol,
                    source: source(),
                    destination: destination(),
                    outcome,
                    errno,
                    answered_by_host: known.host_icmp(connect).filter(|_| connect.established == 0),
                    unread_errno: unread(connect),
                    syn_retransmits: connect.retries,
                    since_before_start: connect.is_adopted(),
                    duration_ms: elapsed_ms,
                }
            }
        })
    }
}

/// The error that a socket held and that was not read when its connect was given up.
fn unread(connect: &Connect) -> Option<String> {
    let ended_by_error = connect.established != 0 || connect.errno != 0;
    (connect.unread_errno > 0 && !ended_by_error).then(|| error_name(connect.unread_errno))
}

/// An error's name.
fn error_name(number: i32) -> String {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("errno {number}"),
        errno => format!("{errno:?}"),
    }
}

/// What became of a connect, and the error's name.
pub fn outcome(connect: &Connect) -> (Outcome, Option<String>) {
    if connect.established != 0 {
        return (Outcome::Established, None);
    }
    if connect.errno == 0 {
        // Given up inside a call whose return is not seen (io_uring): it failed, and who knows why.
        let outcome = match connect.phase {
            phase::GIVEN_UP => Outcome::Failed,
            phase::UNSEEN => Outcome::Unseen,
            _ => Outcome::Aborted,
        };
        return (outcome, None);
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
    (outcome, Some(error_name(connect.errno)))
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
