//! The live stream: open incidents, and every change from now on, for any number of readers. A reader that
//! does not keep up loses its place and is told so; nobody waits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use tokio::sync::broadcast;

use super::{STREAM, Told, queue::Counts};
use crate::correlate::incident::State;

/// Open incidents kept for readers that come, at most.
const OPEN: usize = 1024;

/// Where incidents are told to whoever listens.
pub struct Hub {
    sender: broadcast::Sender<(u64, Arc<Told>)>,
    state: Mutex<Open>,
    /// What became of the incidents; who waits are readers.
    pub counts: Arc<Counts>,
}

#[derive(Default)]
struct Open {
    number: u64,
    incidents: BTreeMap<String, Arc<Told>>,
}

/// A reader's beginning: what is open now, and everything after it.
pub struct Reader {
    /// Open incidents with their numbers.
    pub open: Vec<Arc<Told>>,
    /// The number of the last change before.
    pub number: u64,
    /// What comes.
    pub changes: broadcast::Receiver<(u64, Arc<Told>)>,
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
    /// Tells everybody; waits for nobody.
    pub fn tell(&self, told: &Arc<Told>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.number += 1;
        let id = &told.incident.id;
        if told.incident.state == State::Resolved {
            state.incidents.remove(id);
        } else if state.incidents.len() < OPEN || state.incidents.contains_key(id) {
            state.incidents.insert(id.clone(), told.clone());
        }
        self.counts.received.fetch_add(1, Relaxed);
        // Nobody listens: that is all right.
        let _ = self.sender.send((state.number, told.clone()));
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
