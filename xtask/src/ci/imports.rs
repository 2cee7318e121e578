//! Imports in the agent go one way (HOUSE.md): does any module reach for one it must not know?
//!
//! Knows the direction between the agent's top-level modules; `circles` looks inside them.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::paths;

/// A top-level module of the agent and what it may use of the crate: modules, or single paths in
/// them. Each may use itself and other crates. `run` and `cli` are in no list.
const RULES: &[(&str, &[&str])] = &[
    // Its tests read back what it writes.
    ("kernel", &["records::encode", "domains"]),
    ("records", &[]),
    ("fact", &["text"]),
    ("text", &[]),
    ("severity", &[]),
    ("time", &[]),
    // How wide a terminal is and where a line may be broken: of what is written there it knows nothing.
    ("terminal", &[]),
    ("snapshot", &["time", "known::context", "known::request", "observe", "fact", "kernel::tcpinfo", "text"]),
    ("clockwatch", &["records::encode", "time::clock_ns"]),
    (
        "clocks",
        &["clockwatch::Sample", "config", "fact", "reference", "sinks::json", "terminal", "text", "units"],
    ),
    ("namespaces", &["kernel::generation"]),
    // Who holds an address is answered in the words of the context, as what `network` looks at is.
    ("neighdump", &["known::context", "known::request", "namespaces", "records"]),
    (
        "neighbours",
        &["config", "domains::neighbour", "neighdump", "network::family", "sinks::json", "terminal", "text"],
    ),
    ("network", &["known::context", "known::request", "neighdump", "records"]),
    ("record", &[]),
    ("reference", &["clockwatch::Sample", "fact", "time"]),
    // What every domain may know, and nothing of what any of them is about.
    ("known", &["fact", "records", "text"]),
    // One subject a folder, of which none uses another: see SUBJECTS.
    ("domains", &["fact", "known", "records", "text"]),
    // What follows from several domains together.
    ("world", &["domains", "fact", "known", "records", "text"]),
    // Reads the running system, which needs to know which namespace it sees.
    ("observe", &["domains", "known", "namespaces", "records", "text"]),
    ("correlate", &["domains", "fact", "known", "text", "world"]),
    ("rules", &["correlate", "domains", "fact", "known", "pipeline", "records", "text", "world"]),
    (
        "sinks",
        &[
            "config",
            "correlate::incident",
            "domains",
            "known::context",
            "world::World",
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
            "domains",
            "world::World",
            "fact",
            "log",
            "sinks::Output",
            "sinks::text",
            "text",
        ],
    ),
    ("units", &[]),
    ("log", &["config", "terminal"]),
    ("config", &["kernel::plan", "known::select", "observe::Wanted", "reference::Server"]),
    ("incidents", &["config", "fact", "sinks::json", "sinks::store", "terminal", "text"]),
    (
        "metrics",
        &[
            "config",
            "sinks",
            "correlate::incident",
            "known::bounded",
            "fact",
            "text",
            "kernel::counters",
            "kernel::load::Loss",
            "kernel::sweep::Seen",
            "kernel::usage",
        ],
    ),
    ("pipeline", &["correlate", "domains", "fact", "known", "world"]),
    // Its tests play scenes to every rule.
    (
        "replay",
        &[
            "config",
            "correlate::incident",
            "domains",
            "known",
            "observe::Wanted",
            "world",
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
            "domains",
            "records",
            "record",
            "known",
            "observe",
            "world",
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
            "known::select",
            "observe::Wanted",
            "records::comm_bytes",
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

/// Checks every source file below `src`; each complaint is one line.
pub(super) fn check(src: &Path) -> Result<Vec<String>> {
    let files = paths::files(src)?;
    let relative = |file: &Path| file.strip_prefix(src).unwrap_or(file).to_owned();
    let mut tops: Vec<String> =
        files.iter().filter_map(|file| paths::module(&relative(file)).into_iter().next()).collect();
    tops.sort_unstable();
    tops.dedup();
    let mut complaints = Vec::new();
    for top in &tops {
        if rule(top).is_none() {
            complaints.push(format!(
                "module `{top}` has no row in RULES of xtask/src/ci/imports.rs: say there what it may use"
            ));
        }
    }
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let found = violations(&paths::module(&relative(file)), &text, &tops)
            .with_context(|| format!("reading {}", file.display()))?;
        complaints.extend(found.into_iter().map(|found| format!("{}:{found}", file.display())));
    }
    Ok(complaints)
}

fn rule(module: &str) -> Option<&'static [&'static str]> {
    RULES.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

/// The forbidden uses in a file, as `line: complaint`. `tops` are the modules that exist: another
/// name after `crate::` is an item of the crate's root.
fn violations(module: &[String], text: &str, tops: &[String]) -> Result<Vec<String>> {
    let Some(top) = module.first() else { return Ok(Vec::new()) };
    let uses = paths::named(module, text)?.into_iter().filter(|named| named.anchored);
    let allowed = rule(top).unwrap_or_default();
    let is_allowed = |path: &[String]| {
        let starts = |prefix: &str| {
            let mut parts = path.iter();
            prefix.split("::").all(|part| parts.next().is_some_and(|have| have == part))
        };
        path[0] == *top
            || !tops.contains(&path[0])
            || EVERY_MODULE.iter().chain(allowed).any(|prefix| starts(prefix))
    };
    Ok(uses
        .filter(|named| !named.path.is_empty() && !is_allowed(&named.path))
        .map(|named| {
            let may = if allowed.is_empty() { "nothing of the crate".to_owned() } else { allowed.join(", ") };
            let path = named.path.join("::");
            format!("{}: `{top}` may not use `crate::{path}`; it may use {may}", named.line)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(file: &str, text: &str) -> Vec<String> {
        let tops: Vec<_> = RULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        violations(&paths::module(Path::new(file)), text, &tops).unwrap()
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
        assert_eq!(complaints("world/ask.rs", "use crate::{domains::Event, fact};"), [""; 0]);
        assert_eq!(complaints("sinks/json.rs", "use crate::correlate::incident::Incident;"), [""; 0]);
        assert_eq!(complaints("kernel/ring.rs", "use super::Loss; use ebpf_probes::abi;"), [""; 0]);
        assert_eq!(complaints("main.rs", "use crate::run; use crate::cli;"), [""; 0]);
        assert_eq!(complaints("records.rs", "pub(crate) fn f() -> crate::Result<()> {}"), [""; 0]);
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
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lib.rs"), "mod surprise;").unwrap();
        fs::write(dir.path().join("surprise.rs"), "").unwrap();
        let found = check(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`surprise` has no row in RULES"));
    }
}
