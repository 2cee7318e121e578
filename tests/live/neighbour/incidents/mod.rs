//! The incidents of neighbours, live: stale, unresolved and contested entries, and what only looks like them.

mod conflict;
mod late;
mod machine;
mod next_hop;
mod no_incident;
mod overlay;
mod own_address;
mod questions;
mod several_macs;
mod stale;
mod unicast_lost;
mod unresolved;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use socket2::Socket;

use crate::harness::Netns;

const UNRESOLVED: &str = "neighbour_unresolved";
const STALE: &str = "neighbour_stale";
const CONFLICT: &str = "neighbour_conflict";
const ADDRESS: &str = "address_conflict";
const FAILING: &str = "connect_failing";
const STALLED: &str = "connect_stalled";

/// Something that is done again and again in a namespace until this is dropped.
pub(super) struct Repeated {
    on: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repeated {
    /// Does it every `every`.
    pub(super) fn every(every: Duration, netns: &Netns, mut deed: impl FnMut() + Send + 'static) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let go = on.clone();
        let thread = netns.thread_named("again", move || {
            while go.load(Ordering::Relaxed) {
                deed();
                std::thread::sleep(every);
            }
        });
        Self { on, thread: Some(thread) }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for a connect that is under way to be established, and closes it.
#[track_caller]
fn is_established(socket: &Socket, to: SocketAddr) {
    crate::harness::eventually("the connection comes through", || {
        socket.peer_addr().is_ok_and(|peer| peer.as_socket() == Some(to))
    });
}
