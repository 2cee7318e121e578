//! The programs behind `dns`: they copy messages out, nothing more.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    programs::SkBuffContext,
};

use super::{
    ANY_TCP, DNS_BYTES_HEAD, DeferredMessage, DnsBytes, DnsWire, HELD, LARGE, LookupKey, SMALL,
    clients::{Asker, asker, elsewhere, write_ends},
    lookups::{ANSWERS, LOOKUPS, MESSAGE_HEADER, NO_MESSAGE},
    stats::dns_counted,
};
use crate::{
    abi::{Header, IPPROTO_TCP, Kind, Owner, ProbeId},
    bpf::{
        filter,
        netns::current_netns,
        owner::{SOCKETS, sender},
        packet::{Packet, netns_of},
        ring::{emit, header},
        time::now,
        verifier::{at_most, call, opaque},
    },
};

const NO_SUCH_NAME: u8 = 3;

/// A datagram or a segment to or from port 53.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dns_message(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let packet = Packet::of(ends, payload);
    if packet.len != 0 && packet.len <= 1 << 16 {
        if !packet.ingress && !filter::quiet() {
            call!(dns_wire(skb, ends, payload));
        }
        let ctx = SkBuffContext::new(skb.cast());
        // SAFETY: the context of a cgroup_skb program.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        if !filter::by_owner() || call!(dns_owned(ends, payload, cookie)) != 0 {
            call!(dns_counted(skb, ends, payload, cookie));
            call!(dns_looked_into(skb, ends, payload, cookie));
        }
    }
    opaque(0)
}

/// Whether it is known whose message it is: 1. A step of its own, for the stack of its caller.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_owned(ends: u64, payload: u64, cookie: u64) -> u64 {
    let owner = owner(cookie, asker(cookie, &Packet::of(ends, payload)));
    opaque(u64::from(owner.is_some()))
}

/// Whose message it is.
#[inline(always)]
fn owner(cookie: u64, asker: Option<*const Asker>) -> Option<*const Owner> {
    match asker {
        // SAFETY: a live map value.
        Some(asker) => Some(unsafe { &raw const (*asker).owner }),
        None => SOCKETS.get_ptr(&cookie),
    }
}

/// A question on a socket that was connected before culprit started: datagrams are sent by who asks, so the calling
/// thread is remembered as the socket's. Called by the egress program before [`dns_message`], whose stack is short.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dns_sender(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if owner(cookie, asker(cookie, &Packet::of(ends, payload))).is_some() {
        return opaque(0);
    }
    let mut asks = Owner::default();
    // SAFETY: the packet's own context; a live place.
    unsafe { sender(&ctx, &raw mut asks) };
    asks.netns = current_netns();
    if asks.process != 0 && filter::process(&asks) && filter::packet_in_cgroup(skb) {
        let _ = SOCKETS.insert(&cookie, &asks, 0);
    }
    opaque(0)
}

/// A message that is wanted: whether it is reported, held, or let go.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_looked_into(skb: *mut __sk_buff, ends: u64, payload: u64, cookie: u64) -> u64 {
    let packet = Packet::of(ends, payload);
    if filter::quiet() {
        held(skb, cookie, &packet);
    } else {
        copy_of(skb, cookie, &packet);
    }
    opaque(0)
}

/// Reports whither a question goes, if that is not where it was asked.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_wire(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let (ctx, packet) = (SkBuffContext::new(skb.cast()), &Packet::of(ends, payload));
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let asker = asker(cookie, packet);
    if asker.is_none() && filter::by_owner() {
        return opaque(0);
    }
    if let Some(elsewhere) = elsewhere(&ctx, packet, asker) {
        emit::<DnsWire>(ProbeId::DNS, |record| {
            // SAFETY: a fresh reservation of which every byte is written.
            unsafe {
                (&raw mut (*record).header).write(header::<DnsWire>(Kind::DNS_WIRE));
                (&raw mut (*record).cookie).write(cookie);
                (&raw mut (*record).translated).write(elsewhere.translated);
                (&raw mut (*record).pad).write(0);
                packet.write_tuple(&ctx, &raw mut (*record).wire)
            }
        });
    }
    opaque(0)
}

/// Reports whither a question went that was held.
#[inline(always)]
fn reported_wire(cookie: u64, held: *const DeferredMessage) {
    emit::<DnsWire>(ProbeId::DNS, |record| {
        // SAFETY: a fresh reservation of which every byte is written, and a live map value.
        unsafe {
            let len = size_of::<DnsWire>() as u32;
            let header = Header { boot_ns: (*held).boot_ns, kind: Kind::DNS_WIRE.0, len };
            (&raw mut (*record).header).write(header);
            (&raw mut (*record).cookie).write(cookie);
            (&raw mut (*record).translated).write((*held).translated);
            (&raw mut (*record).pad).write(0);
            core::ptr::copy_nonoverlapping(&raw const (*held).wire, &raw mut (*record).wire, 1);
        }
        Some(())
    });
}

/// Holds a question until its answer; reports both only when that was slow or failed.
#[inline(always)]
fn held(skb: *mut __sk_buff, cookie: u64, packet: &Packet) {
    let mut key = LookupKey { cookie, id: ANY_TCP };
    let mut refused = false;
    if packet.protocol != IPPROTO_TCP {
        if packet.len < MESSAGE_HEADER {
            return;
        }
        let Ok(start) = SkBuffContext::new(skb.cast()).load::<[u8; 4]>(packet.offset as usize) else {
            return;
        };
        let is_answer = start[2] & 0x80 != 0;
        if is_answer != packet.ingress {
            return;
        }
        key.id = u64::from(u16::from_be_bytes([start[0], start[1]]));
        refused = is_answer && start[3] & 15 != 0 && start[3] & 15 != NO_SUCH_NAME;
    }
    let known = LOOKUPS.get_ptr_mut(&key);
    let (ends, payload) = packet.words();
    if !packet.ingress {
        match known {
            // SAFETY: a live map value; a count torn by another CPU does no harm.
            Some(known) => unsafe { (*known).queries += 1 },
            None => {
                call!(dns_keep(skb, ends, payload, key.cookie, key.id));
            }
        }
        return;
    }
    let Some(known) = known else { return };
    // SAFETY: a live map value.
    let slow = now().wrapping_sub(unsafe { (*known).boot_ns }) >= filter::SLOW_NS.load();
    if slow || refused {
        call!(dns_reported(key.cookie, key.id));
        copy_of(skb, cookie, packet);
    } else {
        call!(dns_keep(skb, ends, payload, key.cookie, key.id));
    }
    let _ = LOOKUPS.remove(&key);
}

/// Keeps a message: a question with those that wait, an answer with the last ones.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_keep(skb: *mut __sk_buff, ends: u64, payload: u64, cookie: u64, id: u64) -> u64 {
    let (ctx, packet) = (&SkBuffContext::new(skb.cast()), &Packet::of(ends, payload));
    let key = &LookupKey { cookie, id };
    let Some(empty) = NO_MESSAGE.get_ptr(0) else { return opaque(0) };
    // SAFETY: a live array slot that is never written; then the value just made, which only this socket's
    // packets write. What cannot be read stays empty.
    unsafe {
        let held = if packet.ingress {
            let _ = ANSWERS.insert(key, &*empty, 0);
            ANSWERS.get_ptr_mut(key)
        } else {
            let _ = LOOKUPS.insert(key, &*empty, 0);
            LOOKUPS.get_ptr_mut(key)
        };
        let Some(held) = held else { return opaque(0) };
        (*held).boot_ns = now();
        let asker = asker(cookie, packet);
        match owner(cookie, asker) {
            Some(owner) => (*held).owner = *owner,
            None if !packet.ingress => {
                sender(ctx, &raw mut (*held).owner);
                (*held).owner.netns = netns_of(ctx).unwrap_or_default();
            }
            None => {}
        }
        let _ = write_ends(ctx, packet, asker, &raw mut (*held).tuple);
        if let Some(elsewhere) = elsewhere(ctx, packet, asker) {
            (*held).translated = elsewhere.translated;
            let _ = packet.write_tuple(ctx, &raw mut (*held).wire);
        }
        (*held).seq = packet.seq;
        (*held).wire_len = packet.len;
        (*held).ingress = u32::from(packet.ingress);
        (*held).queries = 1;
        let len = at_most::<HELD>(packet.len);
        let data = (&raw mut (*held).data).cast();
        if bpf_skb_load_bytes(skb.cast(), packet.offset, data, len) == 0 {
            (*held).len = len;
        }
    }
    opaque(0)
}

/// Reports a question that was held, dated when it was asked.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_reported(cookie: u64, id: u64) -> u64 {
    let Some(held) = LOOKUPS.get_ptr(&LookupKey { cookie, id }) else { return opaque(0) };
    // SAFETY: a live map value.
    if unsafe { (*held).wire.protocol } != 0 {
        reported_wire(cookie, held);
    }
    emit::<DnsBytes<HELD>>(ProbeId::DNS, |record| {
        // SAFETY: a fresh reservation of which every byte is written, and a live map value.
        unsafe {
            let len = DNS_BYTES_HEAD as u32 + at_most::<HELD>((*held).len);
            let header = Header { boot_ns: (*held).boot_ns, kind: Kind::DNS_MESSAGE.0, len };
            (&raw mut (*record).header).write(header);
            (&raw mut (*record).cookie).write(cookie);
            core::ptr::copy_nonoverlapping(&raw const (*held).owner, &raw mut (*record).owner, 1);
            core::ptr::copy_nonoverlapping(&raw const (*held).tuple, &raw mut (*record).tuple, 1);
            (&raw mut (*record).seq).write((*held).seq);
            (&raw mut (*record).wire_len).write((*held).wire_len);
            (&raw mut (*record).ingress).write((*held).ingress);
            (&raw mut (*record).queries).write((*held).queries);
            core::ptr::copy_nonoverlapping(&raw const (*held).data, &raw mut (*record).data, 1);
        }
        Some(())
    });
    opaque(0)
}

/// Hands a message to the agent, as much of it as a record has room for.
#[inline(always)]
fn copy_of(skb: *mut __sk_buff, cookie: u64, packet: &Packet) {
    let (ends, payload) = packet.words();
    call!(dns_copy(skb, ends, payload, cookie));
}

/// See [`copy_of`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dns_copy(skb: *mut __sk_buff, ends: u64, payload: u64, cookie: u64) -> u64 {
    let packet = Packet::of(ends, payload);
    if filter::quiet() {
        copy::<HELD>(skb, cookie, &packet);
    } else if packet.len <= SMALL as u32 {
        copy::<SMALL>(skb, cookie, &packet);
    } else {
        copy::<LARGE>(skb, cookie, &packet);
    }
    opaque(0)
}

#[inline(always)]
fn copy<const N: usize>(skb: *mut __sk_buff, cookie: u64, packet: &Packet) {
    let ctx = &SkBuffContext::new(skb.cast());
    let asker = asker(cookie, packet);
    emit::<DnsBytes<N>>(ProbeId::DNS, |record| {
        let len = at_most::<N>(packet.len);
        // SAFETY: a fresh reservation; the head is written whole, the data as far as `len` says. A torn
        // read of the owner costs a wrong name for an entry just replaced.
        unsafe {
            let mut head = header::<DnsBytes<N>>(Kind::DNS_MESSAGE);
            head.len = DNS_BYTES_HEAD as u32 + len;
            (&raw mut (*record).header).write(head);
            (&raw mut (*record).cookie).write(cookie);
            match owner(cookie, asker) {
                Some(owner) => (&raw mut (*record).owner).write(*owner),
                None => (&raw mut (*record).owner).write(Owner::default()),
            }
            write_ends(ctx, packet, asker, &raw mut (*record).tuple)?;
            (&raw mut (*record).seq).write(packet.seq);
            (&raw mut (*record).wire_len).write(packet.len);
            (&raw mut (*record).ingress).write(u32::from(packet.ingress));
            (&raw mut (*record).queries).write(0);
            let data = (&raw mut (*record).data).cast();
            (bpf_skb_load_bytes(skb.cast(), packet.offset, data, len) == 0).then_some(())
        }
    });
}
