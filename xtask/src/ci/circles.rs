//! Do the files of a crate import each other in a circle, and who imports whom?
//!
//! A file imports another if it names a path that leads into it; a name that the parent module hands on counts as the
//! parent's. Two things do not count: what tests name, and what a module's own ancestors declare. Rust makes an
//! ancestor's private items visible to its descendants and to none other: they are one house with a hall, and its
//! rooms may not have doors to each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::sources::Source;

/// Files of one crate by module path, and what each imports of the others.
pub(super) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Of the crate that calls itself `name` in its binaries.
    pub(super) fn of(sources: &[Source], name: &str) -> Self {
        let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
        let tests: Vec<_> = sources.iter().flat_map(|source| &source.tests).collect();
        let is_test = |module: &[String]| tests.iter().any(|test| module.starts_with(test));
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in sources.iter().filter(|source| !source.module.is_empty() && !is_test(&source.module)) {
            let module = source.module.as_slice();
            let to = edges.entry(module.join("::")).or_default();
            for named in source.named.iter().filter(|named| !named.by_tests) {
                let (mut path, mut anchored) = (named.path.as_slice(), named.anchored);
                // A binary names its library.
                if !anchored && path.get(module.len()).is_some_and(|first| first == name) {
                    (path, anchored) = (&path[module.len() + 1..], true);
                }
                let mut leads_to = (1..=path.len()).rev().map(|len| &path[..len]);
                let Some(other) = leads_to.find(|path| modules.contains(path)) else { continue };
                let is_inside = anchored || other.len() > module.len();
                if is_inside && !module.starts_with(other) && !is_test(other) {
                    to.insert(other.join("::"));
                }
            }
        }
        Self(edges)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let sources = files.iter().map(|(file, text)| Source::parse(Path::new(file), text).unwrap());
        Graph::of(&sources.collect::<Vec<_>>(), "it")
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
