//! What is known of network namespaces: their names, and which of them are no longer there. A name and a number
//! belong to one namespace at a time; who had them before is not called by them any more.

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::known::bounded::{Bounded, Table};

/// Namespaces remembered at most.
const NAMESPACES: usize = 16384;

/// The namespaces there are, as far as is known.
pub(super) struct Namespaces {
    /// The host's own, which outlives us.
    pub(super) host: Netns,
    names: Bounded<Netns, String>,
    /// Who has a name now.
    holders: Bounded<String, Netns>,
    /// Which namespace a number is now.
    living: Bounded<u32, u32>,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self {
            host: Netns::default(),
            names: Bounded::new(NAMESPACES),
            holders: Bounded::new(NAMESPACES),
            living: Bounded::new(NAMESPACES),
        }
    }
}

impl Namespaces {
    /// A namespace has this name now.
    pub(super) fn named(&mut self, netns: Netns, name: &str) {
        self.lives(netns);
        if self.names.get(&netns).is_none_or(|known| known != name) {
            self.names.insert(netns, name.to_owned());
        }
        if self.holders.get(&name.to_owned()) != Some(&netns) {
            self.holders.insert(name.to_owned(), netns);
        }
    }

    /// A name has been taken away.
    pub(super) fn unnamed(&mut self, netns: Netns, name: &str) {
        if self.holders.get(&name.to_owned()) == Some(&netns) {
            self.holders.remove(&name.to_owned());
        }
    }

    /// A namespace has been seen.
    pub(super) fn lives(&mut self, netns: Netns) {
        if self.living.get(&netns.inode) != Some(&netns.generation) {
            self.living.insert(netns.inode, netns.generation);
        }
    }

    /// What people call it; nothing for the host's own, and for one that is not known.
    pub(super) fn name(&self, netns: Netns) -> Option<String> {
        if !netns.is_known() || netns.inode == self.host.inode {
            return None;
        }
        let name = self.names.get(&netns).filter(|name| self.holders.get(*name) == Some(&netns));
        if let Some(name) = name {
            return Some(name.clone());
        }
        let gone = self.living.get(&netns.inode).is_some_and(|generation| *generation != netns.generation);
        Some(if gone { format!("net:[{}] (deleted)", netns.inode) } else { format!("net:[{}]", netns.inode) })
    }

    pub(super) fn table(&self) -> Table {
        self.names.table("namespaces")
    }
}

/// As recordings hold it: its number alone where that is all that is known, as in older ones, or the number and
/// the generation.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Both(u32, u32),
}

pub(super) fn serialize<S: Serializer>(netns: &Netns, to: S) -> Result<S::Ok, S::Error> {
    match netns.generation {
        0 => Written::Number(netns.inode),
        generation => Written::Both(netns.inode, generation),
    }
    .serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Netns, D::Error> {
    Ok(match Written::deserialize(from)? {
        Written::Number(inode) => Netns::numbered(inode),
        Written::Both(inode, generation) => Netns { inode, generation },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Netns = Netns { inode: 7, generation: 1 };
    const NEW: Netns = Netns { inode: 7, generation: 2 };

    #[test]
    fn a_name_and_a_number_are_one_namespace_s_at_a_time() {
        let mut known = Namespaces::default();
        known.named(OLD, "blue");
        assert_eq!(known.name(OLD).as_deref(), Some("blue"));
        known.named(NEW, "blue");
        assert_eq!(known.name(NEW).as_deref(), Some("blue"));
        assert_eq!(known.name(OLD).as_deref(), Some("net:[7] (deleted)"));
    }

    #[test]
    fn a_name_that_is_taken_away_is_not_said_and_not_another_s() {
        let mut known = Namespaces::default();
        known.named(OLD, "blue");
        known.unnamed(OLD, "blue");
        assert_eq!(known.name(OLD).as_deref(), Some("net:[7]"));
        known.named(NEW, "green");
        known.unnamed(OLD, "green");
        assert_eq!(known.name(NEW).as_deref(), Some("green"));
    }

    #[test]
    fn a_renamed_namespace_has_its_new_name_and_the_host_s_own_none() {
        let mut known = Namespaces { host: Netns::numbered(1), ..Namespaces::default() };
        known.named(NEW, "blue");
        known.named(NEW, "green");
        assert_eq!((known.name(NEW).as_deref(), known.name(known.host)), (Some("green"), None));
        assert_eq!(known.name(Netns::default()), None);
    }
}
