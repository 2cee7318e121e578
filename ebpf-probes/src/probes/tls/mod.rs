//! TLS handshakes, reported from the bytes on the wire, per socket: no library is asked, no port is
//! listed, and a handshake that begins on an established connection (STARTTLS) is one like any other.
//!
//! **Which socket it is.** A handshake is kept in a hash by the socket's cookie, and never known by a packet's
//! ports: netfilter may have given what leaves others than the socket has. Storage on the socket itself
//! (`bpf_sk_storage`) would spare the look-up, but on 5.10 a tracepoint cannot reach it, so that none would
//! be seen to read a hello there; the agent could not walk it to find what is stuck; and each connection would carry
//! it to its end, where a hash holds only what is in a handshake. What storage frees with the socket is removed here
//! as the socket stops sending or closes, and by age. Before a socket exists (deferred accept, SYN cookies, a lost ACK,
//! TCP Fast Open) the handshake is kept by namespace and tuple, see `request`.
//!
//! The kernel follows record headers only, enough to know whose turn it is; what the hellos say is
//! parsed in user space from captured bytes. A ServerHello that asks to retry is part of one handshake.

use crate::{
    abi::{Header, Owner, ProbeId, Tuple, assert_layout, declare},
    fields,
    metrics::{Timed, counter},
    spec::{ADOPTS, Attach, EXECUTES, FORKS, Hook, PACKET_IN, PACKET_OUT, Probe, SET_STATE},
};

/// Where a handshake stands.
pub mod stage {
    /// Part of a ClientHello has been seen.
    pub const HELLO_PARTIAL: u32 = 1;
    /// The whole ClientHello has been seen; the server owes its hello.
    pub const HELLO: u32 = 2;
    /// The ServerHello has been seen; the client owes its finishing flight.
    pub const SERVER_FLIGHT: u32 = 3;
    /// The client's flight has been seen and the server still owes something: its Finished (TLS 1.2),
    /// or its verdict on a client certificate (TLS 1.3).
    pub const CLIENT_FINISH: u32 = 4;
    /// Done.
    pub const DONE: u32 = 5;
    /// Ended by an alert.
    pub const ALERT: u32 = 6;
    /// The socket closed before the handshake was done.
    pub const CLOSED: u32 = 7;
    /// The ClientHello was answered with something that is not TLS.
    pub const NOT_TLS: u32 = 8;
}

/// [`Handshake::role`]: this socket sent the ClientHello.
pub const CLIENT: u32 = 1;
/// [`Handshake::role`]: this socket received the ClientHello.
pub const SERVER: u32 = 2;

/// [`Handshake::flags`]: the server asked for another ClientHello.
pub const RETRIED: u32 = 1;
/// [`Handshake::flags`]: the client's ChangeCipherSpec has been seen.
pub const CLIENT_CCS: u32 = 2;
/// [`Handshake::flags`]: the client finished as TLS 1.3 does, with an encrypted record.
pub const ENCRYPTED_FINISH: u32 = 4;
/// [`Handshake::flags`]: the alert came from the client.
pub const ALERT_BY_CLIENT: u32 = 8;
/// [`Handshake::flags`]: the alert was encrypted; only its presence is known.
pub const ALERT_ENCRYPTED: u32 = 16;
/// [`Handshake::flags`]: the peer's last flight has not been read by any thread yet.
pub const UNREAD: u32 = 32;
/// [`Handshake::flags`]: it once made no progress for as long as a stall takes; kept only when nothing but
/// the unhealthy is reported.
pub const STALLED: u32 = 128;
/// [`Handshake::flags`]: the client sent a certificate flight (TLS 1.3: longer than a Finished).
pub const CLIENT_CERTIFICATE: u32 = 64;
/// [`Handshake::flags`]: bytes of its ClientHello are held that the agent has not been given. Of no meaning to it.
pub const HELD: u32 = 256;
/// [`Handshake::flags`]: something of the peer's next flight is here, but its beginning is not: a segment is lost.
pub const HOLE: u32 = 512;
/// [`Handshake::flags`]: this service has answered a ClientHello with a ServerHello before.
pub const SPEAKS_TLS: u32 = 1024;
/// [`Handshake::flags`]: the client closed or reset the connection first. Neither this nor [`CLOSED_BY_SERVER`]: it is not
/// known who did, or the network ended it.
pub const CLOSED_BY_CLIENT: u32 = 2048;
/// [`Handshake::flags`]: the server closed or reset the connection first.
pub const CLOSED_BY_SERVER: u32 = 4096;

/// The counter of handshakes of a role that ended in a stage from [`stage::DONE`] on.
pub const fn ended(role: u32, stage: u32) -> u32 {
    counter::TLS + (role - CLIENT) * 4 + (stage - stage::DONE)
}

/// What was timed when a handshake left `stage`, as a number of [`Timed`].
#[inline(always)]
pub const fn phase(role: u32, stage: u32) -> u32 {
    Timed::ServerFlightClient as u32 + (stage - stage::HELLO) * 2 + (role - CLIENT)
}

/// [`Handshake::flags`]: its connection was there when culprit started, and the peer had sent all it has sent: that this
/// is a ClientHello is concluded from the port, and by whom it was read from who has the socket. Which thread that was
/// is not known, where the process has several.
pub const ADOPTED: u32 = 8192;

/// Ports of services that speak TLS from the first byte on: what a connection to one of them began with is a
/// ClientHello. The Service Name and Transport Protocol Port Number Registry of IANA, and what Kubernetes uses
/// (API server 6443, kubelet 10250).
pub const TLS_PORTS: [u16; 20] = [
    443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 2376, 3269, 5061, 5671, 6443, 6514, 8443, 8883,
    10250,
];

/// A handshake in flight, as the kernel keeps it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Socket cookie.
    pub cookie: u64,
    /// Client: who connected. Server: who read the ClientHello; all zero but the
    /// network namespace until one did.
    pub owner: Owner,
    /// From where to where, as the socket has it.
    pub tuple: Tuple,
    /// CLOCK_BOOTTIME of the first byte of the ClientHello, nanoseconds.
    pub started_ns: u64,
    /// When the handshake last moved.
    pub moved_ns: u64,
    /// When a thread last read what the peer had sent, 0 for never.
    pub read_ns: u64,
    /// Which thread that was.
    pub reader: Owner,
    /// TCP sequence number of the ClientHello's first byte.
    pub hello_seq: u32,
    /// Length of the ClientHello's record with its header in bytes, 0 while unknown.
    pub hello_len: u32,
    /// Bytes of it seen so far, in order.
    pub hello_seen: u32,
    /// Sequence number after the last byte seen from the client.
    pub client_next: u32,
    /// Sequence number after the last byte seen from the server, 0 for none.
    pub server_next: u32,
    /// One of [`stage`].
    pub stage: u32,
    /// The stage at the last read that was reported; once the handshake is over, the stage before the end.
    pub read_stage: u32,
    /// [`CLIENT`] or [`SERVER`].
    pub role: u32,
    /// [`RETRIED`] and the other flags.
    pub flags: u32,
    /// Level (1 warning, 2 fatal) times 256 plus description; 0 for none.
    pub alert: u32,
    /// The first bytes of the ClientHello's record.
    pub prefix: [u8; 32],
    /// Server: CLOCK_BOOTTIME when the connection was established, in nanoseconds; if it carried anything before
    /// the ClientHello, when the last of that was handled. 0 when unknown, and for a client.
    pub established_ns: u64,
    /// From where to where its packets say they go, where netfilter of the socket's own network namespace
    /// translates them; all zero when they say what the socket does, or nothing has left yet.
    pub wire: Tuple,
    /// Where the record ends that holds the last bytes of the ClientHello seen so far, counted like `hello_seen`.
    pub record_end: u32,
    /// Bytes of the ClientHello that lie in later records.
    pub left: u32,
    /// Of one that failed, where healthy ones are not reported: failed ones between the same client and service that
    /// were not reported since the last one that was, for there were too many at once.
    pub unreported: u32,
    /// Of a server's that failed: handshakes that its service has completed so far, as far as was counted.
    pub served: u32,
}

/// Bytes of a [`TlsRecord`] before it knew when the connection was established.
pub const TLS_RECORD_FIRST: usize = 240;

/// A record about a handshake; its kind says what happened.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsRecord {
    /// The header.
    pub header: Header,
    /// The handshake as it was then.
    pub handshake: Handshake,
}

/// What [`TlsBytes`] holds: a ClientHello.
pub const CLIENT_HELLO: u32 = 1;
/// What [`TlsBytes`] holds: a ServerHello.
pub const SERVER_HELLO: u32 = 2;

/// Bytes of a hello as they crossed the socket, record header included. `header.len` ends the data.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsBytes<const N: usize> {
    /// The header.
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// [`CLIENT_HELLO`] or [`SERVER_HELLO`].
    pub hello: u32,
    /// Where these bytes begin, counted from the first byte of the hello's record.
    pub at: u32,
    /// The bytes.
    pub data: [u8; N],
}

/// Bytes of [`TlsBytes`] before its data.
pub const TLS_BYTES_HEAD: usize = 32;
/// Data of a small [`TlsBytes`].
pub const SMALL: usize = 512;
/// Data of a large [`TlsBytes`].
pub const LARGE: usize = 2048;
/// Bytes of one hello that are captured at most.
pub const HELLO_CAPTURED: u32 = 16 * 1024;

assert_layout!(
    Handshake = 288,
    TlsRecord = 304,
    TlsBytes<SMALL> = SMALL + TLS_BYTES_HEAD,
    TlsBytes<LARGE> = LARGE + TLS_BYTES_HEAD,
);

/// Bytes of a ClientHello that are held at most, of those that lie in its first segments.
pub const HELLO_HELD: usize = 2048;

/// A ClientHello held for the agent, should its handshake stall: value of the `HELLOS` map, by cookie.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeferredHello {
    /// Bytes held so far.
    pub len: u32,
    /// Unused, 0.
    pub pad: u32,
    /// The bytes, record header included; twice as many as are kept, which the verifier can follow.
    pub data: [u8; 2 * HELLO_HELD],
}

assert_layout!(DeferredHello = 8 + 2 * HELLO_HELD);

/// A handshake that began before its socket existed: value of the `REQUESTED` map, whose keys have no family and no
/// protocol.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Early {
    /// The handshake so far; it has no cookie.
    pub handshake: Handshake,
    /// Its ClientHello so far.
    pub hello: DeferredHello,
}

assert_layout!(Early = 288 + 8 + 2 * HELLO_HELD);

/// Handshakes held at most that began before their socket existed. Anyone can send what begins like one, so the
/// least recently used give way; the socket mostly exists before the packet has been dealt with.
pub const REQUESTED: u32 = 1 << 10;

/// The `HELLOS` map.
pub const HELLOS_MAP: &str = "HELLOS";
/// ClientHellos held at most.
pub const HELLOS: u32 = 1 << 10;

/// The `HANDSHAKES` map, which the agent sweeps.
pub const HANDSHAKES_MAP: &str = "HANDSHAKES";

declare! { TLS = 1 {
    /// Bytes of a ClientHello or ServerHello: [`TlsBytes`].
    TLS_BYTES = 16,
    /// A handshake moved: [`TlsRecord`].
    TLS_PHASE = 17,
    /// A thread read what the peer had sent.
    TLS_READ = 18,
    /// A handshake makes no progress (written by the agent's sweep).
    TLS_PENDING = 19,
} }

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::TLS,
    kinds: KINDS,
    name: "tls",
    about: "TLS handshakes, both sides, any library and port: hellos, who read them, alerts, done",
    hooks: &[
        PACKET_IN,
        PACKET_OUT,
        SET_STATE,
        Hook {
            program: "socket_read",
            attach: Attach::BtfTracepoint("tcp_rcv_space_adjust", &["struct sock *"]),
            gives: "which thread read a hello: without it a server's handshakes have no owner",
            required: false,
            fields: &[
                fields::SK_NUM,
                fields::SK_DPORT,
                fields::SK_STATE,
                fields::SK_COOKIE,
                fields::SK_NET,
                fields::NET_INUM,
                fields::SK_FAMILY,
                fields::SK_PROTOCOL,
                fields::SK_DADDR,
                fields::SK_RCV_SADDR,
                fields::SK_V6_DADDR,
                fields::SK_V6_RCV_SADDR,
                fields::TCP_RCV_NXT,
            ],
        },
        ADOPTS,
        EXECUTES,
        FORKS,
    ],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod adopt;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod capture;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod failing;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod hello;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod lifetime;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod program;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod read;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod report;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod request;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod state_machine;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_left_is_timed_as_what_it_waited_for() {
        let timed = |role, stage| Timed::ALL[phase(role, stage) as usize].name();
        assert_eq!(timed(CLIENT, stage::HELLO), "server_flight client");
        assert_eq!(timed(SERVER, stage::HELLO), "server_flight server");
        assert_eq!(timed(CLIENT, stage::SERVER_FLIGHT), "client_finish client");
        assert_eq!(timed(SERVER, stage::CLIENT_FINISH), "server_finish server");
    }
}
