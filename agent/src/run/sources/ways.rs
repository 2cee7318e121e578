//! How HTTP servers that say what time it is are reached: looked up before what they say is reported, again from time
//! to time, and a few of them at a time only.

use std::time::{Duration, Instant};

use ebpf_probes::{
    abi::Netns,
    probes::clock::{DateKey, DateRecord},
};

use super::source::{Kind, Source};
use crate::{
    domains::{Event, Record, clock},
    kernel::namespaces,
    known::{
        bounded::Bounded,
        context::{Context, Way},
    },
    neighdump::{self, To},
    records,
};

/// Servers remembered at most: as many as are heard of at a time, and some.
const SERVERS: usize = 1024;
/// Routes change, and numbers of namespaces are given away again: after this long it is looked up again.
const HOLDS: Duration = Duration::from_secs(60);
/// Servers looked up in a second at most: one in a namespace may cost a walk through `/proc`. The others are as if
/// they had said nothing, and say it again.
const A_SECOND: u32 = 8;

/// Ways to HTTP servers, among the sources.
pub(super) const KIND: Kind = Kind { open: |_, _| Ok(Some(Box::<Ways>::default())) };

impl Source for Ways {
    fn before(&mut self, event: &Event) -> Vec<Context> {
        let Record::Clock(clock::Record::HttpDate(record)) = &event.what else { return vec![] };
        self.look_up(record).into_iter().collect()
    }
}

/// What was looked up.
struct Ways {
    known: Bounded<(DateKey, u32), Instant>,
    since: Instant,
    looked: u32,
}

impl Default for Ways {
    fn default() -> Self {
        Self { known: Bounded::new(SERVERS), since: Instant::now(), looked: 0 }
    }
}

impl Ways {
    /// Looks a server up, if that is due.
    fn look_up(&mut self, record: &DateRecord) -> Option<Context> {
        // Of one machine's ports one is enough.
        let (server, generation) = (&record.server, record.date.generation);
        let machine = (DateKey { port: 0, ..*server }, generation);
        if self.known.get(&machine).is_some_and(|at| at.elapsed() < HOLDS) {
            return None;
        }
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.looked) = (Instant::now(), 0);
        }
        if self.looked >= A_SECOND {
            return None;
        }
        self.looked += 1;
        let address = records::address(server.address);
        let way = way(Netns { inode: server.netns, generation }, address);
        // What could not be looked up (its namespace was found by a process that ended) is, when it says it again.
        if way != Way::Unknown {
            self.known.insert(machine, Instant::now());
        }
        Some(Context::Way { netns: server.netns, generation, address, way })
    }
}

fn way(netns: Netns, address: std::net::IpAddr) -> Way {
    let Ok(route) = neighdump::way(netns, address) else { return Way::Unknown };
    let foreign = match &route.namespace {
        None => false,
        Some(path) => !namespaces::is_the_hosts(path).unwrap_or(false),
    };
    match route.to {
        _ if foreign => Way::Foreign,
        To::Itself => Way::Itself,
        To::Nowhere => Way::Inside,
        To::Away if route.namespace.is_none() => Way::Host,
        To::Away if route.default => Way::Out,
        To::Away => Way::Inside,
    }
}
