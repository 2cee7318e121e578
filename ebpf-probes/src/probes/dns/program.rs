//! The programs behind `dns`: they copy messages out, nothing more.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{
    ANY_TCP, DNS_BYTES_HEAD, DnsBytes, DnsWire, HELD, HeldMessage, LARGE, LOOKUPS as FOLLOWED, LookupKey,
    SMALL,
    asked::{Asker, asker, elsewhere, write_ends},
    counted::counted,
};
use crate::{
    abi::{Header, IPPROTO_TCP, Kind, Owner, ProbeId},
    call, filter,
    kernel::{SOCKETS, at_most, emit, header, now, opaque},
    packet::program::{Packet, netns_of},
    probes::tls::program::sender,
};

/// Questions that wait for their answers, when they are not put on the ring.
#[map]
pub(super) static LOOKUPS: LruHashMap<LookupKey, HeldMessage> = LruHashMap::with_max_entries(FOLLOWED, 0);

/// The last answers, likewise: where the names of addresses come from once a name is needed.
#[map]
static ANSWERS: LruHashMap<LookupKey, HeldMessage> = LruHashMap::with_max_entries(FOLLOWED, 0);

/// An empty message, to begin from. Never written.
#[map]
static NO_MESSAGE: Array<HeldMessage> = Array::with_max_entries(1, 0);

/// Bytes of a message before its question: RFC 1035 §4.1.1.
pub(super) const MESSAGE_HEADER: u32 = 12;
const NO_SUCH_NAME: u8 = 3;

/// A datagram or a segment to or from port 53. Not inlined, for the stack.
#[inline(never)]
pub fn message(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    if packet.len != 0 && packet.len <= 1 << 16 {
        if !packet.ingress && !filter::quiet() {
            call!(goes_elsewhere(skb, packet));
        }
        call!(looked_into(skb, packet));
    }
    opaque(0)
}

/// A message, whatever becomes of it. Not inlined, for the stack.
#[inline(never)]
fn looked_into(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    message_inlined(skb, packet);
    opaque(0)
}

#[inline(always)]
fn message_inlined(skb: *mut __sk_buff, packet: &Packet) {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let asker = asker(cookie, packet);
    let owner = match asker {
        // SAFETY: a live map value.
        Some(asker) => Some(unsafe { &raw const (*asker).owner }),
        None => SOCKETS.get_ptr(&cookie),
    };
    if owner.is_none() && filter::by_owner() {
        return;
    }
    call!(counted(skb, packet, cookie));
    if filter::quiet() {
        held(&ctx, cookie, owner, asker, packet);
        return;
    }
    if packet.len <= SMALL as u32 {
        copy::<SMALL>(&ctx, cookie, owner, asker, packet);
    } else {
        copy::<LARGE>(&ctx, cookie, owner, asker, packet);
    }
}

/// Tells whither a question goes, if that is not where it was asked. Not inlined, for the stack.
#[inline(never)]
fn goes_elsewhere(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let asker = asker(cookie, packet);
    if asker.is_none() && filter::by_owner() {
        return opaque(0);
    }
    if let Some(elsewhere) = elsewhere(&ctx, packet, asker) {
        emit::<DnsWire>(ProbeId::Dns, |record| {
            // SAFETY: a fresh reservation of which every byte is written.
            unsafe {
                (&raw mut (*record).header).write(header::<DnsWire>(Kind::DnsWire));
                (&raw mut (*record).cookie).write(cookie);
                (&raw mut (*record).translated).write(elsewhere.translated);
                (&raw mut (*record).pad).write(0);
                packet.write_tuple(&ctx, &raw mut (*record).wire)
            }
        });
    }
    opaque(0)
}

/// Tells whither a question went that was held.
#[inline(always)]
fn told_wire(cookie: u64, held: *const HeldMessage) {
    emit::<DnsWire>(ProbeId::Dns, |record| {
        // SAFETY: a fresh reservation of which every byte is written, and a live map value.
        unsafe {
            let len = size_of::<DnsWire>() as u32;
            let header = Header { boot_ns: (*held).boot_ns, kind: Kind::DnsWire as u32, len };
            (&raw mut (*record).header).write(header);
            (&raw mut (*record).cookie).write(cookie);
            (&raw mut (*record).translated).write((*held).translated);
            (&raw mut (*record).pad).write(0);
            core::ptr::copy_nonoverlapping(&raw const (*held).wire, &raw mut (*record).wire, 1);
        }
        Some(())
    });
}

/// Holds a question until its answer; tells both only when that was slow or failed.
#[inline(always)]
fn held(
    ctx: &SkBuffContext,
    cookie: u64,
    owner: Option<*const Owner>,
    asker: Option<*const Asker>,
    packet: &Packet,
) {
    let mut key = LookupKey { cookie, id: ANY_TCP };
    let mut refused = false;
    if packet.protocol != IPPROTO_TCP {
        if packet.len < MESSAGE_HEADER {
            return;
        }
        let Ok(start) = ctx.load::<[u8; 4]>(packet.offset as usize) else { return };
        let is_answer = start[2] & 0x80 != 0;
        if is_answer != packet.ingress {
            return;
        }
        key.id = u64::from(u16::from_be_bytes([start[0], start[1]]));
        refused = is_answer && start[3] & 15 != 0 && start[3] & 15 != NO_SUCH_NAME;
    }
    let known = LOOKUPS.get_ptr_mut(&key);
    if !packet.ingress {
        match known {
            // SAFETY: a live map value; a count torn by another CPU does no harm.
            Some(known) => unsafe { (*known).queries += 1 },
            None => keep(&LOOKUPS, ctx, &key, owner, asker, packet),
        }
        return;
    }
    let Some(known) = known else { return };
    // SAFETY: a live map value.
    let slow = now().wrapping_sub(unsafe { (*known).boot_ns }) >= filter::SLOW_NS.load();
    if slow || refused {
        told(cookie, known);
        copy::<HELD>(ctx, cookie, owner, asker, packet);
    } else {
        keep(&ANSWERS, ctx, &key, owner, asker, packet);
    }
    let _ = LOOKUPS.remove(&key);
}

#[inline(always)]
fn keep(
    map: &LruHashMap<LookupKey, HeldMessage>,
    ctx: &SkBuffContext,
    key: &LookupKey,
    owner: Option<*const Owner>,
    asker: Option<*const Asker>,
    packet: &Packet,
) {
    let Some(empty) = NO_MESSAGE.get_ptr(0) else { return };
    // SAFETY: a live array slot that nobody writes; then the value just made, which only this socket's
    // packets write. What cannot be read stays empty.
    unsafe {
        let _ = map.insert(key, &*empty, 0);
        let Some(held) = map.get_ptr_mut(key) else { return };
        (*held).boot_ns = now();
        match owner {
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
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), packet.offset, data, len) == 0 {
            (*held).len = len;
        }
    }
}

/// Tells a question that was held, dated when it was asked.
#[inline(always)]
fn told(cookie: u64, held: *const HeldMessage) {
    // SAFETY: a live map value.
    if unsafe { (*held).wire.protocol } != 0 {
        told_wire(cookie, held);
    }
    emit::<DnsBytes<HELD>>(ProbeId::Dns, |record| {
        // SAFETY: a fresh reservation of which every byte is written, and a live map value.
        unsafe {
            let len = DNS_BYTES_HEAD as u32 + at_most::<HELD>((*held).len);
            let header = Header { boot_ns: (*held).boot_ns, kind: Kind::DnsMessage as u32, len };
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
}

#[inline(always)]
fn copy<const N: usize>(
    ctx: &SkBuffContext,
    cookie: u64,
    owner: Option<*const Owner>,
    asker: Option<*const Asker>,
    packet: &Packet,
) {
    emit::<DnsBytes<N>>(ProbeId::Dns, |record| {
        let len = at_most::<N>(packet.len);
        // SAFETY: a fresh reservation; the head is written whole, the data as far as `len` says. A torn
        // read of the owner costs a wrong name for an entry just replaced.
        unsafe {
            let mut head = header::<DnsBytes<N>>(Kind::DnsMessage);
            head.len = DNS_BYTES_HEAD as u32 + len;
            (&raw mut (*record).header).write(head);
            (&raw mut (*record).cookie).write(cookie);
            match owner {
                Some(owner) => (&raw mut (*record).owner).write(*owner),
                None => (&raw mut (*record).owner).write(Owner::default()),
            }
            write_ends(ctx, packet, asker, &raw mut (*record).tuple)?;
            (&raw mut (*record).seq).write(packet.seq);
            (&raw mut (*record).wire_len).write(packet.len);
            (&raw mut (*record).ingress).write(u32::from(packet.ingress));
            (&raw mut (*record).queries).write(0);
            let data = (&raw mut (*record).data).cast();
            (bpf_skb_load_bytes(ctx.skb.skb.cast(), packet.offset, data, len) == 0).then_some(())
        }
    });
}
