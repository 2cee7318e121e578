//! The programs behind `dns`: they copy messages out, nothing more.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    programs::SkBuffContext,
};

use super::{DNS_BYTES_HEAD, DnsBytes, LARGE, SMALL};
use crate::{
    abi::{Kind, Owner, ProbeId},
    filter,
    kernel::{SOCKETS, at_most, emit, header, opaque},
    packet::program::Packet,
};

/// A datagram or a segment to or from port 53. Not inlined, for the stack.
#[inline(never)]
pub fn message(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    message_inlined(skb, packet);
    opaque(0)
}

#[inline(always)]
fn message_inlined(skb: *mut __sk_buff, packet: &Packet) {
    if packet.len == 0 || packet.len > 1 << 16 {
        return;
    }
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let owner = SOCKETS.get_ptr(&cookie);
    if owner.is_none() && filter::by_owner() {
        return;
    }
    if packet.len <= SMALL as u32 {
        copy::<SMALL>(&ctx, cookie, owner, packet);
    } else {
        copy::<LARGE>(&ctx, cookie, owner, packet);
    }
}

#[inline(always)]
fn copy<const N: usize>(ctx: &SkBuffContext, cookie: u64, owner: Option<*const Owner>, packet: &Packet) {
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
            packet.write_tuple(ctx, &raw mut (*record).tuple)?;
            (&raw mut (*record).seq).write(packet.seq);
            (&raw mut (*record).wire_len).write(packet.len);
            (&raw mut (*record).ingress).write(u32::from(packet.ingress));
            (&raw mut (*record).pad).write(0);
            let data = (&raw mut (*record).data).cast();
            (bpf_skb_load_bytes(ctx.skb.skb.cast(), packet.offset, data, len) == 0).then_some(())
        }
    });
}
