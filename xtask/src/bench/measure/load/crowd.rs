//! Many connections, all open at once. They come from several addresses of the loopback, each of
//! which has ports of its own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Instant,
};

use anyhow::{Context, Result};

use socket2::{Domain, Socket, Type};

use super::{Done, Drive, Order};

/// Descriptors one end of the largest crowd may need.
pub(super) const DESCRIPTORS: u64 = 200_000;

/// Connections from one address: fewer than there are ephemeral ports.
const EACH: usize = 20_000;

pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    let mut open = Vec::new();
    loop {
        open.push(listener.accept().context("accepting")?);
    }
}

pub(super) struct Driver {
    pub(super) to: SocketAddr,
    pub(super) open: Vec<Socket>,
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let (began, wanted) = (Instant::now(), order.rate as usize);
        while self.open.len() < wanted {
            let from = Ipv4Addr::new(127, 0, 0, u8::try_from(1 + self.open.len() / EACH).unwrap_or(255));
            self.open.push(connect(from, self.to).with_context(|| format!("connecting from {from}"))?);
        }
        Ok(Done { count: self.open.len() as u64, seconds: began.elapsed().as_secs_f64(), stalls: 0 })
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket)
}
