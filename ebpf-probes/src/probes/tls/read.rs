//! Which thread reads what the peer sent: that makes it a server's owner, and distinguishes a handshake that waits for its own
//! program from one that waits for the peer.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    helpers::generated::bpf_skc_to_tcp_sock, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use super::{
    ADOPTED, CLIENT, SERVER, UNREAD,
    capture::release,
    hello::received,
    lifetime::forget,
    report::report,
    request, stage,
    state_machine::note_stall,
    table::{HANDSHAKES, nobodys, open, slot_of},
};
use crate::{
    abi::Kind,
    bpf::{counters, filter, netns::netns, owner::current, time::now},
    fields,
    metrics::Timed,
};

/// Runs at each read from a TCP socket, in the thread that reads: two loads and one array slot
/// unless a handshake is in flight between these ports.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn socket_read(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: `sk` is a BTF-typed argument; the map value is live.
    unsafe {
        let local = fields::SK_NUM::read(sk);
        let remote = u16::from_be(fields::SK_DPORT::read(sk));
        if !open(local, remote) {
            return 0;
        }
        let handshake = match HANDSHAKES.get_ptr_mut(&fields::SK_COOKIE::read(sk)) {
            Some(handshake) => handshake,
            None => {
                // Read before its connection is established (TCP Fast Open).
                if slot_of(local, remote).is_none_or(|slot| (*slot).requested == 0) {
                    return 0;
                }
                request::established(sk);
                let Some(handshake) = HANDSHAKES.get_ptr_mut(&fields::SK_COOKIE::read(sk)) else { return 0 };
                handshake
            }
        };
        let hs = &mut *handshake;
        if hs.flags & UNREAD == 0 {
            return 0;
        }
        if hs.stage == stage::HELLO_PARTIAL && hs.role == SERVER {
            let socket = bpf_skc_to_tcp_sock(sk.cast_mut().cast()).cast::<u8>();
            if !socket.is_null() {
                received(hs, fields::TCP_RCV_NXT::read(socket));
            }
        }
        hs.flags &= !UNREAD;
        hs.reader = current(netns(fields::SK_NET::read(sk)));
        hs.read_ns = now();
        if hs.role == SERVER && (hs.owner.process == 0 || hs.flags & ADOPTED != 0) {
            if !filter::caller(&hs.reader) {
                forget(hs.cookie);
                return 0;
            }
            let was_held = nobodys(hs);
            hs.owner = hs.reader;
            if was_held && !filter::quiet() {
                release(hs.cookie);
            }
        }
        if hs.stage >= stage::HELLO && hs.read_stage != hs.stage {
            note_stall(hs);
            hs.read_stage = hs.stage;
            // The peer's hello, not what follows it.
            if hs.stage == stage::HELLO + SERVER - hs.role {
                let timed = Timed::ReadClient as u32 + hs.role - CLIENT;
                counters::took(timed, hs.read_ns.wrapping_sub(hs.moved_ns));
            }
            report(Kind::TLS_READ, hs);
        }
    }
    0
}
