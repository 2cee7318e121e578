//! The live stream: open incidents, and every change from now on, for any number of readers. A reader that
//! does not keep up loses its place and hears so; nothing waits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use tokio::sync::broadcast;

use super::{Rendered, STREAM, queue::Counts};
use crate::pipeline::incident::State;

/// Open incidents kept for readers that come, at most.
const OPEN: usize = 1024;

/// Where incidents go to every listener.
pub struct Hub {
    sender: broadcast::Sender<(u64, Arc<Rendered>)>,
    state: Mutex<Open>,
    /// What became of the incidents; who waits are readers.
    pub counts: Arc<Counts>,
}

#[derive(Default)]
struct Open {
    number: u64,
    incidents: BTreeMap<String, Arc<Rendered>>,
}

/// A reader's beginning: what is open now, and everything after it.
pub struct Reader {
    /// Open incidents with their numbers.
    pub open: Vec<Arc<Rendered>>,
    /// The number of the last change before.
    pub number: u64,
    /// What comes.
    pub changes: broadcast::Receiver<(u64, Arc<Rendered>)>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(STREAM.capacity).0,
            state: Mutex::default(),
            counts: Counts::new(STREAM),
        }
    }
}

impl Hub {
    /// Sends to every reader; waits for none.
    pub fn notify(&self, rendered: &Arc<Rendered>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.number += 1;
        let id = &rendered.incident.id;
        if rendered.incident.state == State::Resolved {
            state.incidents.remove(id);
        } else if state.incidents.len() < OPEN || state.incidents.contains_key(id) {
            state.incidents.insert(id.clone(), rendered.clone());
        }
        self.counts.received.fetch_add(1, Relaxed);
        // No reader listens: that is all right.
        let _ = self.sender.send((state.number, rendered.clone()));
        self.counts.emitted.fetch_add(1, Relaxed);
    }

    /// From now on.
    pub fn listen(&self) -> Reader {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Reader {
            open: state.incidents.values().cloned().collect(),
            number: state.number,
            changes: self.sender.subscribe(),
        }
    }
}
