//! `cargo xtask hooks`: does every kernel have the hooks, arguments and fields that the probes
//! rely on?
//!
//! Reads what each kernel says of itself: its BTF and its list of trace events, taken from a VM
//! once and kept beside the kernel. Nothing is loaded or attached; what the verifier thinks is for
//! the live tests.

#[path = "../../agent/src/kernel/btf.rs"]
#[expect(unreachable_pub, dead_code, reason = "shared with the agent, where more of it is used")]
mod btf;

use std::{fmt::Write as _, io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context, Result, anyhow};
use btf::Btf;
use ebpf_probes::{
    probes::PROBES,
    spec::{Attach, FOLLOW_EXIT, FOLLOW_FORK, Field, Hook},
};
use fs_err as fs;

use crate::{
    setup::{self, Need},
    vm::{self, kernels},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernels: 5.10, 6.1, 6.12, new, host (default: all)
    kernels: Vec<String>,
}

/// A kernel as it describes itself.
struct Subject {
    name: String,
    version: String,
    btf: Btf,
    /// `category:name` of every trace event, unless tracefs is out of reach.
    events: Option<Vec<String>>,
}

/// What a kernel has to say about a hook.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It cannot be known here.
    Unknown(String),
    Missing(String),
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let with_host = args.kernels.is_empty() || args.kernels.iter().any(|id| id == "host");
    let ids: Vec<_> = args.kernels.iter().filter(|id| *id != "host").cloned().collect();
    let mut subjects = Vec::new();
    if args.kernels.is_empty() || !ids.is_empty() {
        setup::ensure(&[Need::Vm])?;
        for kernel in kernels::named(&ids)? {
            let facts = vm::facts(&kernel)?;
            subjects.push(Subject::new(&kernel.id, kernel.version, facts.btf, Some(&facts.events))?);
        }
    }
    if with_host {
        subjects.push(host()?);
    }

    let mut hooks: Vec<(&str, &Hook)> = Vec::new();
    let probes = PROBES.iter().flat_map(|probe| probe.hooks.iter().map(|hook| (probe.name, hook)));
    for (probe, hook) in probes.chain([("-p, --", &FOLLOW_FORK), ("-p, --", &FOLLOW_EXIT)]) {
        if !hooks.iter().any(|(_, known)| known.program == hook.program) {
            hooks.push((probe, hook));
        }
    }
    let (text, broken) = report(&hooks, &subjects);
    std::io::stdout().write_all(text.as_bytes()).context("writing the table")?;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The table, the reasons below it, and whether a hook that a probe requires is missing.
fn report(hooks: &[(&str, &Hook)], subjects: &[Subject]) -> (String, bool) {
    let (mut text, mut notes, mut broken) = (String::new(), String::new(), false);
    for subject in subjects {
        let _ = writeln!(text, "{:<5} {}", subject.name, subject.version);
    }
    let _ = write!(text, "\n{:<8} {:<26}", "probe", "program");
    for subject in subjects {
        let _ = write!(text, " {:<8}", subject.name);
    }
    for (probe, hook) in hooks {
        let _ = write!(text, "\n{probe:<8} {:<26}", hook.program);
        for subject in subjects {
            let (mark, why) = match subject.verdict(hook) {
                Verdict::Fine => ("ok", None),
                Verdict::Unknown(why) => ("?", Some(why)),
                Verdict::Missing(why) if hook.required => {
                    broken = true;
                    ("MISSING", Some(format!("{why} (required)")))
                }
                Verdict::Missing(why) => ("without", Some(format!("{why}; lost: {}", hook.gives))),
            };
            let _ = write!(text, " {mark:<8}");
            if let Some(why) = why {
                let _ = writeln!(notes, "{}: {}: {why}", subject.name, hook.program);
            }
        }
    }
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    (format!("{text}\n{notes}"), broken)
}

impl Subject {
    fn new(name: &str, version: String, btf: Vec<u8>, events: Option<&str>) -> Result<Self> {
        let btf = Btf::parse(btf).map_err(|error| anyhow!("kernel {name}: {error}"))?;
        let events = events.map(|list| list.lines().map(str::to_owned).collect());
        Ok(Self { name: name.to_owned(), version, btf, events })
    }

    fn verdict(&self, hook: &Hook) -> Verdict {
        match self.attachable(&hook.attach) {
            Verdict::Fine => {}
            other => return other,
        }
        let problem = hook.fields.iter().find_map(|field| self.field_problem(field));
        problem.map_or(Verdict::Fine, Verdict::Missing)
    }

    fn attachable(&self, attach: &Attach) -> Verdict {
        match attach {
            Attach::BtfTracepoint(name, wanted) | Attach::RawTracepoint(name, wanted) => {
                self.arguments(name, wanted)
            }
            Attach::Tracepoint(category, name) => match &self.events {
                None => Verdict::Unknown("tracefs is not mounted here".to_owned()),
                Some(events) if events.iter().any(|event| *event == format!("{category}:{name}")) => {
                    Verdict::Fine
                }
                Some(_) => Verdict::Missing(format!("there is no trace event {category}:{name}")),
            },
            // On every kernel since 4.18, and nothing in the BTF would say so.
            Attach::CgroupIngress
            | Attach::CgroupEgress
            | Attach::CgroupConnect4
            | Attach::CgroupConnect6
            | Attach::CgroupSendmsg4
            | Attach::CgroupSendmsg6
            | Attach::Iterator(_) => Verdict::Fine,
        }
    }

    fn arguments(&self, tracepoint: &str, wanted: &[&str]) -> Verdict {
        let Some(found) = self.btf.tracepoint(tracepoint) else {
            return Verdict::Missing(format!("there is no tracepoint {tracepoint}"));
        };
        for (i, wanted) in wanted.iter().enumerate() {
            let found = found.get(i).map_or("nothing", String::as_str);
            if unqualified(found) != unqualified(wanted) {
                return Verdict::Missing(format!(
                    "argument {i} of tracepoint {tracepoint} is {found}, not {wanted}"
                ));
            }
        }
        Verdict::Fine
    }

    fn field_problem(&self, field: &Field) -> Option<String> {
        match self.btf.field(field.path) {
            Ok(place) if field.size == 0 || place.size == field.size => None,
            Ok(place) => Some(format!("{} has {} bytes, not {}", field.path, place.size, field.size)),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// A program relies on what an argument is, not on whether it may write through it.
fn unqualified(c_type: &str) -> String {
    c_type.replace("const ", "")
}

/// The kernel this runs on.
fn host() -> Result<Subject> {
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    let types = fs::read(btf).with_context(|| {
        format!("reading {}: the host's kernel needs CONFIG_DEBUG_INFO_BTF", btf.display())
    })?;
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the host's version")?;
    let events = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|dir| fs::read_to_string(Path::new(dir).join("available_events")).ok());
    Subject::new("host", version.trim().to_owned(), types, events.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel without any type.
    fn empty(events: Option<&str>) -> Subject {
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        for word in [24_u32, 0, 0, 0, 1] {
            btf.extend(word.to_le_bytes());
        }
        btf.push(0);
        Subject::new("k", "0".into(), btf, events).unwrap()
    }

    fn hook(attach: Attach, required: bool) -> Hook {
        Hook { program: "program", attach, gives: "the point", required, fields: &[] }
    }

    #[test]
    fn a_trace_event_is_there_missing_or_unknown() {
        let hook = hook(Attach::Tracepoint("syscalls", "sys_enter_connect"), false);
        assert_eq!(empty(Some("syscalls:sys_enter_connect\n")).verdict(&hook), Verdict::Fine);
        assert!(matches!(empty(Some("sched:sched_switch\n")).verdict(&hook), Verdict::Missing(_)));
        assert!(matches!(empty(None).verdict(&hook), Verdict::Unknown(_)));
    }

    #[test]
    fn only_a_missing_hook_that_is_required_breaks_a_kernel() {
        let optional = hook(Attach::BtfTracepoint("nothing", &[]), false);
        let (text, broken) = report(&[("probe", &optional)], &[empty(None)]);
        assert!(
            !broken && text.contains("k: program: there is no tracepoint nothing; lost: the point"),
            "{text}"
        );
        let required = hook(Attach::BtfTracepoint("nothing", &[]), true);
        let (text, broken) = report(&[("probe", &required)], &[empty(None)]);
        assert!(broken && text.contains("MISSING"), "{text}");
    }
}
