//! The two programs that see packets, once for all probes: they find the transport header, decide
//! in a few loads whether a packet is any of our business, and hand it on.
//!
//! Cost: runs for every packet of every socket below the cgroup root. A packet that is none of our
//! business pays the header loads, one array slot and at most one 16-byte copy of its payload.

use crate::{
    fields,
    spec::{Attach, Hook},
};

const FIELDS: &[crate::spec::Field] = &[
    fields::TASK_TGID,
    fields::TASK_PID,
    fields::TASK_COMM,
    fields::SK_NET,
    fields::NET_INUM,
    fields::SK_ACK_BACKLOG,
    fields::SK_MAX_ACK_BACKLOG,
    fields::SK_DADDR,
    fields::SK_RCV_SADDR,
    fields::SK_V6_DADDR,
    fields::SK_V6_RCV_SADDR,
    fields::SK_NUM,
    fields::SK_DPORT,
    fields::SK_STATE,
    fields::SK_FAMILY,
    fields::SK_PROTOCOL,
    fields::SK_COOKIE,
    fields::TCP_RCV_NXT,
    fields::TCP_SND_NXT,
    fields::TCP_MSTAMP,
    fields::TCP_SACKS,
    fields::TCP_NUM_SACKS,
];

/// Packets arriving.
pub const INGRESS: Hook = Hook {
    program: "packet_in",
    attach: Attach::CgroupIngress,
    gives: "what arrives: hellos, DNS answers, the MAC a SYN comes from",
    required: true,
    fields: FIELDS,
};

/// Packets leaving.
pub const EGRESS: Hook = Hook {
    program: "packet_out",
    attach: Attach::CgroupEgress,
    gives: "what leaves: SYNs with their local port, hellos, DNS queries",
    required: true,
    fields: FIELDS,
};

/// The programs.
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod program {
    #![expect(
        missing_docs,
        unreachable_pub,
        clippy::needless_pass_by_value,
        reason = "entry points for the kernel: the attribute macros fix their shape"
    )]

    use aya_ebpf::{
        bindings::__sk_buff,
        helpers::generated::{bpf_skb_load_bytes, bpf_skc_to_tcp_sock},
        macros::cgroup_skb,
        programs::SkBuffContext,
    };

    use crate::{
        abi::{
            AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Netns, ProbeId, Tuple,
        },
        call,
        kernel::{at_most, enabled, mapped, netns, opaque},
        probes::{
            clock::date,
            connect::{dropped, icmp},
            dns::{PORT as DNS_PORT, asked, program as dns},
            neigh::road::{self, segment},
            tls::program as tls,
        },
    };

    /// What one packet carries, as far as we look.
    pub struct Packet {
        /// It arrives (or it leaves).
        pub ingress: bool,
        /// It is IPv4 (or IPv6).
        pub v4: bool,
        /// IP protocol.
        pub protocol: u16,
        /// Local port, host order.
        pub local: u16,
        /// Remote port, host order.
        pub remote: u16,
        /// TCP sequence number of the payload's first byte; 0 for UDP.
        pub seq: u32,
        /// Where the payload begins in the packet.
        pub offset: u32,
        /// Its length in bytes.
        pub len: u32,
    }

    /// The first bytes of a packet's payload, as many as there are.
    pub type First = [u8; 16];

    /// A packet in two words: what functions that the verifier takes by themselves can be given. It then follows
    /// each of them once, for any packet, instead of once for each way by which packets come to it.
    pub type Words = (u64, u64);

    const INGRESS: u64 = 1 << 48;
    const V4: u64 = 1 << 49;

    impl Packet {
        /// The packet that these words are of.
        #[inline(always)]
        pub fn of(ends: u64, payload: u64) -> Self {
            // Callers pass whatever is at hand for what the optimiser sees unused; the verifier wants a number.
            let (ends, payload) = (opaque(ends), opaque(payload));
            Self {
                ingress: ends & INGRESS != 0,
                v4: ends & V4 != 0,
                protocol: (ends >> 56) as u16,
                local: ends as u16,
                remote: (ends >> 16) as u16,
                offset: u32::from((ends >> 32) as u16),
                seq: (payload >> 32) as u32,
                len: payload as u32,
            }
        }

        /// Its words.
        #[inline(always)]
        pub fn words(&self) -> Words {
            let mut ends = u64::from(self.local) | u64::from(self.remote) << 16;
            ends |= u64::from(self.offset as u16) << 32 | u64::from(self.protocol) << 56;
            ends |= if self.ingress { INGRESS } else { 0 } | if self.v4 { V4 } else { 0 };
            (ends, u64::from(self.seq) << 32 | u64::from(self.len))
        }

        /// The first bytes of its payload; `None` when they cannot be read.
        #[inline(always)]
        pub fn first(&self, skb: *mut __sk_buff) -> Option<First> {
            let mut first = zeroed();
            if self.len != 0 {
                // SAFETY: at most sixteen bytes on the stack.
                let read = unsafe {
                    let to = (&raw mut first).cast();
                    bpf_skb_load_bytes(skb.cast(), self.offset, to, at_most::<16>(self.len))
                };
                if read != 0 {
                    return None;
                }
            }
            Some(first)
        }

        /// Writes the packet's two ends, seen from this socket, to `to`. Through helpers, which reach
        /// any packet layout: not for the fast path.
        ///
        /// # Safety
        /// `to` must be writable memory the verifier knows: a map value or a reservation.
        #[inline(always)]
        pub unsafe fn write_tuple(&self, ctx: &SkBuffContext, to: *mut Tuple) -> Option<()> {
            // SAFETY: field by field below `to`, as promised by the caller.
            unsafe {
                let (local, remote) = (&raw mut (*to).local, &raw mut (*to).remote);
                let (source, target) = if self.ingress { (remote, local) } else { (local, remote) };
                if self.v4 {
                    let both: [u32; 2] = ctx.load(12).ok()?;
                    source.write(mapped(both[0]));
                    target.write(mapped(both[1]));
                } else {
                    source.write(ctx.load(8).ok()?);
                    target.write(ctx.load(24).ok()?);
                }
                (&raw mut (*to).local_port).write(self.local);
                (&raw mut (*to).remote_port).write(self.remote);
                (&raw mut (*to).family).write(if self.v4 { AF_INET } else { AF_INET6 });
                (&raw mut (*to).protocol).write(self.protocol);
            }
            Some(())
        }
    }

    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

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

    /// Sixteen zeros, in two registers: of an array's the compiler makes a call that clears byte by byte.
    #[inline(always)]
    fn zeroed() -> [u8; 16] {
        // SAFETY: integers become bytes.
        unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([opaque(0), opaque(0)]) }
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
            let (at, protocol) = if v4 {
                (usize::from(*ip & 15) * 4, u16::from(*ip.add(9)))
            } else {
                (40, u16::from(*ip.add(6)))
            };
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
                if enabled(ProbeId::Dns) && (remote == DNS_PORT || asked::of_asker(ctx)) {
                    packet.offset = at as u32 + 8;
                    packet.len = (*skb).len.wrapping_sub(packet.offset);
                    let (ends, payload) = packet.words();
                    call!(dns::dns_message(skb, ends, payload));
                }
                return;
            }
            if protocol != IPPROTO_TCP || transport + 20 > end {
                let icmp = protocol == if v4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
                if icmp && !ingress && enabled(ProbeId::Connect) && icmp::is_unreachable(v4, *ports) {
                    packet.offset = at as u32;
                    let (ends, payload) = packet.words();
                    call!(icmp::icmp_sent(skb, ends, payload));
                }
                return;
            }
            let flags = *ports.add(13);
            let asks = flags & SYN != 0 && flags & ACK == 0;
            packet.offset = at as u32 + u32::from(*ports.add(12) >> 4) * 4;
            packet.len = (*skb).len.wrapping_sub(packet.offset);
            packet.seq = u32::from_be_bytes([*ports.add(4), *ports.add(5), *ports.add(6), *ports.add(7)]);
            // A SYN comes before the first byte (TCP Fast Open).
            packet.seq = packet.seq.wrapping_add(u32::from(flags & SYN != 0));
            let (ends, payload) = packet.words();
            if asks && !ingress {
                call!(packet_syn(skb, ends, payload));
            }
            if ingress && asks && enabled(ProbeId::Connect) {
                call!(dropped::syn_came(skb, ends, payload));
            }
            if ingress && enabled(ProbeId::Neigh) {
                let what = if asks {
                    segment::SYN
                } else if flags & SYN != 0 {
                    segment::SYN_ACK
                } else if flags & RST != 0 {
                    segment::RESET
                } else {
                    segment::OTHER
                };
                if flags & SYN != 0 || road::watching() || (what == segment::RESET && road::suspicious()) {
                    call!(road::neigh_came(skb, ends, payload, u64::from(what)));
                }
            }
            if packet.len == 0 || packet.len > 1 << 20 {
                if packet.len == 0 && !ingress && enabled(ProbeId::Tls) && tls::cookies_come_with_packets() {
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
            let (own, peer) = if ingress || !enabled(ProbeId::Tls) {
                (packet.local, packet.remote)
            } else {
                socket_ports(skb, packet.local, packet.remote)
            };
            if enabled(ProbeId::Tls) && (tls::open(own, peer) || tls::may_begin(&first, packet.len)) {
                tls::segment(skb, ends, payload);
            } else if enabled(ProbeId::Dns)
                && (packet.remote == DNS_PORT || asked::stream_of_asker(ctx, packet.local))
            {
                call!(dns::dns_message(skb, ends, payload));
            } else if ingress && enabled(ProbeId::Clock) && date::begins(&first) {
                call!(date::clock_response(skb, ends, payload));
            }
        }
    }

    /// The ports of the packet's socket, local and remote; those given if it has none.
    ///
    /// # Safety
    /// `skb` must be the context of a cgroup_skb program.
    #[inline(always)]
    unsafe fn socket_ports(skb: *const __sk_buff, local: u16, remote: u16) -> (u16, u16) {
        // SAFETY: context loads of the widths the verifier knows.
        unsafe {
            let socket = (*skb).__bindgen_anon_2.sk;
            if socket.is_null() {
                return (local, remote);
            }
            let own = (&raw const (*socket).src_port).read_volatile() as u16;
            (own, u16::from_be((&raw const (*socket).dst_port).read_volatile()))
        }
    }

    /// A SYN that leaves. Once or a few times a connection.
    #[unsafe(no_mangle)]
    #[inline(never)]
    pub extern "C" fn packet_syn(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
        let (ctx, packet) = (SkBuffContext::new(skb.cast()), Packet::of(ends, payload));
        if enabled(ProbeId::Connect) {
            dropped::syn_left(&ctx, &packet);
        }
        if enabled(ProbeId::Dns) {
            asked::stream_begins(&ctx, &packet);
        }
        opaque(0)
    }

    /// The packet's TCP socket, as a `struct tcp_sock` the verifier knows. A call and two compares.
    #[inline(always)]
    pub fn tcp_sock(ctx: &SkBuffContext) -> Option<*const u8> {
        // SAFETY: a context load, and a helper that takes any socket.
        unsafe {
            let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let socket = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
            (!socket.is_null()).then_some(socket.cast_const())
        }
    }

    /// The network namespace of the packet's TCP socket. (Not by the namespace's cookie: cgroup_skb has
    /// that helper from 6.18 on only.)
    #[inline(always)]
    pub fn netns_of(ctx: &SkBuffContext) -> Option<Netns> {
        let socket = tcp_sock(ctx)?;
        // SAFETY: loads through the BTF-typed socket the helper returned.
        unsafe {
            let net = crate::fields::SK_NET::read(socket);
            (!net.is_null()).then(|| netns(net))
        }
    }
}
