//! Imports in the agent go one way: does any module reach for one it must not know?
//!
//! Knows the direction between the agent's top-level modules; `circles` looks inside them.

use super::sources::Source;

/// A top-level module of the agent and what it may use of the crate: modules, or single paths in
/// them. Each may use itself and other crates. `run` and `cli` are in no list.
const RULES: &[(&str, &[&str])] = &[
    // Words and numbers.
    ("text", &[]),
    ("severity", &[]),
    ("time", &[]),
    ("units", &[]),
    // How wide a terminal is and where a line may be broken: of what is written there it knows nothing.
    ("terminal", &[]),
    ("records", &[]),
    ("fact", &["text"]),
    // What every domain may know, and nothing of what any of them is about.
    ("known", &["fact", "records", "text"]),
    // One subject a folder, of which none uses another: see APART.
    ("domains", &["fact", "known", "records", "text"]),
    // Records and context in; facts, incidents and requests out.
    ("pipeline", &["domains", "fact", "known", "records", "text"]),
    ("rules", &["domains", "fact", "known", "pipeline", "records", "text"]),
    // What reads the running system. Its tests read back what it writes.
    ("kernel", &["domains", "records", "time::boot_ns"]),
    // It needs to know which namespace it sees.
    ("observe", &["domains", "known", "namespaces", "records", "text"]),
    ("snapshot", &["fact", "kernel::tcpinfo", "known", "namespaces", "observe", "text", "time"]),
    ("namespaces", &["kernel::generation"]),
    ("sockdiag", &["namespaces"]),
    // Who holds an address is answered in the words of the context, as what `network` looks at is.
    ("neighdump", &["known", "namespaces", "records"]),
    ("network", &["known", "neighdump", "records"]),
    // Who else claims an address: it dumps addresses as `neighdump` does.
    ("claims", &["known", "namespaces", "neighdump", "records", "time"]),
    ("clockwatch", &["records::encode", "time::clock_ns"]),
    ("reference", &["clockwatch::Sample", "fact", "time"]),
    ("record", &[]),
    // Where facts and incidents go.
    (
        "outputs",
        &[
            "config", "domains", "fact", "known", "log", "pipeline", "record", "terminal", "text", "time",
            "units",
        ],
    ),
    (
        "metrics",
        &[
            "claims::Counted",
            "config",
            "fact",
            "kernel::counters",
            "kernel::load::Loss",
            "kernel::sweep::Seen",
            "kernel::usage",
            "known::bounded",
            "outputs",
            "pipeline::incident",
            "text",
        ],
    ),
    ("log", &["config", "terminal"]),
    ("config", &["kernel::plan", "known::context", "known::select", "observe", "reference::Server"]),
    // What people type. Its tests play scenes to every rule.
    (
        "replay",
        &[
            "config",
            "domains",
            "fact",
            "known",
            "observe::Wanted",
            "outputs",
            "pipeline",
            "record",
            "records",
            "rules",
            "terminal",
        ],
    ),
    (
        "clocks",
        &["clockwatch::Sample", "config", "fact", "outputs::json", "reference", "terminal", "text", "units"],
    ),
    (
        "neighbours",
        &[
            "config",
            "domains::neighbour",
            "neighdump",
            "network::family",
            "outputs::json",
            "terminal",
            "text",
        ],
    ),
    ("incidents", &["config", "fact", "outputs::json", "outputs::store", "terminal", "text"]),
    ("doctor", &["claims", "config", "kernel", "list", "outputs::json", "terminal", "text"]),
    ("list", &["config", "rules", "terminal"]),
    (
        "run",
        &[
            "claims",
            "clockwatch",
            "config",
            "domains",
            "fact",
            "kernel",
            "known",
            "log",
            "metrics",
            "namespaces",
            "neighdump",
            "network",
            "observe",
            "outputs",
            "pipeline",
            "record",
            "records",
            "reference",
            "rules",
            "snapshot",
            "sockdiag",
            "terminal",
            "time",
            "units",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "incidents",
            "kernel::plan",
            "known::context::ClockThresholds",
            "known::select",
            "observe",
            "outputs::store::read",
            "pipeline::incident",
            "records::comm_bytes",
            "reference::Server",
            "reference::server",
            "units",
        ],
    ),
];

/// Modules whose folders each stand for themselves: none of them uses another.
const APART: &[&str] = &["domains"];

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
    let folders = folders(sources);
    let found = sources.iter().flat_map(|source| {
        violations(source, &tops, &folders)
            .into_iter()
            .map(|found| format!("{}:{found}", source.file.display()))
    });
    unknown.chain(found).collect()
}

fn rule(module: &str) -> Option<&'static [&'static str]> {
    RULES.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

/// Modules that are folders of one that stands apart.
fn folders(sources: &[Source]) -> Vec<&str> {
    let inside = sources.iter().filter(|source| source.module.len() > 2);
    let apart = inside.filter(|source| APART.contains(&source.module[0].as_str()));
    apart.map(|source| source.module[1].as_str()).collect()
}

/// Whether a path leads into another of the folders that stand apart.
fn is_apart(module: &[String], path: &[String], folders: &[&str]) -> bool {
    let ([top, own, ..], [_, into, ..]) = (module, path) else { return false };
    APART.contains(&top.as_str())
        && own != into
        && folders.contains(&own.as_str())
        && folders.contains(&into.as_str())
}

/// The forbidden uses in a file, as `line: complaint`. `tops` are the modules that exist: another
/// name after `crate::` is an item of the crate's root.
fn violations(source: &Source, tops: &[&str], folders: &[&str]) -> Vec<String> {
    let Some(top) = source.module.first() else { return Vec::new() };
    let allowed = rule(top).unwrap_or_default();
    let is_allowed = |path: &[String]| {
        let starts = |prefix: &str| {
            let mut parts = path.iter();
            prefix.split("::").all(|part| parts.next().is_some_and(|have| have == part))
        };
        (path[0] == *top && !is_apart(&source.module, path, folders))
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
        violations(&Source::parse(Path::new(file), text).unwrap(), &tops, &["connect", "dns"])
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
        assert_eq!(complaints("pipeline/world/ask.rs", "use crate::{domains::Event, fact};"), [""; 0]);
        assert_eq!(complaints("outputs/json.rs", "use crate::pipeline::incident::Incident;"), [""; 0]);
        assert_eq!(complaints("kernel/ring.rs", "use super::Loss; use ebpf_probes::abi;"), [""; 0]);
        assert_eq!(complaints("main.rs", "use crate::run; use crate::cli;"), [""; 0]);
        assert_eq!(complaints("records.rs", "pub(crate) fn f() -> crate::Result<()> {}"), [""; 0]);
    }

    #[test]
    fn an_import_against_the_flow_is_named_with_its_line() {
        let found = complaints("kernel/ring.rs", "\nuse crate::pipeline::world::World;\n");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("2: `kernel` may not use `crate::pipeline::world::World`"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn every_branch_of_a_use_tree_counts() {
        let text = "use crate::{\n    fact::Fact,\n    metrics::{incidents::{self, Incidents}, Engine},\n};";
        let found = complaints("outputs/text.rs", text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[2].starts_with("3: ") && found[2].contains("metrics::Engine"), "{found:?}");
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
    fn no_domain_uses_another() {
        let used = "use crate::domains::dns::LookupOp;";
        assert_eq!(complaints("domains/connect/apply.rs", used).len(), 1);
        assert_eq!(complaints("domains/dns/text.rs", used), [""; 0]);
        assert_eq!(complaints("domains/mod.rs", used), [""; 0]);
        assert_eq!(complaints("domains/connect/apply.rs", "use crate::domains::{Emitted, ms};"), [""; 0]);
    }

    #[test]
    fn a_module_without_a_row_is_a_complaint() {
        let found = check(&[Source::parse(Path::new("surprise.rs"), "").unwrap()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`surprise` has no row in RULES"));
    }
}
