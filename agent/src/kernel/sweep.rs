//! What is still pending: walks the kernel's small in-flight maps and writes a record for each
//! operation that has waited long enough, first after a threshold and again each time its age has
//! doubled. From here on such a record is like any other, so recordings carry it.

use std::collections::HashMap;

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind},
    probes::{
        clock::{DATES_MAP, DateKey, DateRecord, HttpDate},
        connect::{Connect, ConnectRecord, PENDING_MAP, phase},
        tls::{CLIENT, HANDSHAKES_MAP, Handshake, TlsRecord},
    },
};

use super::{
    deferred::Deferred,
    load::{Error, Kernel},
    plan::{Thresholds, WAITING_NS},
    unacked::Watch,
};
use crate::{records::encode, time::SECOND_NS};

/// A connect that failed inside its call and whose call has not returned by then never will.
const GIVEN_UP_NS: u64 = 1_000_000_000;

/// Waiting connects written again in one sweep, when a handshake is stalled.
const WAITING_AGAIN: u32 = 1024;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct ConnectValue(Connect);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for ConnectValue {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct HandshakeValue(Handshake);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for HandshakeValue {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct ServerKey(DateKey);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for ServerKey {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct DateValue(HttpDate);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for DateValue {}

/// What servers say of the time is looked at this often.
const DATES_EVERY_NS: u64 = 1_000_000_000;

/// Remembers what was reported, to report it less and less often.
#[derive(Default)]
pub struct Sweep {
    thresholds: Thresholds,
    connects: Reported,
    waiting: Reported,
    handshakes: Reported,
    /// What the kernel holds back; `None` when it puts everything on the ring.
    deferred: Option<Deferred>,
    unacked: Watch,
    dates_at_ns: u64,
    seen: Seen,
    /// It has looked once.
    begun: bool,
}

/// What the last sweep saw in flight, and what it alone could report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connects pending.
    pub connects: u64,
    /// Handshakes pending as a client.
    pub tls_clients: u64,
    /// Handshakes pending as a server.
    pub tls_servers: u64,
    /// Connects so far that failed inside a call whose return is not seen (io_uring): no program counts them.
    pub given_up: u64,
}

impl Sweep {
    /// A sweep with these thresholds; `deferred` when the kernel holds records back.
    pub fn new(thresholds: Thresholds, deferred: bool) -> Self {
        Self { thresholds, deferred: deferred.then(Deferred::default), ..Self::default() }
    }

    /// Other thresholds, from now on.
    pub fn set(&mut self, thresholds: Thresholds) {
        // How long a handshake may stall was compiled into the programs.
        self.thresholds.connect_ns = thresholds.connect_ns;
    }

    /// The next sweep writes the last answers of DNS servers, if the kernel holds them back.
    pub fn fetch_answers(&mut self) {
        if let Some(deferred) = &mut self.deferred {
            deferred.wants_answers = true;
        }
    }

    /// What the last sweep saw.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Writes a record for each operation that is due, oldest first. `missed`: the kernel has left out runs of the
    /// programs that see how connects end.
    pub fn sweep(
        &mut self,
        kernel: &mut Kernel,
        now_ns: u64,
        missed: bool,
        mut to: impl FnMut(Bytes),
    ) -> Result<(), Error> {
        let (mut connects, given_up): (Vec<Connect>, Vec<Connect>) = kernel
            .in_flight::<ConnectValue>(PENDING_MAP)?
            .into_iter()
            .map(|value| value.0)
            .partition(|connect| connect.phase == phase::SYN_SENT);
        connects.sort_by_key(|connect| connect.started_ns);
        if missed {
            // Their ends may be among what the kernel left out.
            let (silent, live): (Vec<Connect>, Vec<Connect>) =
                connects.into_iter().partition(|connect| is_silent(connect, now_ns));
            connects = live;
            for mut connect in silent {
                kernel.forget::<u64, ConnectValue>(PENDING_MAP, &connect.cookie)?;
                connect.phase = phase::UNSEEN;
                let header = header::<ConnectRecord>(Kind::CONNECT_END, now_ns);
                to(encode(ConnectRecord { header, connect }));
            }
        }
        // The call's return reports why and clears these at once; io_uring has no such return.
        for connect in
            given_up.into_iter().filter(|connect| now_ns.saturating_sub(connect.started_ns) > GIVEN_UP_NS)
        {
            kernel.forget::<u64, ConnectValue>(PENDING_MAP, &connect.cookie)?;
            self.seen.given_up += 1;
            to(encode(ConnectRecord { header: header::<ConnectRecord>(Kind::CONNECT_END, now_ns), connect }));
        }
        self.seen.connects = connects.len() as u64;
        self.connects.keep(connects.iter().map(|connect| connect.cookie));
        self.waiting.keep(connects.iter().map(|connect| connect.cookie));
        let mut handshakes: Vec<Handshake> =
            kernel.in_flight::<HandshakeValue>(HANDSHAKES_MAP)?.into_iter().map(|value| value.0).collect();
        handshakes.sort_by_key(|handshake| handshake.started_ns);
        let clients = handshakes.iter().filter(|handshake| handshake.role == CLIENT).count();
        self.seen.tls_clients = clients as u64;
        self.seen.tls_servers = (handshakes.len() - clients) as u64;
        self.handshakes.keep(handshakes.iter().map(|handshake| handshake.cookie));
        handshakes.retain(|handshake| {
            self.handshakes.due(handshake.cookie, handshake.moved_ns, now_ns, self.thresholds.tls_ns)
        });
        if let Some(deferred) = &mut self.deferred {
            let waits =
                connects.iter().any(|connect| now_ns.saturating_sub(connect.started_ns) >= WAITING_NS);
            deferred.fetch(kernel, now_ns, &handshakes, waits, &mut to)?;
        }
        self.dates(kernel, now_ns, &mut to)?;
        self.unacked.sweep(kernel, now_ns, &mut to)?;
        // Of one whose end may have been left out, the next SYN that is due shows whether it is still pending.
        let is_unsure = |connect: &Connect| missed && connect.syns == 1 && connect.retries == 0;
        // What was pending before the start may be a stalled handshake's, which is reported first: in this sweep.
        let begun = std::mem::replace(&mut self.begun, true);
        for connect in connects.iter().filter(|connect| begun && !is_unsure(connect)) {
            // One from before the start again, as soon as more is known of it.
            let since_ns = connect.started_ns + u64::from(connect.is_adopted() && connect.is_seen());
            if self.connects.due(connect.cookie, since_ns, now_ns, self.thresholds.connect_ns) {
                let header = header::<ConnectRecord>(Kind::CONNECT_PENDING, now_ns);
                to(encode(ConnectRecord { header, connect: *connect }));
            }
        }
        // What a stalled handshake may be waiting for comes first, and as it is now.
        let mut again = if handshakes.is_empty() { 0 } else { WAITING_AGAIN };
        for connect in connects {
            let is_new = self.waiting.due(connect.cookie, connect.started_ns, now_ns, WAITING_NS);
            let waits = now_ns.saturating_sub(connect.started_ns) >= WAITING_NS;
            if is_new || (waits && again > 0) {
                again = again.saturating_sub(1);
                let header = header::<ConnectRecord>(Kind::CONNECT_WAITING, now_ns);
                to(encode(ConnectRecord { header, connect }));
            }
        }
        for handshake in handshakes {
            let header = header::<TlsRecord>(Kind::TLS_PENDING, now_ns);
            to(encode(TlsRecord { header, handshake }));
        }
        Ok(())
    }
}

impl Sweep {
    /// Writes what HTTP servers have said of the time since the last look at it.
    fn dates(&mut self, kernel: &Kernel, now_ns: u64, to: &mut impl FnMut(Bytes)) -> Result<(), Error> {
        if now_ns.saturating_sub(self.dates_at_ns) < DATES_EVERY_NS {
            return Ok(());
        }
        let since_ns = std::mem::replace(&mut self.dates_at_ns, now_ns);
        let mut dates = kernel.entries::<ServerKey, DateValue>(DATES_MAP)?;
        // One that was written while the map was walked last may be reported twice, which does no harm.
        dates.retain(|(_, DateValue(date))| date.boot_ns >= since_ns);
        dates.sort_by_key(|(_, DateValue(date))| date.boot_ns);
        for (ServerKey(server), DateValue(date)) in dates {
            to(encode(DateRecord {
                header: header::<DateRecord>(Kind::HTTP_DATE, date.boot_ns),
                server,
                date,
            }));
        }
        Ok(())
    }
}

/// Whether a connect has sent fewer SYNs than one that is still pending: the kernel sends one after 1, 3, 7 … seconds
/// (TCP_TIMEOUT_INIT of include/net/tcp.h, doubled each time; sooner where `tcp_syn_linear_timeouts` says so). Of one
/// whose first SYN was not seen to leave, nothing is known.
fn is_silent(connect: &Connect, now_ns: u64) -> bool {
    /// A timer, and what counts it, may be as late as this.
    const LATE_NS: u64 = SECOND_NS / 2;
    let age_ns = now_ns.saturating_sub(connect.started_ns).saturating_sub(LATE_NS);
    let due = (age_ns / SECOND_NS + 1).ilog2();
    let again = connect.retries.max(connect.syns.saturating_sub(1));
    connect.syns > 0 && connect.drops == 0 && again < due
}

fn header<T>(kind: Kind, boot_ns: u64) -> Header {
    Header { boot_ns, kind: kind.0, len: size_of::<T>() as u32 }
}

/// Since when each operation waits, and at what age it is reported next.
#[derive(Default)]
struct Reported(HashMap<u64, (u64, u64)>);

impl Reported {
    /// Forgets what is no longer in flight.
    fn keep(&mut self, live: impl Iterator<Item = u64>) {
        if self.0.is_empty() {
            return;
        }
        let live: std::collections::HashSet<u64> = live.collect();
        self.0.retain(|cookie, _| live.contains(cookie));
    }

    fn due(&mut self, cookie: u64, since_ns: u64, now_ns: u64, first_ns: u64) -> bool {
        let age = now_ns.saturating_sub(since_ns);
        if age < first_ns {
            return false;
        }
        let (since, next) = self.0.entry(cookie).or_insert((since_ns, first_ns));
        if *since != since_ns {
            (*since, *next) = (since_ns, first_ns);
        }
        if age < *next {
            return false;
        }
        *next = age.saturating_mul(2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_that_sends_no_syn_when_one_is_due_is_not_pending_any_more() {
        let is_silent = |syns, retries, ms: u64| {
            let connect = Connect { syns, retries, ..Connect::default() };
            super::is_silent(&connect, ms * 1_000_000)
        };
        assert!(!is_silent(1, 0, 1400) && is_silent(1, 0, 1600));
        assert!(!is_silent(2, 0, 3400) && !is_silent(1, 1, 3400) && is_silent(2, 1, 3600));
        assert!(!is_silent(4, 3, 14_000) && !is_silent(0, 0, 60_000));
        let dropped = Connect { syns: 1, drops: 1, ..Connect::default() };
        assert!(!super::is_silent(&dropped, 60 * SECOND_NS));
    }

    #[test]
    fn waiting_is_reported_at_the_threshold_and_at_each_doubling() {
        let mut reported = Reported::default();
        let at: Vec<u64> = (0..=30).filter(|&now| reported.due(1, 0, now, 3)).collect();
        assert_eq!(at, [3, 6, 12, 24]);
    }

    #[test]
    fn progress_starts_the_wait_again() {
        let mut reported = Reported::default();
        assert!(reported.due(1, 0, 5, 3));
        assert!(!reported.due(1, 4, 6, 3));
        assert!(reported.due(1, 4, 7, 3));
    }
}
