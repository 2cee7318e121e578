//! The neighbour tables: read at start, and again when records about neighbours were lost.

use std::time::Duration;

use anyhow::Context as _;
use ebpf_probes::abi::{Netns, ProbeId};
use tokio::time::Instant;

use super::source::{Found, Kind, Source};

use crate::{
    kernel::load::{Kernel, Loss},
    known::{context::Context, request::Sought},
    neighdump::{self, Namespace},
    network,
    time::boot_ns,
};

/// The tables are read again at most this often.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Next hops are noted for this long from the start on, though nothing has gone unanswered yet.
const AT_START_NS: u64 = 15_000_000_000;

/// The neighbour tables, among the sources.
pub(super) const KIND: Kind = Kind {
    open: |spec, _| {
        Ok(super::wants(spec, ProbeId::NEIGH).then(|| Box::<Tables>::default() as Box<dyn Source>))
    },
};

impl Source for Tables {
    fn at_start(&mut self, kernel: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        self.read(kernel)
    }

    /// Reads the tables again if they are incomplete, as soon as the last time is long enough ago: what is missing is
    /// added, and what has ended meanwhile ends here too.
    fn look(&mut self, kernel: &mut Kernel, grown: &[Loss]) -> anyhow::Result<Found> {
        // Records about neighbours were lost: what was read before is incomplete.
        self.due |= grown.iter().any(|loss| loss.probe == ProbeId::NEIGH);
        let mut found = Found::default();
        if self.due && self.read.is_some_and(|at| at.elapsed() >= AGAIN_AFTER) {
            self.due = false;
            found.contexts = self.read(kernel)?;
        }
        Ok(found)
    }
}

/// When they were read.
#[derive(Default)]
struct Tables {
    read: Option<Instant>,
    due: bool,
}

impl Tables {
    /// Gives the kernel the neighbours it does not know; what is to be known of their namespaces.
    fn read(&mut self, kernel: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        let dump = neighdump::everywhere().context("reading the neighbour tables")?;
        let again = self.read.replace(Instant::now()).is_some();
        let now = boot_ns();
        if !again {
            // What went unanswered before we were here shows no first time.
            kernel.note_next_hops(now.saturating_add(AT_START_NS))?;
        }
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
