//! Small packets to and fro that are none of culprit's business: no handshake, no DNS, a connection
//! made once a slice. Each is seen by both of culprit's packet programs, once a side.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Done, Drive, Order, here, udp, udp_to};

/// What one packet carries. Not the first byte of any TLS record.
const PAYLOAD: [u8; 64] = [b'x'; 64];

/// A lost datagram ends the slice instead of the benchmark.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn serve_datagrams() -> Result<()> {
    let socket = udp()?;
    here(socket.local_addr().context("asking for its port")?)?;
    let mut packet = [0; PAYLOAD.len()];
    loop {
        let (len, from) = socket.recv_from(&mut packet).context("receiving")?;
        socket.send_to(packet.get(..len).unwrap_or_default(), from).context("answering")?;
    }
}

pub(super) fn serve_stream(listener: &TcpListener) -> Result<()> {
    let mut packet = [0; PAYLOAD.len()];
    loop {
        let (mut stream, _) = listener.accept().context("accepting")?;
        stream.set_nodelay(true).context("asking for small segments")?;
        // To the end, or until the driver is gone.
        while stream.read_exact(&mut packet).is_ok() && stream.write_all(&packet).is_ok() {}
    }
}

pub(super) struct Datagrams {
    pub(super) to: SocketAddr,
}

impl Drive for Datagrams {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let socket = udp_to(self.to, PATIENCE)?;
        to_and_fro(order, |packet| {
            socket.send(&PAYLOAD)?;
            socket.recv(packet).map(drop)
        })
    }
}

pub(super) struct Stream {
    pub(super) to: SocketAddr,
}

impl Drive for Stream {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let mut stream = TcpStream::connect(self.to).context("connecting")?;
        stream.set_nodelay(true).context("asking for small segments")?;
        to_and_fro(order, |packet| {
            stream.write_all(&PAYLOAD)?;
            stream.read_exact(packet)
        })
    }
}

fn to_and_fro(order: &Order, mut once: impl FnMut(&mut [u8]) -> std::io::Result<()>) -> Result<Done> {
    let (began, mut done, mut packet) = (Instant::now(), Done::default(), [0; PAYLOAD.len()]);
    while began.elapsed() < order.duration() {
        once(&mut packet).context("waiting for an echo")?;
        done.count += 1;
    }
    done.seconds = began.elapsed().as_secs_f64();
    Ok(done)
}
