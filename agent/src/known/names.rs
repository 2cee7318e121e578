//! Names of addresses, as DNS answers gave them: whom may a name be shown to?
//!
//! A program may ask a server of its own and get any name for any address. So a name is believed for the
//! process that asked; for another one only when it came from a resolver that this other process is configured
//! to use itself. Where the names that may be believed contradict each other, there is none: the address is
//! shown. It refuses to know who is right.

use std::net::IpAddr;

use ebpf_probes::abi::Netns;

use crate::known::bounded::{Bounded, Table};

/// Addresses remembered at most.
const ADDRESSES: usize = 16384;
/// Names of one address at most.
const NAMES: usize = 8;
/// Of them, by one process: two contradict each other, more say no more.
const OF_ONE: usize = 2;
/// A name holds for as long as its record does, and at least so long: programs keep the address they got.
const LEAST_NS: u64 = 300_000_000_000;

/// What addresses are called, by network namespace.
pub struct Names {
    addresses: Bounded<(Netns, IpAddr), Vec<Answer>>,
    /// Names that had to give way to others of the same address.
    displaced: u64,
}

/// A name for an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The name that was asked for, in lower case.
    pub name: String,
    /// The process that asked.
    pub asker: Asker,
    /// The server that answered.
    pub server: IpAddr,
    /// Until when its record is good, CLOCK_BOOTTIME in nanoseconds.
    pub until_ns: u64,
}

/// A process, by its number and when it was started, CLOCK_BOOTTIME in nanoseconds; (0, 0) for none known.
pub type Asker = (u32, u64);

/// Who wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// Which process.
    pub process: Asker,
    /// The servers it is configured to ask.
    pub resolvers: &'a [IpAddr],
}

impl Default for Names {
    fn default() -> Self {
        Self { addresses: Bounded::new(ADDRESSES), displaced: 0 }
    }
}

impl Names {
    /// An answer named an address. What was good until before now is forgotten: addresses are used again.
    pub fn add(&mut self, netns: Netns, address: IpAddr, boot_ns: u64, ttl_s: u32, answer: Answer) {
        let until_ns = boot_ns.saturating_add((u64::from(ttl_s) * 1_000_000_000).max(LEAST_NS));
        let answer = Answer { until_ns, ..answer };
        let key = (netns, address);
        let Some(names) = self.addresses.get_mut(&key) else {
            return self.addresses.insert(key, vec![answer]);
        };
        names.retain(|known| known.until_ns >= boot_ns && !known.says_the_same(&answer));
        let of_one = |known: &&Answer| known.asker == answer.asker && known.server == answer.server;
        while names.iter().filter(of_one).count() >= OF_ONE {
            let Some(oldest) = names.iter().position(|known| of_one(&known)) else { break };
            names.remove(oldest);
        }
        if names.len() >= NAMES {
            names.remove(0);
            self.displaced += 1;
        }
        names.push(answer);
    }

    /// The one name this reader may believe.
    pub fn name(&self, netns: Netns, address: IpAddr, reader: Reader<'_>) -> Option<&str> {
        let names = self.addresses.get(&(netns, address))?;
        let own = |known: &&Answer| known.asker == reader.process && reader.process.0 != 0;
        if names.iter().any(|known| own(&known)) {
            return agreed(names.iter().filter(own));
        }
        agreed(names.iter().filter(|known| reader.resolvers.contains(&known.server)))
    }

    /// The addresses of which this reader may believe that they have this name. Walks through all addresses.
    pub fn addresses(&self, netns: Netns, name: &str, reader: Reader<'_>) -> impl Iterator<Item = IpAddr> {
        self.addresses
            .iter()
            .filter(move |((at, ip), _)| *at == netns && self.name(netns, *ip, reader) == Some(name))
            .map(|((_, ip), _)| *ip)
    }

    pub(super) fn tables(&self) -> [Table; 2] {
        let most = self.addresses.values().map(Vec::len).max().unwrap_or(0) as u64;
        let of_one = Table {
            name: "names_of_an_address",
            entries: most,
            capacity: NAMES as u64,
            evictions: self.displaced,
        };
        [self.addresses.table("names"), of_one]
    }
}

impl Answer {
    fn says_the_same(&self, other: &Self) -> bool {
        (&self.name, self.asker, self.server) == (&other.name, other.asker, other.server)
    }
}

/// The name, if there is only one.
fn agreed<'a>(names: impl Iterator<Item = &'a Answer>) -> Option<&'a str> {
    let mut found = None;
    for known in names {
        match found {
            Some(name) if name != known.name => return None,
            _ => found = Some(known.name.as_str()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND_NS;

    const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const THEIRS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const HERE: Netns = Netns::numbered(1);

    fn add(names: &mut Names, at_s: u64, name: &str, asker: u32, server: IpAddr) {
        let answer = Answer { name: name.into(), asker: (asker, 1), server, until_ns: 0 };
        names.add(HERE, ADDRESS, at_s * SECOND_NS, 60, answer);
    }

    fn seen(names: &Names, process: u32) -> Option<&str> {
        names.name(HERE, ADDRESS, Reader { process: (process, 1), resolvers: &[OURS] })
    }

    #[test]
    fn a_name_of_a_strangers_own_server_is_his_alone() {
        let mut names = Names::default();
        add(&mut names, 1, "victim.example", 66, THEIRS);
        assert_eq!(seen(&names, 66), Some("victim.example"));
        assert_eq!((seen(&names, 7), seen(&names, 0)), (None, None));
    }

    #[test]
    fn a_name_of_the_configured_resolver_is_everybodys() {
        let mut names = Names::default();
        add(&mut names, 1, "db.example", 8, OURS);
        assert_eq!((seen(&names, 7), seen(&names, 0)), (Some("db.example"), Some("db.example")));
        assert_eq!(names.name(HERE, ADDRESS, Reader { process: (7, 1), resolvers: &[] }), None);
        assert_eq!(
            names.name(Netns::numbered(2), ADDRESS, Reader { process: (8, 1), resolvers: &[OURS] }),
            None,
            "another namespace"
        );
    }

    #[test]
    fn a_stranger_can_neither_replace_nor_contradict_what_a_process_asked() {
        let mut names = Names::default();
        add(&mut names, 1, "db.example", 7, OURS);
        for asker in 100..140 {
            add(&mut names, 2, &format!("x{asker}.example"), asker, THEIRS);
        }
        add(&mut names, 3, "db.example", 7, OURS);
        add(&mut names, 3, "evil.example", 66, OURS);
        assert_eq!(seen(&names, 7), Some("db.example"));
        assert_eq!(seen(&names, 9), None, "two names from our resolver: the address is shown");
    }

    #[test]
    fn two_names_for_one_address_are_none_until_one_is_over() {
        let mut names = Names::default();
        add(&mut names, 1, "a.example", 7, OURS);
        add(&mut names, 2, "b.example", 7, OURS);
        assert_eq!(seen(&names, 7), None);
        add(&mut names, 400, "b.example", 7, OURS);
        assert_eq!(seen(&names, 7), Some("b.example"));
    }

    #[test]
    fn the_next_process_of_that_number_asked_nothing() {
        let mut names = Names::default();
        add(&mut names, 1, "victim.example", 66, THEIRS);
        let next = Reader { process: (66, 2), resolvers: &[OURS] };
        assert_eq!(names.name(HERE, ADDRESS, next), None);
    }

    #[test]
    fn names_of_an_address_are_bounded() {
        let mut names = Names::default();
        for asker in 1..100 {
            add(&mut names, 1, "a.example", asker, THEIRS);
        }
        let [_, of_one] = names.tables();
        assert_eq!((of_one.entries, of_one.evictions), (NAMES as u64, 99 - NAMES as u64));
    }
}
