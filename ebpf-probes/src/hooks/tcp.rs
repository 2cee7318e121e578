//! What becomes of TCP sockets and of what they send, once for all probes.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    abi::{IPPROTO_TCP, ProbeId},
    bpf::{
        filter::{self, enabled},
        owner::SOCKETS,
        tcp::state,
        verifier::call,
    },
    fields,
    probes::{
        connect::{program as connect, unacked_program as unacked},
        neigh::retransmits,
        tls::program as tls,
    },
};

/// Runs at each state change of each TCP socket: two loads and two compares for those in between.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    // SAFETY: `sk` is a BTF-typed argument.
    unsafe {
        if new == state::ESTABLISHED && enabled(ProbeId::NEIGH) {
            retransmits::established(sk);
        }
        if (new == state::ESTABLISHED || new == state::CLOSE) && enabled(ProbeId::CONNECT) && unacked::any() {
            if new == state::CLOSE {
                call!(unacked::closed(sk));
            } else {
                call!(unacked::established(sk, u64::from(old == state::SYN_RECV)));
            }
        }
        if old == state::SYN_RECV && new == state::ESTABLISHED && enabled(ProbeId::TLS) {
            tls::accepted(sk);
        }
        if (new == state::FIN_WAIT1 || new == state::LAST_ACK) && enabled(ProbeId::TLS) {
            tls::finishing(sk, fields::SK_COOKIE::read(sk), new == state::LAST_ACK);
        }
        if old != state::SYN_SENT && new != state::SYN_SENT && new != state::CLOSE {
            return 0;
        }
        if fields::SK_PROTOCOL::read(sk) != IPPROTO_TCP {
            return 0;
        }
        let cookie = fields::SK_COOKIE::read(sk);
        if cookie == 0 {
            return 0;
        }
        if new == state::SYN_SENT {
            call!(connect::syn_sent(sk, cookie));
        } else if old == state::SYN_SENT {
            call!(connect::settled(sk, cookie, u64::from(new == state::ESTABLISHED)));
        }
        if new == state::CLOSE {
            if enabled(ProbeId::TLS) {
                call!(tls::tls_closed(cookie, tls::closed_by(sk, old)));
            }
            if filter::remember() {
                let _ = SOCKETS.remove(&cookie);
            }
        }
    }
    0
}

/// Runs at each TCP retransmission: a few loads for those of established connections.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn retransmit(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: `sk` is a BTF-typed argument.
    unsafe {
        let now_in = i32::from(fields::SK_STATE::read(sk));
        let syn = now_in == state::SYN_SENT;
        if enabled(ProbeId::NEIGH) {
            retransmits::sent_again(sk, syn);
        }
        if syn {
            connect::sent_again(sk);
        } else if enabled(ProbeId::CONNECT)
            && (now_in == state::ESTABLISHED || now_in == state::CLOSE_WAIT || now_in == state::FIN_WAIT1)
        {
            unacked::sent_again(sk, fields::SKB_LEN::read(ctx.arg(1)));
        }
    }
    0
}
