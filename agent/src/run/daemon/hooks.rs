//! The webhooks that run: one thread a URL, changed by a reload.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;

use crate::{
    config::Webhooks,
    outputs::{
        queue::Counts,
        store::Store,
        webhook::{self, Bell},
    },
};

/// By URL, what ends each.
pub(super) struct Hooks {
    store: Store,
    bell: Arc<Bell>,
    counts: Arc<Counts>,
    running: BTreeMap<String, webhook::Running>,
    known: Webhooks,
}

impl Hooks {
    pub(super) fn new(store: Store, bell: Arc<Bell>, counts: Arc<Counts>) -> Self {
        Self { store, bell, counts, running: BTreeMap::new(), known: Webhooks::default() }
    }

    /// From now on these.
    pub(super) fn configure(&mut self, webhooks: &Webhooks) -> anyhow::Result<()> {
        let resigned = self.known.secret_file != webhooks.secret_file;
        self.running.retain(|url, _| !resigned && webhooks.urls.contains(url));
        self.bell.ring();
        for url in &webhooks.urls {
            if !self.running.contains_key(url) {
                let (store, bell, counts) = (self.store.clone(), self.bell.clone(), self.counts.clone());
                let running = webhook::start(url.clone(), webhooks.secret_file.clone(), store, bell, counts)
                    .context("starting a webhook's thread")?;
                self.running.insert(url.clone(), running);
            }
        }
        self.known = webhooks.clone();
        Ok(())
    }

    /// Ends them; what they have not reported yet stays in the store.
    pub(super) fn stop(&mut self) {
        self.running.clear();
        self.bell.ring();
    }
}
