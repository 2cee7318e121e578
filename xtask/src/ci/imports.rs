//! Imports in the agent go one way (HOUSE.md): does any module reach for one it must not know?
//!
//! Reads tokens, not lines: use trees, paths in expressions and paths inside macro calls all count,
//! comments and strings do not. `super::` is followed as far as it leads to the crate's root.
//! Refuses to know what a re-export at the crate's root hides.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A top-level module of the agent and what it may use of the crate: modules, or single paths in
/// them. Everybody may use itself and other crates. `run` and `cli` are in nobody's list.
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
    ("snapshot", &["time", "enrich::context", "enrich::observe", "fact", "kernel::tcpinfo", "text"]),
    ("clockwatch", &["event::encode", "time::clock_ns"]),
    (
        "clocks",
        &["clockwatch::Look", "config", "fact", "reference", "sinks::json", "terminal", "text", "units"],
    ),
    ("namespaces", &["kernel::generation"]),
    // Who holds an address is answered in the words of the context, as what `network` looks at is.
    ("neighdump", &["enrich::context", "event", "namespaces"]),
    (
        "neighbours",
        &["config", "enrich::neigh", "neighdump", "network::family", "sinks::json", "terminal", "text"],
    ),
    ("network", &["enrich::context", "neighdump"]),
    ("record", &[]),
    ("reference", &["clockwatch::Look", "fact", "time"]),
    // What it looks at itself (`enrich::observe`) needs to know which namespace it sees.
    ("enrich", &["event", "fact", "namespaces", "text"]),
    ("correlate", &["event", "enrich", "fact", "text"]),
    ("rules", &["event", "enrich", "correlate", "fact", "pipeline", "text"]),
    ("sinks", &["config", "fact", "correlate::incident", "terminal", "text", "units"]),
    ("top", &["config", "correlate::incident", "enrich::World", "fact", "log", "sinks::text", "text"]),
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
    ("output", &["config", "correlate::incident", "fact", "sinks", "terminal"]),
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
            "output",
            "pipeline",
            "record",
            "rules",
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
            "output",
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

/// The files that only tie the modules together.
const ROOTS: &[&str] = &["main.rs", "lib.rs"];

/// Checks every source file below `src`; each complaint is one line.
pub(super) fn check(src: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(src, &mut files)?;
    let relative = |file: &Path| file.strip_prefix(src).unwrap_or(file).to_owned();
    let mut tops: Vec<String> =
        files.iter().filter_map(|file| modules(&relative(file)).into_iter().next()).collect();
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
        let found = violations(&modules(&relative(file)), &text, &tops)
            .with_context(|| format!("reading {}", file.display()))?;
        complaints.extend(found.into_iter().map(|found| format!("{}:{found}", file.display())));
    }
    Ok(complaints)
}

fn rule(module: &str) -> Option<&'static [&'static str]> {
    RULES.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The module path of a source file: `kernel/ring.rs` is `kernel::ring`; a root is nothing.
fn modules(file: &Path) -> Vec<String> {
    if ROOTS.iter().any(|root| file == Path::new(root)) {
        return Vec::new();
    }
    let mut path: Vec<_> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// The forbidden uses in a file, as `line: complaint`. `tops` are the modules that exist: another
/// name after `crate::` is an item of the crate's root.
fn violations(module: &[String], text: &str, tops: &[String]) -> Result<Vec<String>> {
    let Some(top) = module.first() else { return Ok(Vec::new()) };
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("this is no Rust: {error}"))?;
    let mut uses = Vec::new();
    walk(tokens, module, &mut uses);
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
        .into_iter()
        .filter(|(_, path)| !path.is_empty() && !is_allowed(path))
        .map(|(line, path)| {
            let may = if allowed.is_empty() { "nothing of the crate".to_owned() } else { allowed.join(", ") };
            format!("{line}: `{top}` may not use `crate::{}`; it may use {may}", path.join("::"))
        })
        .collect())
}

/// Every path from the crate's root that the tokens name, with its line.
fn walk(tokens: TokenStream, module: &[String], uses: &mut Vec<(usize, Vec<String>)>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                // `mod name { … }`: one step further from the root.
                let mut inner = module.to_vec();
                if let Some([TokenTree::Ident(word), TokenTree::Ident(name)]) =
                    at.checked_sub(2).map(|from| &tokens[from..at])
                    && word == "mod"
                {
                    inner.push(name.to_string());
                }
                walk(group.stream(), &inner, uses);
                at += 1;
            }
            TokenTree::Ident(word) if word == "crate" || word == "super" => {
                let line = word.span().start().line;
                let mut base = if word == "crate" { Vec::new() } else { parent(module) };
                at += 1;
                while is_path_separator(&tokens[at..])
                    && matches!(tokens.get(at + 2), Some(TokenTree::Ident(next)) if next == "super")
                {
                    base = parent(&base);
                    at += 3;
                }
                let is_root = word == "crate" || base.is_empty();
                if is_root && is_path_separator(&tokens[at..]) {
                    at += 2;
                    at += tree(&tokens[at..], line, &base, uses);
                }
            }
            _ => at += 1,
        }
    }
}

fn parent(module: &[String]) -> Vec<String> {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// Reads one use tree or path that continues `base`; returns how many tokens it took. Of a path
/// that ends in `{…}` every branch counts.
fn tree(tokens: &[TokenTree], line: usize, base: &[String], uses: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = base.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => {
                path.push(name.to_string());
                at += 1;
                if !is_path_separator(&tokens[at..]) {
                    break;
                }
                at += 2;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for branch in inner.split(|token| matches!(token, TokenTree::Punct(p) if p.as_char() == ','))
                {
                    if let Some(first) = branch.first() {
                        tree(branch, first.span().start().line, &path, uses);
                    }
                }
                return at + 1;
            }
            // `path::*`, `path::<T>`, or the end.
            _ => break,
        }
    }
    // `use module::{self}` names the module.
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    uses.push((line, path));
    at
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..] if a.as_char() == ':' && b.as_char() == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(file: &str, text: &str) -> Vec<String> {
        let tops: Vec<_> = RULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        violations(&modules(Path::new(file)), text, &tops).unwrap()
    }

    #[test]
    fn nobody_imports_run_or_cli() {
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
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lib.rs"), "mod surprise;").unwrap();
        fs::write(dir.path().join("surprise.rs"), "").unwrap();
        let found = check(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`surprise` has no row in RULES"));
    }
}
