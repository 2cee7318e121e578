//! Connect and close by reset, as fast as one thread can, to a server that accepts and closes. The
//! reset leaves no TIME_WAIT behind, so ports do not run out. At a pace, if one is asked for.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::SockRef;

use super::{Done, Drive, Order, STALL};

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
        let (began, mut done) = (Instant::now(), Done::default());
        loop {
            let before = began.elapsed();
            let stream = TcpStream::connect(self.to).context("connecting")?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("asking for a reset")?;
            drop(stream);
            let now = began.elapsed();
            done.count += 1;
            done.stalls += u64::from(now - before > STALL);
            if now >= order.duration() {
                done.seconds = now.as_secs_f64();
                return Ok(done);
            }
            order.keep_pace(began, done.count);
        }
    }
}
