//! The neighbour tables: read at start, and again when records about neighbours were lost.

use std::time::Duration;

use anyhow::Context as _;
use ebpf_probes::abi::Netns;
use tokio::time::Instant;

use crate::{
    kernel::load::Kernel,
    known::{context::Context, request::Sought},
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

impl Tables {
    /// Gives the kernel the neighbours it does not know; what is to be known of their namespaces.
    pub(super) fn read(&mut self, kernel: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        let dump = neighdump::everywhere().context("reading the neighbour tables")?;
        let again = self.read.replace(Instant::now()).is_some();
        let now = boot_ns();
        let mut contexts = Vec::new();
        for namespace in dump.namespaces {
            contexts.extend(names(&namespace));
            if again {
                contexts.push(Context::Network(Box::new(network::again(&namespace, now))));
            } else if !namespace.gateways.is_empty() {
                contexts.push(Context::Network(Box::new(network::gateways(&namespace, now))));
            }
            for neighbour in &namespace.neighbours {
                let (key, value) = neighbour.map_entry(now);
                kernel.add_neighbour(key, value)?;
            }
        }
        Ok(contexts)
    }

    /// Records about neighbours were lost: what was read before is incomplete.
    pub(super) fn are_incomplete(&mut self) {
        self.due = true;
    }

    /// Reads the tables again if they are incomplete, as soon as the last time is long enough ago: what is missing is
    /// added, and what has ended meanwhile ends here too.
    pub(super) fn read_again(&mut self, kernel: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        if self.due && self.read.is_some_and(|at| at.elapsed() >= AGAIN_AFTER) {
            self.due = false;
            return self.read(kernel);
        }
        Ok(vec![])
    }
}

fn names(namespace: &Namespace) -> impl Iterator<Item = Context> {
    let Netns { inode, generation } = namespace.netns;
    let name = namespace.name.clone().map(|name| Context::Netns { inode, generation, name });
    let device = |(index, name): (&u32, &String)| Context::Device {
        netns: namespace.netns,
        index: *index,
        name: name.clone(),
    };
    name.into_iter().chain(namespace.devices.iter().map(device))
}

/// The devices and gateways of a namespace; what was known of one that is gone stays.
pub(super) fn gateways(netns: Netns) -> Vec<Context> {
    let found = neighdump::some(&[netns]).unwrap_or_default();
    let Some(namespace) = found.namespaces.first() else { return vec![] };
    let gateways = Context::Network(Box::new(network::gateways(namespace, boot_ns())));
    names(namespace).chain([gateways]).collect()
}

/// The devices of this machine that have a neighbour's address or MACs.
pub(super) fn holders(sought: &Sought) -> Context {
    Context::Holders(Box::new(neighdump::holders(sought, boot_ns())))
}
