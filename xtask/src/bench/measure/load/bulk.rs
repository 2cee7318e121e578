//! One TCP connection a slice, as many bytes as it takes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use anyhow::{Context, Result};

use super::{Done, Drive, Order};

/// Of one write, and of one read.
const CHUNK: usize = 256 * 1024;

pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let (mut stream, _) = listener.accept().context("accepting")?;
        // To the end, or until the driver is gone.
        while matches!(stream.read(&mut chunk), Ok(1..)) {}
    }
}

pub(super) struct Driver {
    pub(super) to: SocketAddr,
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let chunk = vec![b'x'; CHUNK];
        let mut stream = TcpStream::connect(self.to).context("connecting")?;
        let (began, mut done) = (Instant::now(), Done::default());
        while began.elapsed() < order.duration() {
            stream.write_all(&chunk).context("sending")?;
            done.count += CHUNK as u64;
        }
        done.seconds = began.elapsed().as_secs_f64();
        Ok(done)
    }
}
