//! The daemon: a session that stays, with everything beside it that keeps, shows and reports incidents. What
//! can be wrong is found before anything is attached; what goes wrong later costs one sink, not the others.

mod hooks;
mod reload;
mod stdout;
mod supervisor;

use std::{
    io,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hooks::Hooks;
pub use reload::Reload;
use stdout::Stdout;
use supervisor::Supervisor;

use ebpf_probes::{
    metrics::Ended,
    probes::tls::{CLIENT, SERVER, stage},
};

use super::Session;
use crate::{
    config::{Daemon, LISTEN, MetricsBy, Place, STORE, Webhooks},
    fact::{Start, Summary},
    kernel::{load::Kernel, memory},
    log,
    metrics::{Metrics, pick, service, snapshot::Snapshot},
    observe::pods,
    outputs::{
        Hangup, Output, Rendered, STORE as STORE_SINK, SoFar, WEBHOOK, http,
        printer::Printer,
        queue::{Counts, Queue},
        store::{self, Store, Writer, deliveries::Subscriptions, write::Options},
        stream::Hub,
        webhook,
    },
    pipeline::incident::Incident,
};

/// How often memory that is free is given back.
const GIVE_BACK: Duration = Duration::from_secs(30);
/// How long each sink has to deal with what it holds when the daemon ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// `culprit run`.
///
/// # Errors
/// When it cannot begin, or watching failed; what was collected by then is kept.
pub async fn run(config: Daemon, level: log::Level, reload: Reload) -> anyhow::Result<ExitCode> {
    can_name(config.metrics_by, pods::kubelet)?;
    let printer = Printer::open(&config.output)?;
    let store = open_store(&config)?;
    let access = Arc::new(http::Access::new(config.web_config_file.as_deref())?);
    let listener = listen(&config)?;
    let mut session = Session::build(&config.session)?;
    let service = Service::start(&session, config.clone(), level, reload, printer, store, access, listener)?;
    session.feed(service.metrics.clone(), config.probe_stats)?;
    session.emit_to(Box::new(service));
    session.run(&config.session, Some("watching")).await
}

/// Whether what `--metrics-by` asks for has names on this machine: every series would be `none`.
fn can_name(by: Option<MetricsBy>, kubelet: impl FnOnce() -> bool) -> anyhow::Result<()> {
    let Some(by) = by.filter(|by| by.needs_kubelet()) else { return Ok(()) };
    ensure!(
        kubelet(),
        "--metrics-by {}: this machine has no kubelet that names pods ({}): use unit, workload or node",
        by.name(),
        pods::LINKS
    );
    Ok(())
}

/// The store asked for; the usual one, if that can be had; or one in memory.
fn open_store(config: &Daemon) -> anyhow::Result<Store> {
    let path = match &config.store {
        Some(Place::Nowhere) => return Ok(Store::in_memory()?),
        Some(Place::At(path)) => path.as_path(),
        None => Path::new(STORE),
    };
    match Store::open(path) {
        Ok((store, aside)) => {
            if let Some(aside) = aside {
                tracing::error!(
                    store = %path.display(),
                    "the store was damaged: it is now {}, and a new one was begun", aside.display()
                );
            }
            Ok(store)
        }
        Err(error) if config.store.is_none() => {
            tracing::warn!("{error}; incidents are kept in memory only");
            Ok(Store::in_memory()?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The address asked for; the usual one, if it is free; or none.
fn listen(config: &Daemon) -> anyhow::Result<Option<std::net::TcpListener>> {
    let address = match config.listen {
        Some(Place::Nowhere) => return Ok(None),
        Some(Place::At(address)) => address,
        None => LISTEN,
    };
    match http::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.listen.is_none() && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!("{address} is taken: HTTP is not served (--listen names another address)");
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("--listen {address}")),
    }
}

/// What runs beside the session.
pub(super) struct Service {
    config: Daemon,
    level: log::Level,
    reload: Reload,
    store: Queue,
    stdout: Queue,
    printed: Stdout,
    hooks: Hooks,
    options: Arc<Mutex<Options>>,
    access: Arc<http::Access>,
    app: Arc<http::App>,
    server: Option<http::Server>,
    supervisor: Supervisor,
    rated: Instant,
    gave_back: Instant,
    /// What is counted.
    metrics: Arc<Metrics>,
}

impl Service {
    #[expect(clippy::too_many_arguments, reason = "each was made before, so that it could fail before")]
    fn start(
        session: &Session,
        config: Daemon,
        level: log::Level,
        reload: Reload,
        printer: Printer,
        store: Store,
        access: Arc<http::Access>,
        listener: Option<std::net::TcpListener>,
    ) -> anyhow::Result<Self> {
        let printed = Stdout::new(printer);
        let stdout = printed.queue()?;
        let hub = Arc::new(Hub::default());
        let bell = Arc::new(webhook::Bell::default());
        let webhooks = Counts::new(WEBHOOK);
        let options = Arc::new(Mutex::new(options(&config)));
        let written: store::Written = {
            let (hub, stdout, bell) = (hub.clone(), stdout.clone(), bell.clone());
            Box::new(move |rendered: &Arc<Rendered>| {
                hub.notify(rendered);
                stdout.offer(rendered.clone());
                bell.ring();
            })
        };
        let writer = Writer::new(store.clone(), options.clone(), webhooks.clone(), written)?;
        let kept = Counts::new(STORE_SINK);
        let queue = Queue::start(kept.clone(), Box::new(writer)).context("starting the store's thread")?;
        let mut hooks = Hooks::new(store.clone(), bell, webhooks.clone());
        hooks.configure(&config.webhooks)?;
        let traffic: Arc<http::Traffic> = Arc::default();
        let mut metrics = Metrics::default();
        metrics.register(service::Service {
            sinks: vec![kept, printed.counts.clone(), hub.counts.clone(), webhooks],
            store: store.clone(),
            traffic: traffic.clone(),
            looked: Mutex::default(),
        });
        if let Some(by) = config.metrics_by {
            metrics.count_by(by, config.metrics_top);
        }
        let metrics = Arc::new(metrics);
        let start = session.start();
        let status = http::Status::new(
            &start.node,
            &start.version,
            &start.kernel,
            probes(&session.sources.kernel, start),
        );
        let app = Arc::new(http::App {
            store,
            hub: hub.clone(),
            status: Arc::new(status),
            rates: Arc::default(),
            traffic,
            metrics: exposition(metrics.clone()),
        });
        let server = listener
            .map(|listener| http::Server::start(listener, app.clone(), access.clone()))
            .transpose()
            .context("starting the HTTP server")?;
        if let Some(server) = &server {
            tracing::info!("HTTP is served at {}", server.address);
        }
        Ok(Self {
            config,
            level,
            reload,
            store: queue,
            stdout,
            printed,
            hooks,
            options,
            access,
            app,
            server,
            supervisor: Supervisor::new(),
            rated: Instant::now(),
            gave_back: Instant::now(),
            metrics,
        })
    }
}

impl Output for Service {
    /// The first line, and word to the service manager.
    fn start(&mut self, start: &Start) -> anyhow::Result<()> {
        self.printed.start(start)?;
        self.supervisor.ready();
        Ok(())
    }

    /// Never waits.
    fn incidents(&mut self, incidents: &[Incident]) -> anyhow::Result<()> {
        for incident in incidents {
            self.metrics.incident(incident);
            self.store.offer(Rendered::new(incident.clone()));
        }
        Ok(())
    }

    /// What requests and the supervisor are shown of the pipeline.
    fn every_second(&mut self, _so_far: &SoFar) -> anyhow::Result<()> {
        let snapshot = self.metrics.snapshot();
        let counts = ebpf_probes::probes::PROBES.iter().map(|probe| {
            let lost =
                snapshot.losses.iter().filter(|loss| loss.probe == probe.id).map(|loss| loss.count).sum();
            (probe.name, (snapshot.received.get(&probe.id).copied().unwrap_or(0), lost))
        });
        self.app.status.moved(counts.collect());
        self.supervisor.alive(&self.app.status);
        if self.gave_back.elapsed() >= GIVE_BACK {
            self.gave_back = Instant::now();
            memory::give_back();
        }
        if self.rated.elapsed() >= http::STEP {
            self.rated = Instant::now();
            self.app.rates.push(totals(&snapshot));
        }
        Ok(())
    }

    fn hangup(&mut self) -> Hangup {
        self.reload()
    }

    fn done(&self) -> bool {
        self.printed.gone()
    }

    /// Everything that waits is dealt with, in the order of the sinks; then the last line.
    fn finish(&mut self, summary: &Summary) -> anyhow::Result<()> {
        self.supervisor.stopping();
        let kept = self.store.close(PATIENCE);
        let shown = self.stdout.close(PATIENCE);
        self.hooks.stop();
        drop(self.server.take());
        if !kept {
            tracing::error!("the store did not take the last incidents in time");
        }
        if !shown {
            tracing::error!("the reader of the output did not take the last incidents in time");
            return Ok(());
        }
        self.printed.finish(summary)
    }
}

/// How requests get the metrics.
fn exposition(metrics: Arc<Metrics>) -> http::Metrics {
    Box::new(move |accept| {
        let format = pick(accept);
        let text = metrics.encode(format).unwrap_or_else(|error| {
            tracing::error!("the metrics cannot be written: {error}");
            String::new()
        });
        (format.content_type(), text)
    })
}

fn options(config: &Daemon) -> Options {
    let Webhooks { urls, severity, .. } = &config.webhooks;
    Options {
        retention: config.retention,
        subscriptions: Subscriptions { urls: urls.clone(), severity: *severity },
    }
}

fn probes(kernel: &Kernel, start: &Start) -> Vec<http::ProbeStatus> {
    let mut probes = Vec::new();
    for probe in ebpf_probes::probes::PROBES {
        let hooks: Vec<http::HookStatus> = (kernel.hooks.iter())
            .filter(|planned| planned.probes.contains(&probe.id))
            .map(|planned| http::HookStatus {
                program: planned.hook.program,
                gives: planned.hook.gives,
                attached: planned.outcome.why().is_none(),
                why: planned.outcome.why(),
            })
            .collect();
        if hooks.is_empty() {
            continue;
        }
        let degraded = start.probes.degraded.iter().filter(|degraded| degraded.probe == probe.name);
        probes.push(http::ProbeStatus {
            name: probe.name,
            about: probe.about,
            attached: start.probes.attached.iter().any(|name| name == probe.name),
            degraded: degraded.map(|degraded| degraded.why.clone()).collect(),
            received: 0,
            lost: 0,
            hooks,
        });
    }
    probes
}

/// The counters behind [`http::SERIES`].
fn totals(snapshot: &Snapshot) -> [u64; http::SERIES.len()] {
    let counters = &snapshot.counters;
    let connects: u64 = Ended::ALL.iter().map(|ended| counters.connects(*ended)).sum();
    let handshakes = [CLIENT, SERVER]
        .iter()
        .flat_map(|role| (stage::DONE..=stage::NOT_TLS).map(move |end| counters.handshakes(*role, end)));
    [
        connects,
        connects - counters.connects(Ended::Established),
        handshakes.sum(),
        counters.dns_responses().map(|(_, count)| count).sum(),
        snapshot.received.values().sum(),
        snapshot.losses.iter().map(|loss| loss.count).sum(),
    ]
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MetricsBy;

    #[test]
    fn names_that_only_a_kubelet_gives_are_refused_where_there_is_none() {
        for by in [MetricsBy::Namespace, MetricsBy::Pod] {
            let error = can_name(Some(by), || false).expect_err("no kubelet").to_string();
            let wanted = format!("--metrics-by {}: this machine has no kubelet", by.name());
            assert!(error.starts_with(&wanted) && error.contains("use unit, workload or node"), "{error}");
            assert!(can_name(Some(by), || true).is_ok());
        }
        for by in [None, Some(MetricsBy::Unit), Some(MetricsBy::Workload), Some(MetricsBy::Node)] {
            assert!(can_name(by, || panic!("{by:?} needs no kubelet")).is_ok());
        }
    }
}
