//! The state machine: what a segment that begins with these bytes says of its handshake.

use aya_ebpf::programs::SkBuffContext;

use super::{
    ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_CCS, CLIENT_CERTIFICATE, ENCRYPTED_FINISH, HOLE,
    Handshake, RETRIED, SERVER, SERVER_HELLO, STALLED, UNREAD,
    capture::{capture, hand_over, let_go},
    report::report,
    stage,
    table::{nobodys, spoke_tls},
};
use crate::{
    abi::Kind,
    bpf::{
        filter,
        packet::{First, Packet},
        time::now,
    },
    fields,
};

/// Record types of RFC 8446 §5.1, and handshake types of §4.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const TYPE_CLIENT_HELLO: u8 = 1;
const TYPE_CERTIFICATE: u8 = 11;
const TYPE_SERVER_HELLO: u8 = 2;

/// Lengths of an encrypted TLS 1.3 record that holds a Finished and nothing else (hash + 4 bytes of
/// header, 1 of type, 16 of tag), with SHA-256 and SHA-384; and of one that holds an alert.
const FINISHED_SHA256: u16 = 53;
const FINISHED_SHA384: u16 = 69;
const ENCRYPTED_ALERT: u16 = 19;
/// An EndOfEarlyData, which precedes a Finished that a certificate cannot accompany.
const END_OF_EARLY_DATA: u16 = 21;

/// Whether these first bytes of a segment can begin a ClientHello, as far as they go.
#[inline(always)]
pub(crate) fn may_begin(first: &[u8; 16], len: u32) -> bool {
    first[0] == HANDSHAKE
        && (len < 2 || first[1] == 3)
        && (len < 3 || first[2] <= 4)
        && (len < 6 || first[5] == TYPE_CLIENT_HELLO)
        // A first record so short that the next one's header follows here is rare, but no less a hello.
        && (len < 7 || first[6] == 0 || record_ends_before(first, 7))
        && (len < 10 || first[9] == 3 || record_ends_before(first, 10))
        && (len < 11 || first[10] <= 4 || record_ends_before(first, 11))
}

/// Whether the first record ends before this many bytes.
#[inline(always)]
fn record_ends_before(first: &[u8; 16], bytes: u32) -> bool {
    5 + u32::from(u16::from_be_bytes([first[3], first[4]])) < bytes
}

/// Marks a handshake that has made no progress for too long: from now on it is reported.
#[inline(always)]
pub(super) fn note_stall(hs: &mut Handshake) {
    if (filter::quiet() || nobodys(hs)) && now().wrapping_sub(hs.moved_ns) >= filter::STALL_NS.load() {
        hs.flags |= STALLED;
    }
}

/// What a segment is to its handshake.
pub(super) enum Step {
    /// One of many.
    On,
    /// The last one: the handshake is over, one way or another.
    Over,
    /// It has more bytes of a ClientHello.
    Hello,
}

/// Moves the state machine.
///
/// # Safety
/// `handshake` must be a live map value, `socket` the packet's BTF-typed `struct tcp_sock`.
#[inline(always)]
pub(super) unsafe fn moved(
    ctx: &SkBuffContext,
    handshake: *mut Handshake,
    packet: &mut Packet,
    first: &mut First,
    socket: *const u8,
) -> Step {
    // SAFETY: as promised by the caller: a live map value.
    let hs = unsafe { &mut *handshake };
    note_stall(hs);
    let from_client = (hs.role == CLIENT) != packet.ingress;
    let next = packet.seq.wrapping_add(packet.len);
    // The socket knows what it has received and sent, this packet not counted.
    // SAFETY: as promised by the caller.
    let expected = unsafe {
        if packet.ingress { fields::TCP_RCV_NXT::read(socket) } else { fields::TCP_SND_NXT::read(socket) }
    };
    let known = expected.wrapping_sub(packet.seq);
    let partial = hs.stage == stage::HELLO_PARTIAL && from_client;
    if (next.wrapping_sub(expected) as i32) <= 0 {
        // A segment seen before says nothing new.
        return Step::On;
    }
    if (known as i32) < 0 {
        // Something before it is missing. What it begins with is the middle of something.
        hs.flags |= HOLE;
        return if partial { Step::Hello } else { Step::On };
    }
    hs.flags &= !HOLE;
    if partial {
        return Step::Hello;
    }
    if known != 0 {
        // Looks past the bytes that were here before.
        packet.seq = packet.seq.wrapping_add(known);
        packet.offset += known;
        packet.len -= known;
        match packet.first(ctx.skb.skb) {
            Some(ahead) => *first = ahead,
            None => return Step::On,
        }
    }
    if from_client {
        hs.client_next = next;
    } else {
        hs.server_next = next;
    }
    if packet.ingress {
        hs.flags |= UNREAD;
    }
    hs.moved_ns = now();
    let record = first[0];
    if record == ALERT && first[1] == 3 && u16::from_be_bytes([first[3], first[4]]) == 2 && packet.len >= 7 {
        hs.alert = u32::from(first[5]) << 8 | u32::from(first[6]) | 1 << 16;
        if from_client {
            hs.flags |= ALERT_BY_CLIENT;
        }
        return over(hs, stage::ALERT);
    }
    if from_client { client(hs, packet, first) } else { server(ctx, hs, packet, first) }
}

/// Whether these first bytes of a segment can begin a ServerHello, as far as they go.
#[inline(always)]
fn may_answer(first: &[u8; 16], len: u32) -> bool {
    first[0] == HANDSHAKE && (len < 2 || first[1] == 3) && (len < 6 || first[5] == TYPE_SERVER_HELLO)
}

#[inline(always)]
fn server(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet, first: &First) -> Step {
    match hs.stage {
        stage::HELLO | stage::HELLO_PARTIAL => {
            if !may_answer(first, packet.len) {
                if hs.stage == stage::HELLO_PARTIAL {
                    return Step::Over;
                }
                return over(hs, stage::NOT_TLS);
            }
            if hs.stage == stage::HELLO_PARTIAL {
                hs.stage = stage::HELLO;
                hand_over(hs);
                report(Kind::TLS_PHASE, hs);
            }
            if hs.role == SERVER {
                spoke_tls(hs);
            }
            capture(ctx, hs, SERVER_HELLO, 0, packet.offset, packet.len);
            hs.stage = stage::SERVER_FLIGHT;
            report(Kind::TLS_PHASE, hs);
            Step::On
        }
        stage::CLIENT_FINISH => {
            let len = u16::from_be_bytes([first[3], first[4]]);
            if hs.flags & ENCRYPTED_FINISH != 0 && first[0] == APPLICATION_DATA && len == ENCRYPTED_ALERT {
                // TLS 1.3: the server refuses the client's certificate, or wants one.
                hs.flags |= ALERT_ENCRYPTED;
                return over(hs, stage::ALERT);
            }
            over(hs, stage::DONE)
        }
        _ => Step::On,
    }
}

#[inline(always)]
fn client(hs: &mut Handshake, packet: &Packet, first: &First) -> Step {
    if hs.stage != stage::SERVER_FLIGHT {
        return Step::On;
    }
    let mut kind = first[0];
    let mut len = u16::from_be_bytes([first[3], first[4]]);
    let mut hello = u16::from_be_bytes([first[7], first[8]]);
    let mut message = first[5];
    let mut skip = 0;
    if kind == CHANGE_CIPHER_SPEC {
        hs.flags |= CLIENT_CCS;
        if packet.len < 11 {
            return Step::On;
        }
        kind = first[6];
        len = u16::from_be_bytes([first[9], first[10]]);
        message = first[11];
        hello = u16::from_be_bytes([first[13], first[14]]);
        skip = 6;
    }
    if kind == HANDSHAKE {
        if message == TYPE_CLIENT_HELLO && hello.wrapping_add(4) == len {
            return retried(hs, packet.seq.wrapping_add(skip));
        }
        // Up to TLS 1.2 certificates are in the clear; a list without any is three bytes long.
        if message == TYPE_CERTIFICATE && hello > 3 {
            hs.flags |= CLIENT_CERTIFICATE;
        }
        if hs.flags & CLIENT_CCS != 0 {
            // Nothing clear came before: a resumed TLS 1.2 session ends with the client's Finished.
            return over(hs, stage::DONE);
        }
        return waits(hs);
    }
    if kind != APPLICATION_DATA {
        return Step::On;
    }
    hs.flags |= ENCRYPTED_FINISH;
    match len {
        FINISHED_SHA256 | FINISHED_SHA384 | END_OF_EARLY_DATA => over(hs, stage::DONE),
        ENCRYPTED_ALERT => {
            hs.flags |= ALERT_BY_CLIENT | ALERT_ENCRYPTED;
            over(hs, stage::ALERT)
        }
        _ => {
            hs.flags |= CLIENT_CERTIFICATE;
            waits(hs)
        }
    }
}

#[inline(always)]
fn waits(hs: &mut Handshake) -> Step {
    hs.stage = stage::CLIENT_FINISH;
    report(Kind::TLS_PHASE, hs);
    Step::On
}

/// The server asked for another ClientHello and here it is: the same handshake goes on.
#[inline(always)]
fn retried(hs: &mut Handshake, begins: u32) -> Step {
    hs.flags |= RETRIED;
    hs.flags &= !CLIENT_CCS;
    hs.hello_seq = begins;
    hs.hello_len = 0;
    hs.hello_seen = 0;
    hs.record_end = 0;
    hs.left = 0;
    hs.read_stage = 0;
    hs.stage = stage::HELLO_PARTIAL;
    let_go(hs.cookie);
    Step::Hello
}

/// Ends a handshake; `how` is the stage it ends in. It is reported by [`super::failing::ended`].
#[inline(always)]
pub(super) fn over(hs: &mut Handshake, how: u32) -> Step {
    hs.read_stage = hs.stage;
    hs.stage = how;
    Step::Over
}
