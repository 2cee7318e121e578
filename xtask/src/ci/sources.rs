//! The source files of a crate, and the paths that each names: use trees, paths in expressions and inside macro
//! calls, from the crate's root on.
//!
//! Reads tokens, not lines: comments and strings do not count. Refuses to know what a re-export hides.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use fs_err as fs;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::files;

/// The files that only tie the modules together.
const ROOTS: &[&str] = &["main.rs", "lib.rs"];

/// A source file of a crate.
pub(super) struct Source {
    pub(super) file: PathBuf,
    /// From the crate's root: `kernel/ring.rs` is `kernel::ring`; a root is nothing.
    pub(super) module: Vec<String>,
    pub(super) named: Vec<Named>,
    /// The modules that it declares for tests only.
    pub(super) tests: Vec<Vec<String>>,
}

impl Source {
    /// Reads each below `src`, in order.
    pub(super) fn read_all(src: &Path) -> Result<Vec<Self>> {
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file)?;
            let inside = file.strip_prefix(src).unwrap_or(&file);
            Ok(Self { file: file.clone(), ..Self::parse(inside, &text)? })
        };
        files(src, usize::MAX, ".rs")?.into_iter().map(read).collect()
    }

    /// Reads a file by its place below `src`.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self> {
        let module = module(file);
        let tokens: TokenStream =
            text.parse().map_err(|error| anyhow!("{} is no Rust: {error}", file.display()))?;
        let mut named = Vec::new();
        Walk { found: &mut named, by_tests: false }.tokens(tokens, &module);
        let tests = only_in_tests(&module, text);
        Ok(Self { file: file.to_owned(), module, named, tests })
    }
}

/// A path that a file names.
#[derive(Debug)]
pub(super) struct Named {
    /// From 1.
    pub(super) line: usize,
    /// From the crate's root.
    pub(super) path: Vec<String>,
    /// It began with `crate` or `super`; any other is one only if its first name is a module of the file.
    pub(super) anchored: bool,
    /// Only tests name it.
    pub(super) by_tests: bool,
}

fn module(file: &Path) -> Vec<String> {
    if ROOTS.iter().any(|root| file == Path::new(root)) {
        return Vec::new();
    }
    let mut path: Vec<_> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    path.pop_if(|last| last == "mod");
    path
}

/// `#[cfg(test)]` above `mod name;`.
fn only_in_tests(module: &[String], text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names = pairs.filter_map(|pair| pair[1].split_once("mod ")?.1.strip_suffix(';'));
    names.map(|name| [module, &[name.to_owned()]].concat()).collect()
}

struct Walk<'a> {
    found: &'a mut Vec<Named>,
    by_tests: bool,
}

impl Walk<'_> {
    fn tokens(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    // `mod name { … }`: one step further from the root.
                    let mut inner = module.to_vec();
                    let mut by_tests = self.by_tests;
                    if let Some([TokenTree::Ident(word), TokenTree::Ident(name)]) =
                        at.checked_sub(2).map(|from| &tokens[from..at])
                        && word == "mod"
                    {
                        by_tests |= name == "tests";
                        inner.push(name.to_string());
                    }
                    Walk { found: self.found, by_tests }.tokens(group.stream(), &inner);
                    at += 1;
                }
                TokenTree::Ident(word) if word == "crate" || word == "super" => {
                    let line = word.span().start().line;
                    let mut base = if word == "crate" { Vec::new() } else { parent(module) };
                    at += 1;
                    while is_separator(&tokens[at..])
                        && matches!(tokens.get(at + 2), Some(TokenTree::Ident(next)) if next == "super")
                    {
                        base = parent(&base);
                        at += 3;
                    }
                    if is_separator(&tokens[at..]) {
                        at += 2;
                        at += self.tree(&tokens[at..], line, &base, true);
                    }
                }
                TokenTree::Ident(word) if is_separator(&tokens[at + 1..]) => {
                    let line = word.span().start().line;
                    at += self.tree(&tokens[at..], line, module, false);
                }
                _ => at += 1,
            }
        }
    }

    /// Reads one use tree or path that continues `base`; returns how many tokens it took. Of a path
    /// that ends in `{…}` every branch counts.
    fn tree(&mut self, tokens: &[TokenTree], line: usize, base: &[String], anchored: bool) -> usize {
        let mut path = base.to_vec();
        let mut at = 0;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(name)) => {
                    path.push(name.to_string());
                    at += 1;
                    if !is_separator(&tokens[at..]) {
                        break;
                    }
                    at += 2;
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    let is_comma =
                        |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
                    for branch in inner.split(is_comma) {
                        if let Some(first) = branch.first() {
                            self.tree(branch, first.span().start().line, &path, anchored);
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
        self.found.push(Named { line, path, anchored, by_tests: self.by_tests });
        at.max(1)
    }
}

fn parent(module: &[String]) -> Vec<String> {
    module[..module.len().saturating_sub(1)].to_vec()
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..] if a.as_char() == ':' && b.as_char() == ':')
}
