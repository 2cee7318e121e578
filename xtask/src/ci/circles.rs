//! Do the files of a crate import each other in a circle, and who imports whom?
//!
//! A file imports another if it names a path that leads into it; a name that the parent module hands on counts as the
//! parent's. Two things do not count: what tests name, and what a module's own ancestors declare. Rust makes an
//! ancestor's private items visible to its descendants and to none other: they are one house with a hall, and its
//! rooms may not have doors to each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context, Result};

use super::paths;

/// Files of one crate by module path, and what each imports of the others.
pub(super) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Reads the crate whose sources are below `src` and which calls itself `name` in its binaries.
    pub(super) fn read(src: &Path, name: &str) -> Result<Self> {
        let mut texts = BTreeMap::new();
        for file in paths::files(src)? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let module = paths::module(file.strip_prefix(src).unwrap_or(&file));
            texts.entry(module).or_insert_with(Vec::new).push(text);
        }
        Self::of(&texts, name)
    }

    fn of(texts: &BTreeMap<Vec<String>, Vec<String>>, name: &str) -> Result<Self> {
        let tests = only_in_tests(texts);
        let is_test = |module: &[String]| tests.iter().any(|test| module.starts_with(test));
        let mut edges = BTreeMap::new();
        for (module, text) in texts {
            if is_test(module) || module.is_empty() {
                continue;
            }
            let to: &mut BTreeSet<_> = edges.entry(module.join("::")).or_default();
            for text in text {
                for mut named in paths::named(module, text)? {
                    // A binary names its library.
                    if !named.anchored && named.path.get(module.len()).is_some_and(|first| first == name) {
                        named.path.drain(..=module.len());
                        named.anchored = true;
                    }
                    let leads_to = (1..=named.path.len()).rev().map(|len| &named.path[..len]);
                    let Some(other) = leads_to.into_iter().find(|path| texts.contains_key(*path)) else {
                        continue;
                    };
                    let is_inside = named.anchored || other.len() > module.len();
                    if !named.by_tests && is_inside && !module.starts_with(other) && !is_test(other) {
                        to.insert(other.join("::"));
                    }
                }
            }
        }
        Ok(Self(edges))
    }

    /// Each set of files that reach each other, with the imports among them.
    pub(super) fn circles(&self) -> Vec<String> {
        let reach: BTreeMap<&str, BTreeSet<&str>> =
            self.0.keys().map(|from| (from.as_str(), self.reachable(from))).collect();
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for &from in reach.keys() {
            let circle: BTreeSet<&str> =
                reach[from].iter().filter(|to| reach[**to].contains(from)).copied().collect();
            if circle.is_empty() || !seen.insert(circle.clone()) {
                continue;
            }
            let mut lines = String::new();
            for one in &circle {
                for to in self.0[*one].iter().filter(|to| circle.contains(to.as_str())) {
                    let _ = write!(lines, "\n  {one} -> {to}");
                }
            }
            circles.push(format!("{} files in a circle:{lines}", circle.len()));
        }
        circles
    }

    /// What can be reached from a file; itself only by a circle.
    fn reachable(&self, from: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            for to in self.0.get(at).into_iter().flatten() {
                if seen.insert(to.as_str()) {
                    next.push(to);
                }
            }
        }
        seen
    }

    /// A line for each top-level module: what it imports of the others. Those that import nothing come first.
    pub(super) fn print(&self) -> String {
        let top = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
        let mut tops: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in &self.0 {
            let others = to.iter().map(|to| top(to)).filter(|to| *to != top(from));
            tops.entry(top(from)).or_default().extend(others);
        }
        let mut text = String::new();
        let mut below = BTreeSet::new();
        let mut floor = 0;
        while below.len() < tops.len() {
            floor += 1;
            let here: Vec<_> = tops
                .iter()
                .filter(|(module, to)| !below.contains(*module) && to.is_subset(&below))
                .map(|(module, _)| module.clone())
                .collect();
            for module in &here {
                let to: Vec<_> = tops[module].iter().map(String::as_str).collect();
                let _ = writeln!(text, "{floor:>3}  {module} -> {}", to.join(", "));
            }
            if here.is_empty() {
                break;
            }
            below.extend(here);
        }
        text
    }
}

/// Modules that are declared for tests only.
fn only_in_tests(texts: &BTreeMap<Vec<String>, Vec<String>>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (module, texts) in texts {
        for text in texts {
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                let Some(next) = lines.peek() else { break };
                if line.trim() != "#[cfg(test)]" {
                    continue;
                }
                let declared = next.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
                if let Some(name) = declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                    let mut inner = module.clone();
                    inner.push(name.to_owned());
                    found.push(inner);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let mut texts = BTreeMap::new();
        for (file, text) in files {
            texts.insert(paths::module(Path::new(file)), vec![(*text).to_owned()]);
        }
        Graph::of(&texts, "it").unwrap()
    }

    #[test]
    fn files_that_import_each_other_by_way_of_a_third_are_a_circle() {
        let graph = graph(&[
            ("a/mod.rs", "mod b; mod c;"),
            ("a/b.rs", "use super::c::C;"),
            ("a/c.rs", "fn f() { crate::d::g() }"),
            ("d.rs", "use crate::a::b; pub fn g() {}"),
        ]);
        let circles = graph.circles();
        assert_eq!(circles, ["3 files in a circle:\n  a::b -> a::c\n  a::c -> d\n  d -> a::b"]);
    }

    #[test]
    fn a_child_may_name_what_its_own_parent_declares_and_nothing_that_leads_back_to_it() {
        let parent = ("a.rs", "mod b; mod c; fn f() { b::g() }");
        assert!(graph(&[parent, ("a/b.rs", "use super::f; pub fn g() {}")]).circles().is_empty());
        let siblings = graph(&[parent, ("a/b.rs", "use super::c::h;"), ("a/c.rs", "use super::{b::g, f};")]);
        assert_eq!(siblings.circles(), ["2 files in a circle:\n  a::b -> a::c\n  a::c -> a::b"]);
    }

    #[test]
    fn what_tests_name_is_no_import() {
        let inside = "pub fn g() {} mod tests { use super::*; use crate::a::f; }";
        assert!(graph(&[("a.rs", "use crate::b::g;"), ("b.rs", inside)]).circles().is_empty());
        let apart = [
            ("a.rs", "use crate::b::g;"),
            ("b/mod.rs", "#[cfg(test)]\nmod scene;"),
            ("b/scene.rs", "use crate::a::f;"),
        ];
        assert!(graph(&apart).circles().is_empty());
    }

    #[test]
    fn the_print_names_each_module_above_those_it_imports() {
        let graph = graph(&[("a.rs", "use crate::{b, c};"), ("b.rs", "use crate::c;"), ("c.rs", "")]);
        assert_eq!(graph.print(), "  1  c -> \n  2  b -> c\n  3  a -> b, c\n");
    }
}
