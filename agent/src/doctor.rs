//! `culprit doctor` and `culprit list`: what there is, what works here, and the remedy for what does not.

use std::{
    fs,
    io::{self, Write},
    process::ExitCode,
};

use ebpf_probes::{abi::ProbeId, probes::PROBES};
use serde::Serialize;

use crate::{
    claims,
    config::{Doctor, Format},
    kernel::{
        cgroup,
        load::{Kernel, running_btf},
        plan::Outcome,
        tracefs,
    },
    outputs::json,
    terminal,
    text::printable,
};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    /// `ok`, `note` (works with less) or `missing`.
    state: State,
    /// What was found, in one sentence; with the way out unless all is well.
    found: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Note,
    Missing,
}

fn check(name: &str, state: State, found: impl Into<String>) -> Check {
    Check { name: name.into(), state, found: found.into() }
}

/// Looks, tries each probe for real, and reports. Fails only when something asked for is unavailable.
pub fn doctor(options: &Doctor) -> anyhow::Result<ExitCode> {
    let mut checks = machine();
    let probes = probes(options, &mut checks);
    if options.spec.probes.is_empty() || options.spec.probes.contains(&ProbeId::NEIGH) {
        checks.push(own_addresses());
    }
    let bad = probes.iter().any(|check| check.state == State::Missing);
    let mut out = io::stdout().lock();
    if options.format == Format::Json {
        let said = serde_json::json!({ "schema": "culprit.doctor/v1", "machine": checks, "probes": probes, "ok": !bad });
        json::pretty(&said, &mut out)?;
        writeln!(out)?;
    } else {
        let width = terminal::width();
        for check in checks.iter().chain(&probes) {
            let mark = match check.state {
                State::Ok => "ok     ",
                State::Note => "note   ",
                State::Missing => "MISSING",
            };
            let lead = format!("{mark}  {:<12} ", check.name);
            writeln!(out, "{lead}{}", terminal::paragraph(&lead, &printable(&check.found), width))?;
        }
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn machine() -> Vec<Check> {
    let uname = rustix::system::uname();
    let mut checks = vec![check(
        "kernel",
        State::Ok,
        format!("{} on {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy()),
    )];
    checks.push(match running_btf() {
        Ok(_) => check("BTF", State::Ok, "the kernel describes its types in /sys/kernel/btf/vmlinux"),
        Err(error) => check("BTF", State::Missing, error.to_string()),
    });
    checks.push(capabilities());
    checks.push(match cgroup::root() {
        Ok(root) => check("cgroup v2", State::Ok, format!("the host's root is at {}", root.display())),
        Err(error) => check("cgroup v2", State::Missing, error.to_string()),
    });
    checks.push(jit());
    checks.push(memlock());
    checks.push(if tracefs::mounted() {
        check("tracefs", State::Ok, "mounted")
    } else {
        check(
            "tracefs",
            State::Ok,
            "not mounted; culprit mounts it for itself while attaching, visible to no other process",
        )
    });
    checks
}

fn capabilities() -> Check {
    const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    // CAP_SYS_ADMIN (21) stands in for the younger ones.
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0 && (*bit == 12 || effective & (1 << 21) == 0))
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        check("capabilities", State::Ok, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are held")
    } else {
        check(
            "capabilities",
            State::Missing,
            format!("{} not held: run as root (sudo culprit doctor)", lacking.join(", ")),
        )
    }
}

fn jit() -> Check {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => check(
            "JIT",
            State::Note,
            "off: programs are interpreted, several times slower (sysctl -w net.core.bpf_jit_enable=1)",
        ),
        Ok(_) => check("JIT", State::Ok, "on"),
        Err(_) => {
            check("JIT", State::Ok, "always on in this kernel, or not visible in this network namespace")
        }
    }
}

fn memlock() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    match limit.current {
        None => check("memory lock", State::Ok, "unlimited"),
        Some(bytes) => check(
            "memory lock",
            State::Ok,
            format!(
                "{} KiB; counts only before kernel 5.11, where culprit raises it for itself",
                bytes >> 10
            ),
        ),
    }
}

/// Whether claims of own addresses are heard, in which namespaces.
fn own_addresses() -> Check {
    let (watched, refused) = claims::attempt();
    let watched =
        format!("claims of this host's addresses by others are heard in {watched} network namespaces");
    match refused {
        None => check("addresses", State::Ok, watched),
        Some((inode, error)) => check(
            "addresses",
            State::Note,
            format!(
                "{watched}, and not in net:[{inode}] for one: {error}; it takes CAP_NET_RAW and CAP_SYS_ADMIN"
            ),
        ),
    }
}

fn probes(options: &Doctor, checks: &mut Vec<Check>) -> Vec<Check> {
    let asked = &options.spec.probes;
    let kernel = match Kernel::attach(&options.spec) {
        Ok(kernel) => kernel,
        Err(error) => {
            checks.push(check("probes", State::Missing, "none could be tried"));
            return PROBES
                .iter()
                .filter(|probe| asked.is_empty() || asked.contains(&probe.id))
                .map(|probe| check(probe.name, State::Missing, error.to_string()))
                .collect();
        }
    };
    let mut found = Vec::new();
    let mut reported = Vec::new();
    for probe in PROBES {
        let hooks: Vec<_> =
            kernel.hooks.iter().filter(|planned| planned.probes.contains(&probe.id)).collect();
        if hooks.is_empty() {
            continue;
        }
        let trouble: Vec<_> =
            hooks.iter().filter_map(|planned| Some((planned, planned.outcome.why()?))).collect();
        let broken = trouble.iter().any(|(planned, _)| planned.required_by(probe));
        let attached = hooks.iter().filter(|planned| planned.outcome == Outcome::Attached).count();
        let text = if broken {
            format!("cannot work here: {attached} of {} hooks attach", hooks.len())
        } else {
            format!("{attached} of {} hooks attach", hooks.len())
        };
        let state = match (broken, trouble.is_empty()) {
            (true, _) => State::Missing,
            (false, true) => State::Ok,
            (false, false) => State::Note,
        };
        found.push(check(probe.name, state, text));
        for (planned, why) in trouble {
            if reported.contains(&planned.hook.program) {
                continue;
            }
            reported.push(planned.hook.program);
            let state = if planned.required_by(probe) { State::Missing } else { State::Note };
            let text = format!(
                "{}: {why}; without it culprit does not see {}",
                planned.hook.attach, planned.hook.gives
            );
            found.push(check("", state, text));
        }
    }
    found
}
