//! How much memory does culprit take while very many connections are open, and how long does a start among
//! them take, which looks at each of them? They are spread over as many loads as the limit of descriptors
//! asks for.

use anyhow::Result;
use rustix::process::{Resource, getrlimit};

use super::{
    Bench,
    load::{Kind, Order},
    load_pair::Pair,
    report::Crowd,
    watch::{self, Culprit},
};

/// Connections: each is two sockets on this machine.
const CONNECTIONS: u64 = 100_000;
/// In a smoke run.
const FEW: u64 = 2_000;
/// Connections to one server: fewer than there are ephemeral ports.
const EACH: u64 = 20_000;
/// Descriptors a load needs besides.
const BESIDES: u64 = 100;

pub(crate) fn measure(bench: &Bench<'_>, crowds: &mut Vec<Crowd>) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let each = limit.saturating_sub(BESIDES).clamp(1, EACH);
    let wanted = if bench.plan.quick { FEW } else { CONNECTIONS };
    for condition in bench.culprits() {
        let culprit = Culprit::start(bench.culprit, watch::command(condition)?, bench.scratch.path())?;
        // New ones each time: a connection from before culprit is none it follows.
        let (mut pairs, mut connections) = (Vec::new(), 0);
        while connections < wanted {
            bench.check()?;
            let mut pair = Pair::start(Kind::Crowd)?;
            pair.begin(&Order { seconds: 0.0, rate: (wanted - connections).min(each) as f64 })?;
            connections += pair.finish()?.count;
            pairs.push(pair);
        }
        let [rss_kib, peak_kib, maps_kib] = culprit.memory()?;
        let start_ms = culprit.start_ms();
        culprit.end()?;
        let late = Culprit::start(bench.culprit, watch::command(condition)?, bench.scratch.path())?;
        let late_start_ms = late.start_ms();
        late.end()?;
        eprintln!(
            "bench: {condition}: {connections} connections open: {:.1} MiB resident ({:.1} at most), maps {:.1} MiB; \
             a start among them takes {late_start_ms:.0} ms, one before them {start_ms:.0} ms",
            rss_kib as f64 / 1024.0,
            peak_kib as f64 / 1024.0,
            maps_kib as f64 / 1024.0
        );
        crowds.push(Crowd { condition, connections, rss_kib, peak_kib, maps_kib, start_ms, late_start_ms });
    }
    Ok(())
}
