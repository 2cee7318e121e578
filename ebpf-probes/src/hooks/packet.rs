//! The two programs that see packets, once for all probes: they find the transport header, decide
//! in a few loads whether a packet is any of our business, and hand it on.
//!
//! Cost: runs for every packet of every socket below the cgroup root. A packet that is none of our
//! business pays the header loads, one array slot and at most one 16-byte copy of its payload.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};

use crate::{
    abi::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, ProbeId},
    bpf::{
        filter::enabled,
        packet::{First, Packet, socket_ports},
        tcp::flag,
        verifier::{call, opaque},
    },
    probes::{
        clock::date,
        connect::{backlog, icmp, overflow, wire},
        dns::{PORT as DNS_PORT, clients, program as dns},
        neigh::{
            datagrams, leaves,
            source_mac::{self, segment},
            suspects,
        },
        tls::program as tls,
    },
};

#[cgroup_skb]
pub fn packet_in(ctx: SkBuffContext) -> i32 {
    packet(&ctx, true);
    1
}

#[cgroup_skb]
pub fn packet_out(ctx: SkBuffContext) -> i32 {
    packet(&ctx, false);
    1
}

#[inline(always)]
fn packet(ctx: &SkBuffContext, ingress: bool) {
    let skb = ctx.skb.skb;
    // SAFETY: context loads, then direct packet access below `end`, which the verifier checks.
    unsafe {
        let (data, end) = ((*skb).data as usize, (*skb).data_end as usize);
        if data + 28 > end {
            return;
        }
        let ip = data as *const u8;
        let v4 = *ip >> 4 == 4;
        let (at, protocol) =
            if v4 { (usize::from(*ip & 15) * 4, u16::from(*ip.add(9))) } else { (40, u16::from(*ip.add(6))) };
        let transport = data + at;
        if transport + 8 > end || at < 20 {
            return;
        }
        let ports = transport as *const u8;
        let source = u16::from_be_bytes([*ports, *ports.add(1)]);
        let target = u16::from_be_bytes([*ports.add(2), *ports.add(3)]);
        let (local, remote) = if ingress { (target, source) } else { (source, target) };
        let mut packet = Packet { ingress, v4, protocol, local, remote, seq: 0, offset: 0, len: 0 };
        if protocol == IPPROTO_UDP {
            if enabled(ProbeId::NEIGH) && suspects::pinned() {
                packet.offset = at as u32 + 8;
                packet.len = (*skb).len.wrapping_sub(packet.offset);
                let (ends, payload) = packet.words();
                let again = call!(datagrams::neigh_datagram(skb, ends, payload));
                if again != 0 {
                    call!(datagrams::neigh_repeats(skb, ends, payload, again));
                }
            }
            if enabled(ProbeId::DNS) && (remote == DNS_PORT || clients::of_asker(ctx)) {
                packet.offset = at as u32 + 8;
                packet.len = (*skb).len.wrapping_sub(packet.offset);
                let (ends, payload) = packet.words();
                if !ingress {
                    call!(dns::dns_sender(skb, ends, payload));
                }
                call!(dns::dns_message(skb, ends, payload));
            }
            return;
        }
        if protocol != IPPROTO_TCP || transport + 20 > end {
            let icmp = protocol == if v4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
            if icmp && !ingress && enabled(ProbeId::CONNECT) && icmp::is_unreachable(v4, *ports) {
                packet.offset = at as u32;
                let (ends, payload) = packet.words();
                call!(icmp::icmp_sent(skb, ends, payload));
            }
            return;
        }
        let flags = *ports.add(13);
        let asks = flags & flag::SYN != 0 && flags & flag::ACK == 0;
        packet.offset = at as u32 + u32::from(*ports.add(12) >> 4) * 4;
        packet.len = (*skb).len.wrapping_sub(packet.offset);
        packet.seq = u32::from_be_bytes([*ports.add(4), *ports.add(5), *ports.add(6), *ports.add(7)]);
        // A SYN comes before the first byte (TCP Fast Open).
        packet.seq = packet.seq.wrapping_add(u32::from(flags & flag::SYN != 0));
        let (ends, payload) = packet.words();
        if asks && !ingress {
            call!(packet_syn(skb, ends, payload));
        }
        if !ingress && flags & flag::SYN != 0 && enabled(ProbeId::NEIGH) && suspects::routing() {
            call!(leaves::neigh_leaves(skb, ends, payload, u64::from(!asks)));
        }
        if ingress && asks && enabled(ProbeId::CONNECT) && call!(backlog::syn_came(skb, ends, payload)) != 0 {
            call!(overflow::syn_ignored(skb, ends, payload));
        }
        if ingress && enabled(ProbeId::NEIGH) {
            let what = if asks {
                segment::SYN
            } else if flags & flag::SYN != 0 {
                segment::SYN_ACK
            } else if flags & flag::RST != 0 {
                segment::RESET
            } else {
                segment::OTHER
            };
            if flags & flag::SYN != 0
                || suspects::watching()
                || (what == segment::RESET && suspects::suspicious())
            {
                call!(source_mac::neigh_came(skb, ends, payload, u64::from(what)));
            }
        }
        if packet.len == 0 || packet.len > 1 << 20 {
            if packet.len == 0 && !ingress && enabled(ProbeId::TLS) && tls::cookies_come_with_packets() {
                let (local, remote) = socket_ports(skb, packet.local, packet.remote);
                if tls::bare(local, remote) {
                    tls::segment(skb, ends, payload);
                }
            }
            return;
        }
        let at = transport + usize::from(*ports.add(12) >> 4) * 4;
        let first = if at + 16 <= end {
            (at as *const First).read_unaligned()
        } else {
            // Short, or not in the packet's first piece.
            match packet.first(skb) {
                Some(first) => first,
                None => return,
            }
        };
        // What arrives has the socket's ports; netfilter may have changed those of what leaves.
        let (own, peer) = if ingress || !enabled(ProbeId::TLS) {
            (packet.local, packet.remote)
        } else {
            socket_ports(skb, packet.local, packet.remote)
        };
        if enabled(ProbeId::TLS) && (tls::open(own, peer) || tls::may_begin(&first, packet.len)) {
            tls::segment(skb, ends, payload);
        } else if enabled(ProbeId::DNS)
            && (packet.remote == DNS_PORT || clients::stream_of_asker(ctx, packet.local))
        {
            call!(dns::dns_message(skb, ends, payload));
        } else if ingress && enabled(ProbeId::CLOCK) && date::begins(&first) {
            call!(date::clock_response(skb, ends, payload));
        }
    }
}

/// A SYN that leaves. Once or a few times a connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn packet_syn(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let (ctx, packet) = (SkBuffContext::new(skb.cast()), Packet::of(ends, payload));
    if enabled(ProbeId::CONNECT) {
        wire::syn_left(&ctx, &packet);
    }
    if enabled(ProbeId::DNS) {
        clients::stream_begins(&ctx, &packet);
    }
    opaque(0)
}
