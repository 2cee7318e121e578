//! Do the pages, and the names of the tests in `tests/`, use the field's terms? Words of a private dialect are refused,
//! each with what to write in its place.
//!
//! Reads prose: transcripts (indented or fenced), code spans and what the benchmark wrote do not count.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::paths;

/// What is refused, and what to write by meaning. CONTRIBUTING.md has the glossary.
const WORDS: &[(&str, &str)] = &[
    ("told", "emitted, reported, notified"),
    ("tell", "emit, report, show"),
    ("tells", "emits, reports, shows"),
    ("learnt", "known from, applied"),
    ("somebody", "a process, a person"),
    ("nobody", "no process, no answer"),
    ("anybody", "anyone, any process"),
    ("whoever", "the process that, those who"),
    ("anew", "again"),
    ("grave", "severe; the severity"),
    ("in vain", "without an answer"),
    ("the way out of", "the remedy for"),
];

/// Written by `cargo xtask bench --write`.
const GENERATED: &[&str] = &["docs/bench.md"];

/// Each refused word in the pages of the repository at `root`, with its place.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut pages = Vec::new();
    for dir in [".", "docs", "docs/incidents", "tests"] {
        pages.extend(markdown(&root.join(dir))?);
    }
    let mut complaints = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        let name = page.strip_prefix(root).unwrap_or(&page).to_string_lossy().replace("./", "");
        if !GENERATED.contains(&name.as_str()) {
            complaints.extend(refused(&text).into_iter().map(|found| format!("{name}:{found}")));
        }
    }
    for file in paths::files(&root.join("tests"))? {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        complaints.extend(refused(&test_names(&text)).into_iter().map(|found| format!("{name}:{found}")));
    }
    Ok(complaints)
}

/// The names of a file's functions without arguments, which are sentences too, each in its line.
fn test_names(text: &str) -> String {
    let name = |line: &str| Some(line.strip_prefix("fn ")?.split_once("() {")?.0.to_owned());
    text.lines().map(|line| name(line).unwrap_or_default() + "\n").collect()
}

fn markdown(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut pages = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    Ok(pages)
}

/// `line: "word": write …`.
fn refused(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        let prose = format!(" {} ", words(line));
        let hits = WORDS.iter().filter(|(word, _)| prose.contains(&format!(" {word} ")));
        found.extend(hits.map(|(word, instead)| format!("{}: {word:?}: write {instead}", number + 1)));
    }
    found
}

/// The words of a line in lower case, one space between them; without its code spans.
fn words(line: &str) -> String {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let words = prose.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_word_is_named_with_its_line_and_what_to_write() {
        let found = refused("Fine.\nNobody answers; asked **in\nvain**, in vain.\n");
        assert_eq!(
            found,
            ["2: \"nobody\": write no process, no answer", "3: \"in vain\": write without an answer"]
        );
    }

    #[test]
    fn names_of_tests_are_read_as_sentences() {
        let text =
            "#[test]\nfn a_connect_nobody_answers_ends() {\n    let nobody = 1;\n}\nfn told(to: u8) {}\n";
        assert_eq!(refused(&test_names(text)), ["2: \"nobody\": write no process, no answer"]);
    }

    #[test]
    fn transcripts_code_and_longer_words_are_no_prose_of_ours() {
        assert!(refused("    told\n```\ntold\n```\n`told` storytelling, on its way out of it\n").is_empty());
    }
}
