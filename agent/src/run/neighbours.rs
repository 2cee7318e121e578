//! The neighbour tables: read at start, and again when records about neighbours were lost.

use std::time::Duration;

use anyhow::Context as _;
use ebpf_probes::abi::Netns;
use tokio::time::Instant;

use super::Session;
use crate::{
    enrich::context::{Context, Sought},
    neighdump::{self, Namespace},
    network,
    time::boot_ns,
};

/// The tables are read again at most this often.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// When they were read.
#[derive(Default)]
pub(super) struct Tables {
    read: Option<Instant>,
    due: bool,
}

impl Session {
    /// Tells the kernel and the world of the neighbours there are that they do not know.
    pub(super) fn learn_neighbours(&mut self) -> anyhow::Result<()> {
        let dump = neighdump::everywhere().context("reading the neighbour tables")?;
        let again = self.tables.read.replace(Instant::now()).is_some();
        let now = boot_ns();
        for namespace in dump.namespaces {
            self.learn_names(&namespace);
            if again {
                self.learn(&Context::Network(Box::new(network::again(&namespace, now))));
            } else if !namespace.gateways.is_empty() {
                self.learn(&Context::Network(Box::new(network::gateways(&namespace, now))));
            }
            for neighbour in &namespace.neighbours {
                let (key, value) = neighbour.map_entry(now);
                self.kernel.add_neighbour(key, value)?;
            }
        }
        Ok(())
    }

    fn learn_names(&mut self, namespace: &Namespace) {
        if let Some(name) = &namespace.name {
            let Netns { inode, generation } = namespace.netns;
            self.learn(&Context::Netns { inode, generation, name: name.clone() });
        }
        for (index, name) in &namespace.devices {
            self.learn(&Context::Device { netns: namespace.netns, index: *index, name: name.clone() });
        }
    }

    /// Looks at the devices and gateways of a namespace; what was known of one that is gone stays.
    pub(super) fn look_at_network(&mut self, netns: Netns) {
        let found = neighdump::some(&[netns]).unwrap_or_default();
        if let Some(namespace) = found.namespaces.first() {
            self.learn_names(namespace);
            self.learn(&Context::Network(Box::new(network::gateways(namespace, boot_ns()))));
        }
    }

    /// Looks who on this machine has a neighbour's address or MACs.
    pub(super) fn look_for_holders(&mut self, sought: &Sought) {
        self.learn(&Context::Holders(Box::new(neighdump::holders(sought, boot_ns()))));
    }

    /// `blind`: records about neighbours were lost. Reads the tables again, now or as soon as the last time is
    /// long enough ago: what is missing is added, and what has ended meanwhile ends here too.
    pub(super) fn read_neighbours_again(&mut self, blind: bool) -> anyhow::Result<()> {
        self.tables.due |= blind;
        if self.tables.due && self.tables.read.is_some_and(|at| at.elapsed() >= AGAIN_AFTER) {
            self.tables.due = false;
            self.learn_neighbours()?;
        }
        Ok(())
    }
}
