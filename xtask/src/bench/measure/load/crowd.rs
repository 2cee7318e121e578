//! Many connections, all open at once, as far as this process may have descriptors.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use anyhow::{Context, Result};

use super::{Done, Drive, Order};

pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    let mut open = Vec::new();
    loop {
        open.push(listener.accept().context("accepting")?);
    }
}

pub(super) struct Driver {
    pub(super) to: SocketAddr,
    pub(super) open: Vec<TcpStream>,
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let (began, wanted) = (Instant::now(), order.rate as usize);
        while self.open.len() < wanted {
            self.open.push(TcpStream::connect(self.to).context("connecting")?);
        }
        Ok(Done { count: self.open.len() as u64, seconds: began.elapsed().as_secs_f64(), stalls: 0 })
    }
}
