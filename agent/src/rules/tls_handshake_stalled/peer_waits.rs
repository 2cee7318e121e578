//! Clients' handshakes whose peers owe the answer, and which of them are one situation.

use std::collections::BTreeSet;

use ebpf_probes::probes::{connect::Unacked, tls::Handshake};

use crate::text::host::Name;

/// A client's handshake whose peer owes the next message.
pub(super) struct Waits {
    pub(super) hs: Handshake,
    pub(super) sni: Option<Name>,
    /// As it was when the hello was found not to be acknowledged; `None` once it is.
    pub(super) unacked: Option<Unacked>,
    /// Since when, as its situation knows it.
    pub(super) since_ns: u64,
    /// What it is reported as part of.
    pub(super) subject: Option<String>,
    /// Its other end is this host's, and is reported there.
    pub(super) seen_there: bool,
}

/// Handshakes of one program with one peer.
pub(super) struct Group {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) total: u64,
    /// Those that wait, the oldest first.
    pub(super) waiting: BTreeSet<(u64, u64)>,
}

impl Group {
    pub(super) fn count(&self) -> u64 {
        self.waiting.len() as u64
    }
}

/// How it ended, as a word and in a sentence.
pub(super) type End = (&'static str, &'static str);
