//! How much memory does culprit take while very many connections are open?

use anyhow::Result;

use super::{
    Bench,
    load::{Kind, Order},
    load_pair::Pair,
    report::Crowd,
    watch::{self, Culprit},
};

/// Connections: each is two sockets on this machine.
const CONNECTIONS: f64 = 100_000.0;
/// In a smoke run.
const FEW: f64 = 2_000.0;

pub(crate) fn measure(bench: &Bench<'_>, crowds: &mut Vec<Crowd>) -> Result<()> {
    for condition in bench.culprits() {
        bench.check()?;
        let culprit = Culprit::start(bench.culprit, watch::command(condition)?, bench.scratch.path())?;
        // New ones each time: a connection from before culprit is none it follows.
        let mut pair = Pair::start(Kind::Crowd)?;
        let rate = if bench.plan.quick { FEW } else { CONNECTIONS };
        pair.begin(&Order { seconds: 0.0, rate })?;
        let connections = pair.finish()?.count;
        let [rss_kib, peak_kib, maps_kib] = culprit.memory()?;
        culprit.end()?;
        eprintln!(
            "bench: {condition}: {connections} connections open: {:.1} MiB resident ({:.1} at most), maps {:.1} MiB",
            rss_kib as f64 / 1024.0,
            peak_kib as f64 / 1024.0,
            maps_kib as f64 / 1024.0
        );
        crowds.push(Crowd { condition, connections, rss_kib, peak_kib, maps_kib });
    }
    Ok(())
}
