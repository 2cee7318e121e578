//! The cheapest events there are, at a steady rate: connects of a UDP socket, which send nothing.
//! One thread makes more of them than TCP connects, and culprit reports each.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Done, Drive, Order, here, udp};

/// How often the pace is kept: what is due by then is done at once.
const BEAT: Duration = Duration::from_millis(1);

/// A peer to connect to; nothing ever arrives.
pub(super) fn serve() -> Result<()> {
    let socket = udp()?;
    here(socket.local_addr().context("asking for its port")?)?;
    loop {
        socket.recv(&mut [0; 64]).context("receiving")?;
    }
}

pub(super) struct Driver {
    to: SocketAddr,
    socket: UdpSocket,
}

impl Driver {
    pub(super) fn new(to: SocketAddr) -> Result<Self> {
        Ok(Self { to, socket: udp()? })
    }
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let (began, mut done) = (Instant::now(), Done::default());
        loop {
            let now = began.elapsed().min(order.duration());
            let due = if order.rate > 0.0 { (order.rate * now.as_secs_f64()) as u64 } else { u64::MAX };
            // Not far beyond a beat at once: a sender that falls behind has reached what there is.
            for _ in 0..due.saturating_sub(done.count).min(1024) {
                self.socket.connect(self.to).context("connecting a UDP socket")?;
                done.count += 1;
            }
            if began.elapsed() >= order.duration() {
                done.seconds = began.elapsed().as_secs_f64();
                return Ok(done);
            }
            if done.count >= due {
                thread::sleep(BEAT);
            }
        }
    }
}
