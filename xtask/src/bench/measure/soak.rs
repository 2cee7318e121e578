//! `xtask bench-soak`: the part of the soak that runs as root. The load lives in network namespaces of its
//! own, whose loopback has its DNS server; the daemon and its readers are outside. Prints one report in
//! JSON; what it has to say meanwhile goes to standard error.

mod daemon;
mod faults;
mod http;
mod network;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    interrupted,
    load::{Kind, Order},
    load_pair::Pair,
    machine,
};
use crate::{
    bench::{
        plan,
        soak::{
            Plan,
            report::{Load, Made, Other, Requests, SCHEMA, Sample, Soak},
        },
    },
    cmd,
};
use daemon::Daemon;
use network::Network;

/// The loads that have processes of their own, with how many operations a second.
const LOADS: [(Kind, &str, f64); 3] = [
    (Kind::Handshakes, "TLS handshakes", 20.0),
    (Kind::Connects, "connects", 100.0),
    (Kind::Dns, "lookups", 50.0),
];
/// /metrics is read so often.
const SCRAPE: Duration = Duration::from_secs(5);
/// The page's API is asked and the daemon looked at each so many times.
const SCRAPES: u32 = 2;
/// What is said of the daemon on standard error, each so many samples.
const SAID: usize = 3;
/// What the page asks for.
const PAGE: [&str; 3] = ["/", "/api/v1/incidents?limit=100", "/api/v1/rates"];
const PROBES: &str = "/api/v1/probes";
const STREAMS: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_parser = plan::<Plan>)]
    plan: Plan,
    /// The culprit to soak
    #[arg(long)]
    culprit: PathBuf,
    /// Where its store and its output are meanwhile
    #[arg(long)]
    scratch: PathBuf,
}

/// When things are due, until it is over.
#[derive(Clone)]
struct Time {
    began: Instant,
    length: Duration,
    over: Arc<AtomicBool>,
}

impl Time {
    fn now_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Waits until so long after the beginning; false when it is over before.
    fn wait(&self, at: Duration) -> bool {
        while !self.is_over() {
            let left = at.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        false
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    ensure!(cmd::is_root(), "a soak needs root: `cargo xtask bench soak` takes care of that");
    let soak = measure(args, interrupted()?)?;
    io::stdout().write_all(&serde_json::to_vec(&soak)?).context("handing the report over")?;
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args, over: Arc<AtomicBool>) -> Result<Soak> {
    let scratch = TempDir::new_in(&args.scratch)
        .with_context(|| format!("making a directory in {}", args.scratch.display()))?;
    let network = Network::build()?;
    let mut daemon = Daemon::start(&args.culprit, scratch.path())?;
    eprintln!("soak: {} min of `{}`", args.plan.minutes, daemon.line());
    let mut pairs = Vec::new();
    for (kind, name, _) in LOADS {
        let pair = Pair::start_in(Some(&network.near), kind);
        pairs.push((name, pair.with_context(|| format!("starting {name}"))?));
    }
    let length = Duration::from_secs(60) * args.plan.minutes;
    let time = Time { began: Instant::now(), length, over };
    for ((_, pair), (_, _, rate)) in pairs.iter_mut().zip(LOADS) {
        pair.begin(&Order { seconds: length.as_secs_f64(), rate })?;
    }
    let mut soak = Soak {
        schema: SCHEMA.to_owned(),
        machine: machine()?,
        minutes: args.plan.minutes,
        ..Soak::default()
    };
    let (near, address, readable) = (network.near.as_str(), daemon.address, daemon.readable());
    thread::scope(|scope| {
        let neighbours = scope.spawn(|| faults::neighbours(near, &time));
        let refused = scope.spawn(|| faults::refused(near, &time));
        let unanswered = scope.spawn(|| faults::unanswered(near, &time));
        let streams: Vec<_> =
            (0..STREAMS).map(|_| scope.spawn(|| http::follow(address, &time.over))).collect();
        let watched = watch(&mut soak, &mut daemon, &readable, &mut pairs, &time, || {
            neighbours.is_finished() || refused.is_finished() || unanswered.is_finished()
        });
        time.over.store(true, Ordering::Relaxed);
        let (neighbours, refused) = (joined(neighbours), joined(refused));
        let unanswered = joined(unanswered);
        soak.streams = streams.into_iter().map(|stream| stream.join().unwrap_or_default()).collect();
        // Theirs first: it is why watching was given up.
        soak.loads.push(load("neighbours that come and go", neighbours?, length));
        soak.loads.push(load("connects refused", refused?, length));
        soak.incidents = unanswered?;
        watched
    })?;
    for (name, pair) in &mut pairs {
        let done = pair.finish().with_context(|| format!("the load: {name}"))?;
        let (done, seconds, stalls) = (done.count, done.seconds, done.stalls);
        soak.loads.push(Load { name: (*name).to_owned(), done, seconds, stalls });
    }
    let kept = daemon.end()?;
    soak.others = compared(&mut soak.incidents, &kept, near);
    Ok(soak)
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of the load panicked")))
}

fn load(name: &str, done: u64, length: Duration) -> Load {
    Load { name: name.to_owned(), done, seconds: length.as_secs_f64(), stalls: 0 }
}

/// Scrapes, reads as the page does, and samples, in one thread: the daemon is looked at while no request
/// is under way.
fn watch(
    soak: &mut Soak,
    daemon: &mut Daemon,
    readable: &daemon::Readable,
    pairs: &mut [(&str, Pair)],
    time: &Time,
    gave_up: impl Fn() -> bool,
) -> Result<()> {
    let (mut metrics_bytes, mut probes) = (0, Value::Null);
    for n in 1.. {
        let at = SCRAPE * n;
        if at > time.length {
            return Ok(());
        }
        ensure!(time.wait(at), "interrupted");
        ensure!(!gave_up(), "a part of the load gave up");
        daemon.check()?;
        for (_, pair) in &mut *pairs {
            pair.server.check()?;
        }
        if let Some(text) = asked(&mut soak.requests, daemon, "/metrics") {
            metrics_bytes = text.len() as u64;
        }
        if n % SCRAPES != 0 {
            continue;
        }
        for path in PAGE {
            asked(&mut soak.requests, daemon, path);
        }
        if let Some(text) = asked(&mut soak.requests, daemon, PROBES) {
            probes = serde_json::from_slice(&text).with_context(|| format!("reading {PROBES}"))?;
        }
        let (received, lost) = (by_probe(&probes, "received"), by_probe(&probes, "lost"));
        let sample = Sample { at_s: time.now_s(), received, lost, metrics_bytes, ..readable.sample()? };
        if soak.samples.len().is_multiple_of(SAID) {
            eprintln!("soak: {}", said(&sample));
        }
        soak.samples.push(sample);
    }
    Ok(())
}

/// What was answered; a failure is counted, and reported the first time.
fn asked(requests: &mut Requests, daemon: &Daemon, path: &str) -> Option<Vec<u8>> {
    match http::get(daemon.address, path) {
        Ok(body) => {
            requests.answered += 1;
            Some(body)
        }
        Err(why) => {
            eprintln!("soak: {why:#}");
            requests.failed += 1;
            requests.why.get_or_insert_with(|| format!("{why:#}"));
            None
        }
    }
}

/// A number of each probe.
fn by_probe(probes: &Value, number: &str) -> BTreeMap<String, u64> {
    let probes = probes["probes"].as_array().map(Vec::as_slice).unwrap_or_default();
    probes
        .iter()
        .filter_map(|probe| Some((probe["name"].as_str()?.to_owned(), probe[number].as_u64()?)))
        .collect()
}

fn said(sample: &Sample) -> String {
    format!(
        "{:>4.0} s  {:.2} MiB resident, {:.2} anonymous, {} descriptors, {} threads, {:.2} s of processor, {} received, {} lost, \
         store {} KiB, /metrics {} bytes",
        sample.at_s,
        sample.rss_kib as f64 / 1024.0,
        sample.anon_kib as f64 / 1024.0,
        sample.descriptors,
        sample.threads,
        sample.cpu_s,
        sample.received.values().sum::<u64>(),
        sample.lost.values().sum::<u64>(),
        sample.store_bytes / 1024,
        sample.metrics_bytes,
    )
}

/// Finds those that were made among those that were kept, and returns what else was.
fn compared(made: &mut [Made], kept: &[Value], netns: &str) -> Vec<Other> {
    let mut others: Vec<Other> = Vec::new();
    for incident in kept {
        let ours = incident["process"]["netns"] == netns;
        let destination = &incident["details"]["destination"];
        let wanted = |made: &&mut Made| {
            let same = destination["ip"] == network::FAR && destination["port"] == made.port;
            ours && same && incident["kind"] == "connect_stalled"
        };
        if let Some(made) = made.iter_mut().find(wanted) {
            made.kept += 1;
            made.resolved += u64::from(incident["state"] == "resolved");
            continue;
        }
        let kind = incident["kind"].as_str().unwrap_or_default();
        match others.iter_mut().find(|other| other.kind == kind && other.ours == ours) {
            Some(other) => other.count += 1,
            None => others.push(Other { kind: kind.to_owned(), ours, count: 1 }),
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn incidents_are_found_by_their_port_in_the_namespace_of_the_load() {
        let incident = |netns: &str, port: u16, state: &str| {
            json!({
                "kind": "connect_stalled", "state": state, "process": { "netns": netns },
                "details": { "destination": { "ip": network::FAR, "port": port } }
            })
        };
        let kept = [
            incident("near", 20_000, "resolved"),
            incident("near", 20_001, "open"),
            incident("near", 20_001, "resolved"),
            incident("elsewhere", 20_000, "resolved"),
            json!({ "kind": "clock_skewed" }),
        ];
        let mut made = [20_000, 20_001, 20_002].map(|port| Made { port, ..Made::default() });
        let others = compared(&mut made, &kept, "near");
        assert_eq!(made.each_ref().map(|made| (made.kept, made.resolved)), [(1, 1), (2, 1), (0, 0)]);
        let other = |kind: &str| Other { kind: kind.into(), ours: false, count: 1 };
        assert_eq!(others, [other("connect_stalled"), other("clock_skewed")]);
    }

    #[test]
    fn numbers_are_read_by_probe() {
        let probes = json!({ "probes": [{ "name": "dns", "lost": 3 }, { "name": "tls", "lost": 0 }] });
        assert_eq!(by_probe(&probes, "lost"), BTreeMap::from([("dns".into(), 3), ("tls".into(), 0)]));
        assert_eq!(by_probe(&Value::Null, "lost"), BTreeMap::new());
    }
}
