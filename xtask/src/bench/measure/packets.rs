//! What does a packet cost that is none of culprit's business? The mean run time of its two packet
//! programs above that of empty ones on the same packets, by the kernel's own statistics. The empty
//! ones are attached before and after: the one that runs first meets a colder cache.

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};

use super::{
    Bench,
    empty::Empty,
    load::Kind,
    load_pair::Pair,
    proc::{BpfUse, Runs},
    programs::{self, PACKET_IN, PACKET_OUT, names},
    progress,
    report::{Direction, Packets, Traffic},
    watch::{self, Culprit},
};

pub(crate) fn measure(bench: &Bench<'_>, all: &mut Vec<Packets>) -> Result<()> {
    let seconds = bench.plan.seconds() / 2.0;
    let mut pairs =
        [(Traffic::Udp, Pair::start(Kind::EchoUdp)?), (Traffic::Tcp, Pair::start(Kind::EchoTcp)?)];
    for round in 0..bench.plan.rounds() {
        for condition in bench.culprits() {
            bench.check()?;
            let before = Empty::attach(&bench.cgroup)?;
            let culprit = Culprit::start(bench.culprit, watch::command(condition)?, bench.scratch.path())?;
            let after = Empty::attach(&bench.cgroup)?;
            for (traffic, pair) in &mut pairs {
                let directions = measured(&before, &culprit, &after, pair, seconds)?;
                let packets = Packets { condition, traffic: *traffic, round, directions };
                eprintln!("{}", progress::packets(&packets, bench.plan.rounds()));
                all.push(packets);
            }
            culprit.end()?;
        }
    }
    Ok(())
}

/// What three pairs of programs did until now.
struct Readings {
    before: [Runs; 2],
    culprit: BpfUse,
    after: [Runs; 2],
}

impl Readings {
    fn now(before: &Empty, culprit: &Culprit, after: &Empty) -> Result<Self> {
        Ok(Self { before: before.runs()?, culprit: culprit.held()?, after: after.runs()? })
    }
}

fn measured(
    before: &Empty,
    culprit: &Culprit,
    after: &Empty,
    pair: &mut Pair,
    seconds: f64,
) -> Result<Vec<Direction>> {
    // Settles, uncounted: the handshake of the stream's connection is over too.
    pair.run(seconds / 10.0)?;
    let _kept = enable_stats(Stats::RunTime)?;
    let first = Readings::now(before, culprit, after)?;
    pair.run(seconds)?;
    let last = Readings::now(before, culprit, after)?;
    let programs = programs::between(&first.culprit, &last.culprit, &names());
    let empty = |last: Runs, first: Runs| programs::program("empty".to_owned(), last.since(first));
    [PACKET_IN, PACKET_OUT]
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let program = programs.iter().find(|program| program.name == *name);
            Ok(Direction {
                program: program.with_context(|| format!("culprit's program {name} did not run"))?.clone(),
                empty_before: empty(last.before[i], first.before[i]),
                empty_after: empty(last.after[i], first.after[i]),
            })
        })
        .collect()
}
