//! Other hosts that claim an address of this one, and addresses that duplicate address detection refused: a thread of its
//! own watches for them.

use ebpf_probes::abi::ProbeId;

use super::source::{Found, Kind, Source};
use crate::{
    claims::{Counted, Watch},
    kernel::load::{Kernel, Loss},
    known::{
        context::{Context, Listeners, ListensAt},
        request::Place,
    },
    observe,
    time::boot_ns,
};

/// Listeners reported at most.
const LISTENERS: usize = 16;

/// Claims, among the sources.
pub(super) const KIND: Kind = Kind {
    open: |spec, _| {
        if !super::wants(spec, ProbeId::NEIGH) {
            return Ok(None);
        }
        Ok(match Watch::start() {
            Ok(watch) => Some(Box::new(Claims(watch)) as Box<dyn Source>),
            Err(error) => {
                tracing::warn!("other hosts that claim an address of this one are not seen: {error}");
                None
            }
        })
    },
};

struct Claims(Watch);

impl Source for Claims {
    fn look(&mut self, _kernel: &mut Kernel, _grown: &[Loss]) -> anyhow::Result<Found> {
        Ok(Found { contexts: self.0.news().collect(), ..Found::default() })
    }

    fn claims(&self) -> Option<Counted> {
        Some(self.0.counted())
    }
}

/// Who listens at an address: those at that very address first.
pub(super) fn listeners(place: &Place) -> Context {
    let mut listeners: Vec<ListensAt> = observe::listening_at(place.netns, place.address)
        .into_iter()
        .map(|(pid, comm, port, bound)| ListensAt { pid, comm, port, bound })
        .collect();
    listeners.sort_by_key(|one| (!one.bound, one.port, one.pid));
    listeners.dedup_by_key(|one| (one.port, one.pid));
    listeners.truncate(LISTENERS);
    let Place { netns, address } = *place;
    Context::Listeners(Box::new(Listeners { boot_ns: boot_ns(), netns, address, listeners }))
}
