//! The state machine: what a segment that begins with these bytes says of its handshake.

use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, programs::SkBuffContext};

use super::{
    ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_CCS, CLIENT_CERTIFICATE, CLIENT_HELLO, ENCRYPTED_FINISH,
    HELLO_CAPTURED, Handshake, LARGE, RETRIED, SERVER_HELLO, SMALL, STALLED, UNREAD, stage,
    told::{capture, nobodys, release, tell, told},
};
use crate::{
    abi::Kind,
    filter,
    kernel::{at_most, now, opaque},
    packet::program::Packet,
};

/// Record types of RFC 8446 §5.1, and handshake types of §4.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const TYPE_CLIENT_HELLO: u8 = 1;
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
        && (len < 7 || first[6] == 0)
        && (len < 10 || first[9] == 3)
        && (len < 11 || first[10] <= 4)
}

/// Marks a handshake that has made no progress for too long: from now on it is told.
#[inline(always)]
pub(super) fn note_stall(hs: &mut Handshake) {
    if (filter::quiet() || nobodys(hs)) && now().wrapping_sub(hs.moved_ns) >= filter::STALL_NS.load() {
        hs.flags |= STALLED;
    }
}

/// Moves the state machine. `true`: the handshake is over, one way or another.
///
/// # Safety
/// `handshake` must be a live map value.
#[inline(always)]
pub(super) unsafe fn moved(ctx: &SkBuffContext, handshake: *mut Handshake, packet: &Packet) -> bool {
    // SAFETY: as promised by the caller: a live map value.
    let hs = unsafe { &mut *handshake };
    note_stall(hs);
    let from_client = (hs.role == CLIENT) != packet.ingress;
    let next = packet.seq.wrapping_add(packet.len);
    if hs.stage == stage::HELLO_PARTIAL && from_client {
        return hello_bytes(ctx, hs, packet, 0);
    }
    // A segment seen before says nothing new.
    let known = if from_client { hs.client_next } else { hs.server_next };
    if (from_client || known != 0) && (next.wrapping_sub(known) as i32) <= 0 {
        return false;
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
    let first = &packet.first;
    let record = first[0];
    if record == ALERT && first[1] == 3 && u16::from_be_bytes([first[3], first[4]]) == 2 && packet.len >= 7 {
        hs.alert = u32::from(first[5]) << 8 | u32::from(first[6]) | 1 << 16;
        if from_client {
            hs.flags |= ALERT_BY_CLIENT;
        }
        return over(hs, stage::ALERT);
    }
    if from_client { client(ctx, hs, packet) } else { server(ctx, hs, packet) }
}

#[inline(always)]
fn server(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet) -> bool {
    let first = &packet.first;
    match hs.stage {
        stage::HELLO | stage::HELLO_PARTIAL => {
            if first[0] != HANDSHAKE || first[1] != 3 || (packet.len >= 6 && first[5] != TYPE_SERVER_HELLO) {
                if hs.stage == stage::HELLO_PARTIAL {
                    return true;
                }
                return over(hs, stage::NOT_TLS);
            }
            if hs.stage == stage::HELLO_PARTIAL {
                hs.stage = stage::HELLO;
                tell(Kind::TlsPhase, hs);
            }
            capture::<SMALL>(ctx, hs, SERVER_HELLO, 0, packet.offset, packet.len);
            hs.stage = stage::SERVER_FLIGHT;
            tell(Kind::TlsPhase, hs);
            false
        }
        stage::CLIENT_FINISH => over(hs, stage::DONE),
        _ => false,
    }
}

#[inline(always)]
fn client(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet) -> bool {
    if hs.stage != stage::SERVER_FLIGHT {
        return false;
    }
    let first = &packet.first;
    let mut kind = first[0];
    let mut len = u16::from_be_bytes([first[3], first[4]]);
    let mut hello = u16::from_be_bytes([first[7], first[8]]);
    let mut message = first[5];
    let mut skip = 0;
    if kind == CHANGE_CIPHER_SPEC {
        hs.flags |= CLIENT_CCS;
        if packet.len < 11 {
            return false;
        }
        kind = first[6];
        len = u16::from_be_bytes([first[9], first[10]]);
        message = first[11];
        hello = u16::from_be_bytes([first[13], first[14]]);
        skip = 6;
    }
    if kind == HANDSHAKE {
        if message == TYPE_CLIENT_HELLO && hello.wrapping_add(4) == len {
            return retried(ctx, hs, packet, skip);
        }
        if hs.flags & CLIENT_CCS != 0 {
            // Nothing clear came before: a resumed TLS 1.2 session ends with the client's Finished.
            return over(hs, stage::DONE);
        }
        return waits(hs);
    }
    if kind != APPLICATION_DATA {
        return false;
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
fn waits(hs: &mut Handshake) -> bool {
    hs.stage = stage::CLIENT_FINISH;
    tell(Kind::TlsPhase, hs);
    false
}

/// The server asked for another ClientHello and here it is: the same handshake goes on.
#[inline(always)]
fn retried(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet, skip: u32) -> bool {
    hs.flags |= RETRIED;
    hs.flags &= !CLIENT_CCS;
    hs.hello_seq = packet.seq.wrapping_add(skip);
    hs.hello_len = 0;
    hs.hello_seen = 0;
    hs.read_stage = 0;
    hs.stage = stage::HELLO_PARTIAL;
    hello_bytes(ctx, hs, packet, skip)
}

/// More bytes of a ClientHello that is not whole yet. `true`: it is none after all.
#[inline(always)]
fn hello_bytes(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet, skip: u32) -> bool {
    let (seq, offset, len) = (packet.seq.wrapping_add(skip), packet.offset + skip, packet.len - skip);
    let at = seq.wrapping_sub(hs.hello_seq);
    let end = at.wrapping_add(len);
    if at > HELLO_CAPTURED || end <= hs.hello_seen {
        return false;
    }
    if at == hs.hello_seen && at < 16 {
        // The first sixteen bytes may come in pieces.
        let want = at_most::<16>(len);
        // SAFETY: at < 16 and want <= 16 stay within the 32 bytes of the prefix.
        let read = unsafe {
            let to = (&raw mut hs.prefix).cast::<u8>().add((opaque(u64::from(at)) & 15) as usize);
            bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, to.cast(), want)
        };
        if read != 0 {
            return false;
        }
    }
    if at <= hs.hello_seen {
        hs.hello_seen = end;
    }
    let seen = hs.hello_seen;
    let mut first = [0u8; 16];
    first.copy_from_slice(&hs.prefix[..16]);
    if !may_begin(&first, seen) {
        return true;
    }
    hs.client_next = seq.wrapping_add(len);
    hs.moved_ns = now();
    if packet.ingress {
        hs.flags |= UNREAD;
    }
    if seen >= 5 {
        hs.hello_len = 5 + u32::from(u16::from_be_bytes([first[3], first[4]]));
    }
    if len <= SMALL as u32 {
        capture::<SMALL>(ctx, hs, CLIENT_HELLO, at, offset, len);
    } else {
        let mut done = 0;
        for _ in 0..4 {
            if done >= len {
                break;
            }
            capture::<LARGE>(ctx, hs, CLIENT_HELLO, at + done, offset + done, len - done);
            done += LARGE as u32;
        }
    }
    if seen >= 11 && hs.hello_len != 0 && seen >= hs.hello_len {
        hs.stage = stage::HELLO;
        tell(Kind::TlsPhase, hs);
    }
    false
}

/// Ends a handshake; `how` is the stage it ends in.
#[inline(always)]
pub(super) fn over(hs: &mut Handshake, how: u32) -> bool {
    hs.read_stage = hs.stage;
    hs.stage = how;
    let exposed = filter::quiet()
        && hs.flags & STALLED == 0
        && (how == stage::ALERT || (how == stage::DONE && hs.role == CLIENT))
        && filter::exposed(hs.moved_ns);
    if exposed && !nobodys(hs) {
        release(hs.cookie);
        told(Kind::TlsPhase, hs);
    } else {
        tell(Kind::TlsPhase, hs);
    }
    true
}
