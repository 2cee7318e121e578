//! Imports in the agent go one way: does any module reach for one it must not know?
//!
//! Knows the direction between the agent's top-level modules; `circles` looks inside them.

use super::sources::Source;

/// A top-level module of the agent and what it may use of the crate: modules, or single paths in
/// them. Each may use itself and other crates. `run` and `cli` are in no list.
const RULES: &[(&str, &[&str])] = &[
    // Its tests read back what it writes.
    ("kernel", &["event::encode", "event::decode", "event::What"]),
    ("event", &[]),
    ("fact", &["text"]),
    ("text", &[]),
    ("severity", &[]),
    ("time", &[]),
    // How wide a terminal is and where a line may be broken: of what is written there it knows nothing.
    ("terminal", &[]),
    (
        "snapshot",
        &["time", "enrich::context", "enrich::request", "enrich::observe", "fact", "kernel::tcpinfo", "text"],
    ),
    ("clockwatch", &["event::encode", "time::clock_ns"]),
    (
        "clocks",
        &["clockwatch::Sample", "config", "fact", "reference", "sinks::json", "terminal", "text", "units"],
    ),
    ("namespaces", &["kernel::generation"]),
    // Who holds an address is answered in the words of the context, as what `network` looks at is.
    ("neighdump", &["enrich::context", "enrich::request", "event", "namespaces"]),
    (
        "neighbours",
        &["config", "enrich::neigh", "neighdump", "network::family", "sinks::json", "terminal", "text"],
    ),
    ("network", &["enrich::context", "enrich::request", "neighdump"]),
    ("record", &[]),
    ("reference", &["clockwatch::Sample", "fact", "time"]),
    // What it looks at itself (`enrich::observe`) needs to know which namespace it sees.
    ("enrich", &["event", "fact", "namespaces", "text"]),
    ("correlate", &["event", "enrich", "fact", "text"]),
    ("rules", &["event", "enrich", "correlate", "fact", "pipeline", "text"]),
    (
        "sinks",
        &[
            "config",
            "correlate::incident",
            "enrich::World",
            "enrich::context",
            "fact",
            "record",
            "terminal",
            "text",
            "time",
            "units",
        ],
    ),
    (
        "top",
        &[
            "config",
            "correlate::incident",
            "enrich::World",
            "fact",
            "log",
            "sinks::Output",
            "sinks::text",
            "text",
        ],
    ),
    ("units", &[]),
    ("log", &["config", "terminal"]),
    ("config", &["kernel::plan", "enrich::observe", "enrich::select", "reference::Server"]),
    ("incidents", &["config", "fact", "sinks::json", "sinks::store", "terminal", "text"]),
    (
        "metrics",
        &[
            "config",
            "sinks",
            "correlate::incident",
            "enrich::bounded",
            "fact",
            "text",
            "kernel::counters",
            "kernel::load::Loss",
            "kernel::sweep::Seen",
            "kernel::usage",
        ],
    ),
    ("pipeline", &["correlate", "enrich", "event", "fact"]),
    // Its tests play scenes to every rule.
    (
        "replay",
        &[
            "config",
            "correlate::incident",
            "enrich",
            "event",
            "fact",
            "pipeline",
            "record",
            "rules",
            "sinks::Output",
            "sinks::printer",
            "terminal",
        ],
    ),
    ("doctor", &["config", "kernel", "list", "sinks::json", "terminal", "text"]),
    ("list", &["config", "rules", "terminal"]),
    (
        "run",
        &[
            "time",
            "kernel",
            "event",
            "record",
            "enrich",
            "fact",
            "correlate",
            "rules",
            "sinks",
            "metrics",
            "config",
            "pipeline",
            "snapshot",
            "clockwatch",
            "namespaces",
            "neighdump",
            "network",
            "reference",
            "log",
            "terminal",
            "top",
            "units",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "correlate::incident",
            "incidents",
            "units",
            "sinks::store::read",
            "enrich::observe",
            "enrich::select",
            "event::comm_bytes",
            "kernel::plan",
            "reference::Server",
            "reference::server",
        ],
    ),
];

/// What every module may use: plain constants and words, which use nothing of the crate. Not the clocks of `time`: what
/// rules conclude depends on no clock but that of the events.
const EVERY_MODULE: &[&str] =
    &["severity", "time::SECOND_NS", "time::MINUTE_NS", "time::HOUR_NS", "time::DAY_NS"];

/// Checks every source file of the agent; each complaint is one line.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut tops: Vec<&str> =
        sources.iter().filter_map(|source| source.module.first()).map(String::as_str).collect();
    tops.sort_unstable();
    tops.dedup();
    let unknown = tops.iter().filter(|top| rule(top).is_none()).map(|top| {
        format!("module `{top}` has no row in RULES of xtask/src/ci/imports.rs: say there what it may use")
    });
    let found = sources.iter().flat_map(|source| {
        violations(source, &tops).into_iter().map(|found| format!("{}:{found}", source.file.display()))
    });
    unknown.chain(found).collect()
}

fn rule(module: &str) -> Option<&'static [&'static str]> {
    RULES.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

/// The forbidden uses in a file, as `line: complaint`. `tops` are the modules that exist: another
/// name after `crate::` is an item of the crate's root.
fn violations(source: &Source, tops: &[&str]) -> Vec<String> {
    let Some(top) = source.module.first() else { return Vec::new() };
    let allowed = rule(top).unwrap_or_default();
    let is_allowed = |path: &[String]| {
        let starts = |prefix: &str| {
            let mut parts = path.iter();
            prefix.split("::").all(|part| parts.next().is_some_and(|have| have == part))
        };
        path[0] == *top
            || !tops.contains(&path[0].as_str())
            || EVERY_MODULE.iter().chain(allowed).any(|prefix| starts(prefix))
    };
    let uses = source.named.iter().filter(|named| named.anchored && !named.path.is_empty());
    uses.filter(|named| !is_allowed(&named.path))
        .map(|named| {
            let may = if allowed.is_empty() { "nothing of the crate".to_owned() } else { allowed.join(", ") };
            let path = named.path.join("::");
            format!("{}: `{top}` may not use `crate::{path}`; it may use {may}", named.line)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn complaints(file: &str, text: &str) -> Vec<String> {
        let tops: Vec<_> = RULES.iter().map(|(name, _)| *name).collect();
        violations(&Source::parse(Path::new(file), text).unwrap(), &tops)
    }

    #[test]
    fn no_module_imports_run_or_cli() {
        for (module, allowed) in RULES {
            assert!(
                !allowed.iter().any(|path| path.starts_with("run") || path.starts_with("cli")),
                "{module}"
            );
        }
    }

    #[test]
    fn every_module_named_in_the_table_has_a_row() {
        for name in RULES.iter().flat_map(|(_, allowed)| *allowed) {
            assert!(rule(name.split("::").next().unwrap()).is_some(), "{name}");
        }
    }

    #[test]
    fn what_the_table_allows_passes() {
        assert_eq!(complaints("enrich/names.rs", "use crate::{event::Event, fact};"), [""; 0]);
        assert_eq!(complaints("sinks/json.rs", "use crate::correlate::incident::Incident;"), [""; 0]);
        assert_eq!(complaints("kernel/ring.rs", "use super::Loss; use ebpf_probes::abi;"), [""; 0]);
        assert_eq!(complaints("main.rs", "use crate::run; use crate::cli;"), [""; 0]);
        assert_eq!(complaints("event.rs", "pub(crate) fn f() -> crate::Result<()> {}"), [""; 0]);
    }

    #[test]
    fn an_import_against_the_flow_is_named_with_its_line() {
        let found = complaints("kernel/ring.rs", "\nuse crate::enrich::World;\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("2: `kernel` may not use `crate::enrich::World`"), "{}", found[0]);
    }

    #[test]
    fn every_branch_of_a_use_tree_counts() {
        let text = "use crate::{\n    fact::Fact,\n    correlate::{incident::{self, Incident}, Engine},\n};";
        let found = complaints("sinks/text.rs", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("3: ") && found[0].contains("correlate::Engine"), "{found:?}");
    }

    #[test]
    fn paths_in_expressions_macros_and_supers_count_but_comments_and_strings_do_not() {
        for text in [
            "fn f() { crate::run::start() }",
            "fn f() { println!(\"{}\", crate::run::X) }",
            "use super::super::run;",
            "mod tests { use super::super::super::run; }",
            "use crate::run::*;",
            "use crate::{self as root, run};",
        ] {
            assert_eq!(complaints("rules/tls.rs", text).len(), 1, "{text}");
        }
        for text in ["// crate::run", "/// [`crate::run`]\nstruct S;", "const S: &str = \"crate::run\";"] {
            assert_eq!(complaints("rules/tls.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_module_without_a_row_is_a_complaint() {
        let found = check(&[Source::parse(Path::new("surprise.rs"), "").unwrap()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`surprise` has no row in RULES"));
    }
}
