//! The two ends of handshakes that fail, as addresses and in words: whichever side this host is, there is a client and a
//! server.

use super::failing::Failing;
use crate::{
    domains::tls::{Role, session_ends},
    fact::Endpoint,
    pipeline::View,
    rules::text,
};

/// Who takes part, and in words.
pub(super) struct Ends {
    pub(super) local: Endpoint,
    pub(super) peer: Endpoint,
    pub(super) client: String,
    pub(super) server: String,
    /// There are several clients.
    many: bool,
}

impl Ends {
    pub(super) fn of(failing: &Failing, view: &View<'_>) -> Self {
        let (known, last) = (&view.world.known, &failing.last);
        let (local, peer) = session_ends(known, &last.hs, &last.owner);
        let who = known.named(&last.owner).map_or_else(|| "a process".to_owned(), |who| text::process(&who));
        let others = failing.peers.len();
        match failing.role() {
            Role::Client => {
                let server = text::place(&peer);
                Self { local, peer, client: who, server, many: false }
            }
            Role::Server => {
                let more = if failing.left_out > 0 { "more than " } else { "" };
                let client = if others > 1 { format!("{more}{others} clients") } else { peer.ip.to_string() };
                let server = format!("{who} on port {}", local.port);
                Self { local, peer, client, server, many: others > 1 }
            }
        }
    }

    /// A verb of the client's.
    pub(super) fn verb(&self, of_one: &'static str, of_many: &'static str) -> &'static str {
        if self.many { of_many } else { of_one }
    }
}
