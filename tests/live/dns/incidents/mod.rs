//! `dns_unanswered`, live: each situation built with real sockets, and named once; and those that are healthy.

mod edns;
mod local_resolver;
mod outage;
mod unanswered;

use std::net::SocketAddr;

use crate::harness::{Culprit, Incident, Netns, dns::PORT, keep::Keeper, netns::Pair};

/// The kind of incident.
const UNANSWERED: &str = "dns_unanswered";

/// Two hosts, of which one asks the other, and culprit watching.
struct Scene {
    pair: Pair,
    /// The server that is asked.
    server: SocketAddr,
    culprit: Culprit,
    keeper: Keeper,
}

impl Scene {
    /// `case` names the recording, `rule/case`.
    #[track_caller]
    fn set(case: &'static str) -> Self {
        let pair = Pair::make();
        let server = pair.service(PORT);
        let (culprit, mut keeper) = (Culprit::trace(""), Keeper::new(case));
        keeper.keep_connects(std::process::id());
        Self { pair, server, culprit, keeper }
    }

    /// The incident of who asks, as it opens.
    #[track_caller]
    fn opened(&self) -> Incident {
        let opened = opened(&self.culprit, &self.pair.client);
        self.keeper.catches_up();
        opened
    }

    /// The same incident's end.
    #[track_caller]
    fn resolved(&self, opened: &Incident) -> Incident {
        let resolved = self.culprit.wait_for_incident("its end", |emitted| {
            emitted.id() == opened.id() && emitted.text("/state") == "resolved"
        });
        self.keeper.catches_up();
        resolved
    }

    /// Ends the scene. So many incidents were opened about who asks.
    #[track_caller]
    fn ends_with(mut self, expected: usize) {
        self.culprit.settle(&self.pair.client);
        let client = &self.pair.client;
        let opened = self.culprit.incidents(|emitted| emitted.opens() && emitted.within(client));
        assert_eq!(opened.len(), expected, "{opened:#?}");
        self.keeper.end();
    }
}

/// The incident about lookups of this namespace, as it opens.
#[track_caller]
fn opened(culprit: &Culprit, netns: &Netns) -> Incident {
    culprit.wait_for_incident("the unanswered lookup", |emitted| {
        emitted.opens() && emitted.text("/kind") == UNANSWERED && emitted.within(netns)
    })
}
