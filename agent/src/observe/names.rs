//! What network namespaces are called at this moment. A name is looked at again while events speak of it: it may
//! have been given to another namespace meanwhile, which may even have got the number of the one before.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ebpf_probes::abi::Netns;

use crate::{
    known::{bounded::Bounded, context::Context},
    namespaces::{self, Stamp},
};

/// Names are looked at again at most this often.
const EVERY: Duration = Duration::from_millis(100);
/// Namespaces known to have been asked for, at most.
const ASKED: usize = 16384;
/// Names looked at, at most.
const NAMES: usize = 16384;

/// The names as last seen.
pub(super) struct Names {
    /// What each name was, and which namespace if that is known.
    seen: HashMap<String, (Stamp, Option<Netns>)>,
    /// Namespaces whose name was looked for at least once.
    asked: Bounded<Netns, ()>,
    read: Option<Instant>,
}

impl Default for Names {
    fn default() -> Self {
        Self { seen: HashMap::new(), asked: Bounded::new(ASKED), read: None }
    }
}

impl Names {
    /// An event speaks of a namespace.
    pub(super) fn of(&mut self, netns: Netns, apply: &mut impl FnMut(Context)) {
        if !netns.is_known() {
            return;
        }
        let is_new = self.asked.get(&netns).is_none();
        if is_new {
            self.asked.insert(netns, ());
        }
        // A new one may have got its name, or that of another, this very moment.
        if is_new || self.read.is_none_or(|at| at.elapsed() >= EVERY) {
            self.read(apply);
        }
    }

    /// Time passed: what is called by a name is still shown.
    pub(super) fn again(&mut self, apply: &mut impl FnMut(Context)) {
        if !self.seen.is_empty() && self.read.is_none_or(|at| at.elapsed() >= EVERY) {
            self.read(apply);
        }
    }

    fn read(&mut self, apply: &mut impl FnMut(Context)) {
        self.read = Some(Instant::now());
        let mut before = std::mem::take(&mut self.seen);
        let mut unknown = Vec::new();
        for (name, path, stamp) in namespaces::named().take(NAMES) {
            match before.remove(&name) {
                Some((known, netns)) if known == stamp => {
                    self.seen.insert(name, (stamp, netns));
                }
                other => {
                    if let Some((_, Some(netns))) = other {
                        apply(unnamed(netns, name.clone()));
                    }
                    self.seen.insert(name.clone(), (stamp, None));
                    unknown.push((name, path));
                }
            }
        }
        for (name, (_, netns)) in before {
            if let Some(netns) = netns {
                apply(unnamed(netns, name));
            }
        }
        let found = namespaces::identify(unknown.iter().map(|(_, path)| path.clone()).collect());
        for (path, netns) in found {
            let Some((name, _)) = unknown.iter().find(|(_, known)| *known == path) else { continue };
            if let Some((stamp, seen)) = self.seen.get_mut(name) {
                // Another one by now: its stamp has changed, and it is looked at again.
                if stamp.is(netns) {
                    *seen = Some(netns);
                    apply(Context::Netns {
                        inode: netns.inode,
                        generation: netns.generation,
                        name: name.clone(),
                    });
                }
            }
        }
    }
}

fn unnamed(netns: Netns, name: String) -> Context {
    Context::NetnsUnnamed { inode: netns.inode, generation: netns.generation, name }
}
