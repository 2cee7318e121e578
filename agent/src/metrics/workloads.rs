//! Incidents by the workload of the process that suffers: the first so many have a series of their own, the rest
//! are `other`. Which come first is arbitrary and stays: a series that changes its meaning would be worse.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{families as f, writer::Writer};
use crate::{
    config::MetricsBy,
    pipeline::incident::{Incident, Kind, State},
    text::printable,
};

/// Those beyond the bound.
const OTHER: &str = "other";
/// Of a process that has none, or of no process.
const NONE: &str = "none";
/// A longer one is cut.
const LONGEST: usize = 128;

/// The count.
#[derive(Debug)]
pub(super) struct Workloads {
    by: MetricsBy,
    most: usize,
    counts: Mutex<BTreeMap<(Kind, String), u64>>,
}

impl Workloads {
    /// Counts by this, so many of them.
    pub(super) fn new(by: MetricsBy, most: usize) -> Self {
        Self { by, most, counts: Mutex::default() }
    }

    /// An incident was emitted.
    pub(super) fn take(&self, incident: &Incident) {
        if incident.state != State::Open {
            return;
        }
        let name = name(self.by, incident).map_or(NONE.into(), label);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<&str> = counts.keys().map(|(_, name)| name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        known.retain(|known| ![OTHER, NONE].contains(known));
        let fits = name == NONE || known.contains(&name.as_str()) || known.len() < self.most;
        let name = if fits { name } else { OTHER.to_owned() };
        *counts.entry((incident.kind, name)).or_default() += 1;
    }
}

/// Whose incident it is.
fn name(by: MetricsBy, incident: &Incident) -> Option<&str> {
    let process = incident.process.as_ref();
    match by {
        MetricsBy::Unit => process?.unit.as_deref(),
        MetricsBy::Namespace => process?.namespace.as_deref(),
        MetricsBy::Pod => process?.pod.as_deref(),
        MetricsBy::Workload => match &process?.pod {
            Some(pod) => Some(workload(pod, &incident.node)),
            None => process?.unit.as_deref(),
        },
        MetricsBy::Node => Some(&incident.node),
    }
}

/// What Kubernetes makes random names of: no vowels, nothing that is taken for another character.
const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";
/// The same of a number: what its ten digits become.
const HASH: &str = "456789bcdf";

/// What a pod belongs to, by its name: without what controllers append to theirs. Deployments append a hash of the
/// template and five random characters, DaemonSets, ReplicaSets and Jobs five random characters, CronJobs the minute as
/// well, StatefulSets an ordinal, the kubelet the node's name to that of a static pod.
fn workload<'a>(pod: &'a str, node: &str) -> &'a str {
    let of = |text: &str, characters: &str| text.chars().all(|c| characters.contains(c));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let end = |name: &'a str| name.rsplit_once('-').filter(|(before, _)| !before.is_empty());
    let of_the_node =
        pod.strip_suffix(node).filter(|_| !node.is_empty()).and_then(|name| name.strip_suffix('-'));
    if let Some(name) = of_the_node.filter(|name| !name.is_empty()) {
        return name;
    }
    let Some((name, last)) = end(pod) else { return pod };
    if is_number(last) && last.len() <= 5 && (last == "0" || !last.starts_with('0')) {
        return name;
    }
    if last.len() != 5 || !of(last, RANDOM) {
        return pod;
    }
    match end(name) {
        Some((deployment, hash)) if (6..=10).contains(&hash.len()) && of(hash, HASH) => deployment,
        Some((job, minute)) if minute.len() >= 8 && is_number(minute) => job,
        _ => name,
    }
}

/// A name as the value of a label: bounded, with nothing hidden in it. Quotes are the encoder's business.
fn label(name: &str) -> String {
    printable(name).chars().take(LONGEST).collect()
}

impl Collector for Workloads {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.iter().map(|((kind, name), count)| ([kind.name(), name.as_str()], *count));
        Writer::new(encoder).numbers(&f::WORKLOADS, counts)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use proptest::prelude::*;

    use super::*;
    use crate::text::hidden;

    proptest! {
        #[test]
        fn a_label_is_one_value_on_one_line(name in "(?s).{0,200}") {
            let workloads = Workloads::new(MetricsBy::Unit, 1);
            workloads.counts.lock().expect("mine").insert((Kind::ConnectStalled, label(&name)), 1);
            let mut registry = Registry::default();
            registry.register_collector(Box::new(workloads));
            let mut text = String::new();
            encode(&mut text, &registry).expect("memory");
            let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            prop_assert!(samples.len() == 1 && samples[0].ends_with("\"} 1"), "{text:?}");
            prop_assert!(!samples[0].chars().any(hidden) && samples[0].len() < 2048);
        }

        #[test]
        fn a_workload_is_the_beginning_of_its_pod_s_name(pod in "[a-z0-9-]{0,40}", node in "[a-z0-9-]{0,9}") {
            let name = workload(&pod, &node);
            prop_assert!(pod.starts_with(name) && (pod.is_empty() || !name.is_empty()));
        }
    }

    #[test]
    fn a_workload_is_its_pod_s_name_without_what_controllers_append() {
        for (pod, wanted) in [
            ("cart-7d9f4c8b6d-x2k9p", "cart"),
            ("cart-api-5f6b8c7d9c-zz4q8", "cart-api"),
            // A DaemonSet, a ReplicaSet or a Job of its own.
            ("node-exporter-b7kx2", "node-exporter"),
            ("backup-28712345-qx5vz", "backup"),
            ("postgres-0", "postgres"),
            ("kafka-broker-12", "kafka-broker"),
            ("etcd-node-7", "etcd"),
            // Names of pods that nothing was appended to.
            ("nginx", "nginx"),
            ("web-frontend", "web-frontend"),
            ("cart-redis", "cart-redis"),
            ("web-007", "web-007"),
            ("-0", "-0"),
            ("", ""),
        ] {
            assert_eq!(workload(pod, "node-7"), wanted, "{pod}");
        }
    }
}
