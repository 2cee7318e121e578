//! What the kernel holds back while it reports only the unhealthy: ClientHellos of handshakes in flight,
//! DNS questions that wait, and the last answers. Fetched when something goes wrong, and written as the
//! records they would have been; from there on they are like any other.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind},
    probes::{
        dns::{ANSWERS_MAP, DNS_BYTES_HEAD, DeferredMessage, DnsWire, LOOKUPS_MAP, LookupKey},
        tls::{CLIENT_HELLO, DeferredHello, HELLOS_MAP, Handshake, TLS_BYTES_HEAD},
    },
};

use super::load::{Error, Kernel};
use crate::records::encode;

/// A question that waits for this long is reported.
const UNANSWERED_NS: u64 = 250_000_000;
/// A question that has gone unanswered for this long is forgotten.
const FORGOTTEN_NS: u64 = 60_000_000_000;
/// The answers are looked through at most this often.
const ANSWERS_EVERY_NS: u64 = 1_000_000_000;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Hello(DeferredHello);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Hello {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Message(DeferredMessage);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Message {}

#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key(LookupKey);
// SAFETY: `#[repr(C)]` integers.
unsafe impl aya::Pod for Key {}

/// Remembers what was fetched.
#[derive(Default)]
pub(super) struct Deferred {
    /// Questions reported, and how often they had been sent by then.
    asked: HashMap<Key, u32>,
    /// Answers reported, by when they came.
    answered: HashSet<(Key, u64)>,
    answers_at_ns: u64,
    /// The answers are wanted, whether or not something waits.
    pub(super) wants_answers: bool,
}

impl Deferred {
    /// Fetches what belongs to these handshakes, which stall, and the questions that wait. `waits`: some
    /// connect does, whose destination may have a name.
    pub(super) fn fetch(
        &mut self,
        kernel: &mut Kernel,
        now_ns: u64,
        stalled: &[Handshake],
        waits: bool,
        to: &mut impl FnMut(Bytes),
    ) -> Result<(), Error> {
        for handshake in stalled {
            if let Some(hello) = kernel.value::<u64, Hello>(HELLOS_MAP, &handshake.cookie)? {
                to(hello_record(handshake, &hello.0));
            }
        }
        let asked = self.questions(kernel, now_ns, to)?;
        let trouble = waits || asked || !stalled.is_empty() || self.wants_answers;
        if trouble && now_ns.saturating_sub(self.answers_at_ns) >= ANSWERS_EVERY_NS {
            self.answers_at_ns = now_ns;
            self.wants_answers = false;
            self.answers(kernel, to)?;
        }
        Ok(())
    }

    /// Reports questions that wait, once, and again when they were sent again. `true`: there are some.
    fn questions(
        &mut self,
        kernel: &mut Kernel,
        now_ns: u64,
        to: &mut impl FnMut(Bytes),
    ) -> Result<bool, Error> {
        let mut lookups = kernel.entries::<Key, Message>(LOOKUPS_MAP)?;
        lookups.sort_by_key(|(key, message)| (message.0.boot_ns, key.0.cookie, key.0.id));
        let live: HashSet<Key> = lookups.iter().map(|(key, _)| *key).collect();
        self.asked.retain(|key, _| live.contains(key));
        let mut waiting = false;
        for (key, Message(message)) in lookups {
            let age = now_ns.saturating_sub(message.boot_ns);
            if age >= FORGOTTEN_NS {
                kernel.forget::<Key, Message>(LOOKUPS_MAP, &key)?;
            } else if age >= UNANSWERED_NS {
                waiting = true;
                if self.asked.insert(key, message.queries) != Some(message.queries) {
                    if message.wire.protocol != 0 {
                        to(wire_record(key.0.cookie, &message));
                    }
                    to(dns_record(key.0.cookie, &message));
                }
            }
        }
        Ok(waiting)
    }

    /// Reports the answers that were not reported yet, for the names in them.
    fn answers(&mut self, kernel: &Kernel, to: &mut impl FnMut(Bytes)) -> Result<(), Error> {
        let mut answers = kernel.entries::<Key, Message>(ANSWERS_MAP)?;
        answers.sort_by_key(|(key, message)| (message.0.boot_ns, key.0.cookie, key.0.id));
        let live: HashSet<(Key, u64)> =
            answers.iter().map(|(key, message)| (*key, message.0.boot_ns)).collect();
        self.answered.retain(|reported| live.contains(reported));
        for (key, Message(message)) in answers {
            if self.answered.insert((key, message.boot_ns)) {
                to(dns_record(key.0.cookie, &message));
            }
        }
        Ok(())
    }
}

fn hello_record(handshake: &Handshake, held: &DeferredHello) -> Bytes {
    // Of one that is not whole, what stands behind a hole is held as well; the hole itself is nothing.
    let len = held.len.min(handshake.hello_seen);
    let data = &held.data[..(len as usize).min(held.data.len())];
    let mut record = Vec::with_capacity(TLS_BYTES_HEAD + data.len());
    let len = (TLS_BYTES_HEAD + data.len()) as u32;
    record.extend_from_slice(&encode(Header { boot_ns: handshake.started_ns, kind: Kind::TLS_BYTES.0, len }));
    record.extend_from_slice(&handshake.cookie.to_ne_bytes());
    record.extend_from_slice(&CLIENT_HELLO.to_ne_bytes());
    record.extend_from_slice(&0u32.to_ne_bytes());
    record.extend_from_slice(data);
    record.into()
}

fn wire_record(cookie: u64, held: &DeferredMessage) -> Bytes {
    let header = Header { boot_ns: held.boot_ns, kind: Kind::DNS_WIRE.0, len: size_of::<DnsWire>() as u32 };
    encode(DnsWire { header, cookie, wire: held.wire, translated: held.translated, pad: 0 })
}

fn dns_record(cookie: u64, held: &DeferredMessage) -> Bytes {
    let data = &held.data[..(held.len as usize).min(held.data.len())];
    let mut record = Vec::with_capacity(DNS_BYTES_HEAD + data.len());
    let len = (DNS_BYTES_HEAD + data.len()) as u32;
    record.extend_from_slice(&encode(Header { boot_ns: held.boot_ns, kind: Kind::DNS_MESSAGE.0, len }));
    record.extend_from_slice(&cookie.to_ne_bytes());
    record.extend_from_slice(&encode(held.owner));
    record.extend_from_slice(&encode(held.tuple));
    record.extend_from_slice(&held.seq.to_ne_bytes());
    record.extend_from_slice(&held.wire_len.to_ne_bytes());
    record.extend_from_slice(&held.ingress.to_ne_bytes());
    let queries = if held.ingress == 0 { held.queries } else { 0 };
    record.extend_from_slice(&queries.to_ne_bytes());
    record.extend_from_slice(data);
    record.into()
}

#[cfg(test)]
mod tests {
    use ebpf_probes::{abi::Owner, probes::dns::HELD};

    use super::*;
    use crate::domains::{Record, decode, dns, tls};

    #[test]
    fn what_is_held_becomes_the_record_it_would_have_been() {
        let mut held = DeferredMessage {
            boot_ns: 7,
            owner: Owner { process: 3, thread: 4, ..Owner::default() },
            tuple: ebpf_probes::abi::Tuple { remote_port: 53, ..Default::default() },
            seq: 0,
            wire_len: 600,
            ingress: 1,
            len: 5,
            queries: 1,
            translated: 0,
            wire: ebpf_probes::abi::Tuple::default(),
            data: [0; HELD],
        };
        held.data[..5].copy_from_slice(b"abcde");
        let event = decode(&dns_record(9, &held)).expect("whole");
        let Record::Dns(dns::Record::Message(message)) = event.what else { panic!("{event:?}") };
        assert_eq!((event.boot_ns, message.cookie, message.owner, message.ingress), (7, 9, held.owner, true));
        assert_eq!(
            (message.tuple.remote_port, message.wire_len, &message.data[..]),
            (53, 600, &b"abcde"[..])
        );
        let mut hello = DeferredHello { len: 3, pad: 0, data: [0; 2 * ebpf_probes::probes::tls::HELLO_HELD] };
        hello.data[..3].copy_from_slice(b"xyz");
        let handshake = Handshake { cookie: 5, started_ns: 2, hello_seen: 3, ..Handshake::default() };
        let event = decode(&hello_record(&handshake, &hello)).expect("whole");
        let Record::Tls(tls::Record::Hello(bytes)) = event.what else { panic!("{event:?}") };
        assert_eq!((event.boot_ns, bytes.cookie, bytes.at, &bytes.data[..]), (2, 5, 0, &b"xyz"[..]));
    }
}
