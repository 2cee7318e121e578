//! `address_conflict`: another host has an address of this one. It says so (ARP, neighbour advertisements), or duplicate
//! address detection has found it. Peers' packets go there, and nothing on this host shows it.
//!
//! Never a conflict: what this host's own other devices say (a MAC of the same namespace, or of another one that does not
//! have the address itself: a proxy, a bridge); a virtual router's MAC that a device of this host has; a question of
//! one who looks whether the address is free, for it claims nothing; an address that this host gives up at once, as a
//! backup does when the master is back.

mod say;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::neighbours::Key;
use crate::{
    domains::{Event, Record},
    known::{
        bounded::{Bounded, Table},
        context::{AddressNews, Claim, Holder, Holders, Listeners, ListensAt, OwnAddress},
        request::{Place, Sought},
    },
    pipeline::{Diagnose, Request, Rule, View, incident::Kind},
    records,
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::AddressConflict,
    about: "another host claims an address of this one, or duplicate address detection found it: both MACs, since when, who listens there",
    opens: "another MAC claims an address that this host still has 2 s later, and is no device of this host that has not got the address itself; or duplicate address detection failed and the address is still there a second later",
    make: || Box::new(AddressConflict { addresses: Bounded::new(ADDRESSES), looked_ns: None }),
};

/// Addresses followed at most.
const ADDRESSES: usize = 256;
/// Other MACs remembered of each at most.
const CLAIMANTS: usize = 8;
/// This host gives the address up within this long where a failover is healthy.
const GIVES_WAY_NS: u64 = 2_000_000_000;
/// A temporary address that is refused is replaced by another one at once.
const REPLACED_NS: u64 = 1_000_000_000;
/// No other host has claimed it for this long.
const QUIET_NS: u64 = 60_000_000_000;
/// Of one who claims it more seldom, twice as long as between two claims, and at most this long.
const LONG_QUIET_NS: u64 = 1_800_000_000_000;
/// Whether another namespace of this machine still has the address is asked so often.
const HAS_EVERY_NS: u64 = 5_000_000_000;
/// It is asked at most this often whose MACs some are.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

struct AddressConflict {
    addresses: Bounded<Key, Contested>,
    /// When it was last asked whose MACs some are.
    looked_ns: Option<u64>,
}

/// An address of this host that another one may have.
#[derive(Default)]
struct Contested {
    device: String,
    mac: [u8; 8],
    prefix: u8,
    claimants: Vec<Claimant>,
    /// Since when duplicate address detection has refused it, and when that was heard.
    dad_failed: Option<(u64, u64)>,
    /// Whose the MACs are is to be asked; who listens, too.
    ask: bool,
    asked_ns: u64,
    asked_listeners: bool,
    listeners: Vec<ListensAt>,
    /// Claims when it was last reported.
    said: u64,
    id: Option<String>,
}

/// Another MAC.
struct Claimant {
    mac: [u8; 8],
    how: Claim,
    first_ns: u64,
    last_ns: u64,
    /// The longest silence between two claims.
    gap_ns: u64,
    claims: u64,
    /// It was looked whether a device of this machine has it.
    looked: bool,
    holder: Option<Holder>,
    other_addresses: Vec<IpAddr>,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// No other host has claimed it for a minute.
    Quiet,
    /// This host has it no more.
    Gone,
    /// It can be used.
    Usable,
    /// The other MACs are this host's own.
    Ours,
    /// The other namespace of this machine has it no more.
    LetGo,
}

impl Diagnose for AddressConflict {
    fn tables(&self) -> Vec<Table> {
        vec![self.addresses.table("address_conflict_addresses")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        if matches!(event.what, Record::Tick) && !self.addresses.is_empty() {
            self.ask(view);
            self.judge(view);
        }
    }

    fn own_address(&mut self, own: &OwnAddress, view: &mut View<'_>) {
        let key = (own.netns, own.ifindex, records::address_bytes(own.address));
        match own.news {
            AddressNews::Claimed { by, how } => self.followed(key, own).claimed(by, how, own.boot_ns),
            AddressNews::DadFailed { since_ns } => {
                let contested = self.followed(key, own);
                contested.dad_failed = Some((since_ns.min(own.boot_ns), own.boot_ns));
            }
            AddressNews::Usable => {
                if self.addresses.get(&key).is_some_and(|contested| contested.dad_failed.is_some()) {
                    self.ends(&key, End::Usable, view);
                }
            }
            AddressNews::Gone => self.ends(&key, End::Gone, view),
        }
    }

    fn holders(&mut self, holders: &Holders, view: &mut View<'_>) {
        let key = (holders.netns, holders.ifindex, holders.address);
        let Some(contested) = self.addresses.get_mut(&key) else { return };
        let mut let_go = false;
        for claimant in &mut contested.claimants {
            claimant.looked = true;
            // One that has the address itself says more than one that has not.
            let having = holders.devices.iter().filter(|holder| holder.mac == claimant.mac);
            let holder = having.max_by_key(|holder| holder.has_address).cloned();
            let had = claimant.holder.take().filter(|holder| holder.has_address);
            // A device that is gone has no address either.
            let gone = had.as_ref().map(|had| Holder { has_address: false, ..had.clone() });
            claimant.holder = holder.or(gone);
            let_go |= had.is_some() && claimant.holder.as_ref().is_some_and(|holder| !holder.has_address);
            let at = holders.others.iter().filter(|other| other.mac == claimant.mac);
            claimant.other_addresses = at.map(|other| records::address(other.address)).collect();
        }
        if contested.id.is_some() && !contested.is_contested(&key) {
            self.ends(&key, if let_go { End::LetGo } else { End::Ours }, view);
        }
    }

    fn listeners(&mut self, listeners: &Listeners, view: &mut View<'_>) {
        let address = records::address_bytes(listeners.address);
        for (key, contested) in self.addresses.iter_mut() {
            if key.0 != listeners.netns || key.2 != address {
                continue;
            }
            contested.listeners.clone_from(&listeners.listeners);
            if let Some(id) = contested.id.clone() {
                let report = contested.report(key, view.now_ns, None, view);
                view.store.update(view.now_ns, view.world, &id, report);
            }
        }
    }
}

impl AddressConflict {
    fn followed(&mut self, key: Key, own: &OwnAddress) -> &mut Contested {
        if self.addresses.get(&key).is_none() {
            self.addresses.insert(key, Contested::default());
        }
        let contested = self.addresses.get_mut(&key).expect("it is there, or was made");
        contested.device.clone_from(&own.device);
        (contested.mac, contested.prefix) = (own.mac, own.prefix);
        contested
    }

    /// Asks what is to be known, about one address at a time.
    fn ask(&mut self, view: &mut View<'_>) {
        if self.looked_ns.is_some_and(|at| view.now_ns.saturating_sub(at) < LOOK_EVERY_NS) {
            return;
        }
        let mut waiting: Vec<&Key> =
            self.addresses.iter().filter(|(_, contested)| contested.ask).map(|(key, _)| key).collect();
        waiting.sort_unstable();
        let Some(key) = waiting.first().map(|key| **key) else { return };
        let Some(contested) = self.addresses.get_mut(&key) else { return };
        (contested.ask, contested.asked_ns) = (false, view.now_ns);
        self.looked_ns = Some(view.now_ns);
        let (netns, ifindex, address) = key;
        let macs = contested.claimants.iter().map(|claimant| claimant.mac).collect();
        view.requests.push(Request::Holders(Sought { netns, ifindex, address, macs }));
        if !contested.asked_listeners {
            contested.asked_listeners = true;
            view.requests.push(Request::Listeners(Place { netns, address: records::address(address) }));
        }
    }

    fn judge(&mut self, view: &mut View<'_>) {
        let mut keys: Vec<Key> = self.addresses.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            let Some(contested) = self.addresses.get_mut(&key) else { continue };
            if contested.is_quiet(view.now_ns) {
                let forgotten = contested.is_forgotten(view.now_ns);
                self.ends(&key, End::Quiet, view);
                if forgotten {
                    self.addresses.remove(&key);
                }
            } else if let Some(id) = contested.id.clone() {
                contested.ask |= contested.is_within(&key, view.now_ns);
                let claims = contested.claims();
                if claims.checked_ilog2() != contested.said.checked_ilog2() {
                    contested.said = claims;
                    let report = contested.report(&key, view.now_ns, None, view);
                    view.store.update(view.now_ns, view.world, &id, report);
                }
            } else if contested.is_due(&key, view.now_ns) {
                contested.said = contested.claims();
                let report = contested.report(&key, view.now_ns, None, view);
                contested.id = Some(view.store.open(view.now_ns, view.world, report));
            }
        }
    }

    fn ends(&mut self, key: &Key, end: End, view: &mut View<'_>) {
        let Some(contested) = self.addresses.get_mut(key) else { return };
        if let Some(id) = contested.id.take() {
            let report = contested.report(key, view.now_ns, Some(end), view);
            view.store.over(view.now_ns, &id, report);
        }
        // Whose the MACs are, and how seldom they are heard, is kept: the next claim is no first one.
        if !matches!(end, End::Ours | End::Quiet | End::LetGo) {
            self.addresses.remove(key);
        }
    }
}

impl Contested {
    fn claimed(&mut self, mac: [u8; 8], how: Claim, at_ns: u64) {
        if let Some(known) = self.claimants.iter_mut().find(|claimant| claimant.mac == mac) {
            known.gap_ns = known.gap_ns.max(at_ns.saturating_sub(known.last_ns));
            (known.how, known.last_ns) = (how, known.last_ns.max(at_ns));
            known.claims += 1;
            return;
        }
        if self.claimants.len() >= CLAIMANTS {
            self.claimants.sort_by_key(|claimant| claimant.last_ns);
            self.claimants.remove(0);
        }
        self.ask = true;
        self.claimants.push(Claimant {
            mac,
            how,
            first_ns: at_ns,
            last_ns: at_ns,
            gap_ns: 0,
            claims: 1,
            looked: false,
            holder: None,
            other_addresses: vec![],
        });
    }

    /// Other hosts', or other namespaces' that have the address themselves.
    fn foreign(&self, key: &Key) -> impl Iterator<Item = &Claimant> + use<'_> {
        let netns = key.0;
        self.claimants.iter().filter(move |claimant| {
            claimant.holder.as_ref().is_none_or(|holder| holder.has_address && holder.netns != netns)
        })
    }

    /// It is to be asked again whether the other one has it: it is of this machine, as far as is known.
    fn is_within(&self, key: &Key, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.asked_ns) >= HAS_EVERY_NS
            && self.foreign(key).any(|claimant| claimant.holder.is_some())
    }

    fn is_contested(&self, key: &Key) -> bool {
        self.dad_failed.is_some() || self.foreign(key).next().is_some()
    }

    fn claims(&self) -> u64 {
        self.claimants.iter().map(|claimant| claimant.claims).sum()
    }

    /// It has lasted for long enough, and was looked at.
    fn is_due(&self, key: &Key, now_ns: u64) -> bool {
        let lasts =
            |claimant: &Claimant| claimant.looked && now_ns.saturating_sub(claimant.first_ns) >= GIVES_WAY_NS;
        self.dad_failed.is_some_and(|(_, heard_ns)| now_ns.saturating_sub(heard_ns) >= REPLACED_NS)
            || self.foreign(key).any(lasts)
    }

    /// Longer than the most seldom claims are apart.
    fn is_forgotten(&self, now_ns: u64) -> bool {
        self.claimants.iter().all(|claimant| now_ns.saturating_sub(claimant.last_ns) >= LONG_QUIET_NS)
    }

    fn is_quiet(&self, now_ns: u64) -> bool {
        let quiet = |claimant: &Claimant| {
            now_ns.saturating_sub(claimant.last_ns) >= (2 * claimant.gap_ns).clamp(QUIET_NS, LONG_QUIET_NS)
        };
        self.dad_failed.is_none() && self.claimants.iter().all(quiet)
    }

    fn began_ns(&self, key: &Key) -> u64 {
        let claimed = self.foreign(key).map(|claimant| claimant.first_ns);
        claimed.chain(self.dad_failed.map(|(since, _)| since)).min().unwrap_or(0)
    }
}
