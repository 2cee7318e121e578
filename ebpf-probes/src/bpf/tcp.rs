//! Numbers of TCP that several programs go by.

/// States of include/net/tcp_states.h, as `inet_sock_set_state` hands them over.
pub(crate) mod state {
    /// `TCP_ESTABLISHED`.
    pub(crate) const ESTABLISHED: i32 = 1;
    /// `TCP_SYN_SENT`.
    pub(crate) const SYN_SENT: i32 = 2;
    /// `TCP_SYN_RECV`.
    pub(crate) const SYN_RECV: i32 = 3;
    /// `TCP_FIN_WAIT1`.
    pub(crate) const FIN_WAIT1: i32 = 4;
    /// `TCP_CLOSE`.
    pub(crate) const CLOSE: i32 = 7;
    /// `TCP_CLOSE_WAIT`.
    pub(crate) const CLOSE_WAIT: i32 = 8;
    /// `TCP_LAST_ACK`.
    pub(crate) const LAST_ACK: i32 = 9;
    /// `TCP_LISTEN`.
    pub(crate) const LISTEN: i32 = 10;
    /// `TCP_NEW_SYN_RECV`: a connection that a listener has answered and not yet made.
    pub(crate) const NEW_SYN_RECV: i32 = 12;
}

/// Flags of a segment: RFC 9293 §3.1.
pub(crate) mod flag {
    /// It asks for a connection, or answers that.
    pub(crate) const SYN: u8 = 0x02;
    /// It ends a connection at once.
    pub(crate) const RST: u8 = 0x04;
    /// It acknowledges.
    pub(crate) const ACK: u8 = 0x10;
}
