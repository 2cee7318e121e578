//! The kernel's own account of a TCP socket: `getsockopt(TCP_INFO)`, the few fields blame needs.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Fields of `struct tcp_info` (include/uapi/linux/tcp.h, which only ever grows).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// As include/net/tcp_states.h numbers it.
    pub state: u8,
    /// Segments sent and not acknowledged; of a listener, connections that wait to be accepted.
    pub unacked: u32,
    /// Of a listener, how many connections may wait.
    pub sacked: u32,
    /// Milliseconds since data was last sent.
    pub sent_ms_ago: u32,
    /// Milliseconds since data was last received.
    pub received_ms_ago: u32,
    /// Bytes the peer has acknowledged.
    pub acked_bytes: u64,
    /// Bytes that came from the peer.
    pub received_bytes: u64,
}

/// As many bytes of it as are read here.
const LEN: usize = 136;

/// Asks the kernel.
pub fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut bytes = [0u8; LEN];
    let mut len = LEN as nix::libc::socklen_t;
    // SAFETY: the buffer is as long as `len` says, and the kernel writes at most that much.
    let failed = unsafe {
        nix::libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8; LEN]) -> TcpInfo {
    let u32_at = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().expect("within LEN"));
    let u64_at = |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().expect("within LEN"));
    TcpInfo {
        state: bytes[0],
        unacked: u32_at(24),
        sacked: u32_at(28),
        sent_ms_ago: u32_at(44),
        received_ms_ago: u32_at(52),
        acked_bytes: u64_at(120),
        received_bytes: u64_at(128),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn the_kernel_counts_what_was_said_and_heard() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.write_all(b"four")?;
        far.read_exact(&mut [0; 4])?;
        far.write_all(b"seventy")?;
        near.read_exact(&mut [0; 7])?;
        let info = tcp_info(&near)?;
        assert_eq!((info.state, info.received_bytes), (1, 7));
        // The SYN counts as one byte acknowledged.
        assert!((4..=5).contains(&info.acked_bytes), "{info:?}");
        assert!(info.sent_ms_ago < 60_000 && info.received_ms_ago < 60_000, "{info:?}");
        Ok(())
    }
}
