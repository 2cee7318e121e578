//! Connect and close by reset, as fast as one thread can, to a server that accepts and closes. The
//! reset leaves no TIME_WAIT behind, so ports do not run out. At a pace, if one is asked for.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::SockRef;

use super::{Done, Drive, Order};

pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        drop(listener.accept().context("accepting")?);
    }
}

pub(super) struct Driver {
    pub(super) to: SocketAddr,
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        order.repeat(|_| {
            let stream = TcpStream::connect(self.to).context("connecting")?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("asking for a reset")
        })
    }
}
