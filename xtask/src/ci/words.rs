//! Do pages and sources use the field's terms? Words of a private dialect are refused, each with what to write in its
//! place.
//!
//! Of pages it reads prose: transcripts (indented or fenced), code spans and what the benchmark wrote do not count. Of
//! sources it reads everything: names, comments and messages.

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

/// Where the sources are.
const SOURCES: &[&str] = &["agent", "ebpf-probes", "xtask", "tests", "fuzz/fuzz_targets"];
/// It has the words themselves.
const THIS_FILE: &str = "xtask/src/ci/words.rs";

/// Each refused word in the pages and sources of the repository at `root`, with its place.
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
    for source in SOURCES {
        for file in paths::files(&root.join(source))? {
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            if name == THIS_FILE {
                continue;
            }
            let text = fs::read_to_string(&file).with_context(|| format!("reading {name}"))?;
            let found = text.lines().enumerate().flat_map(|(at, line)| in_line(at + 1, line));
            complaints.extend(found.map(|found| format!("{name}:{found}")));
        }
    }
    Ok(complaints)
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
        // Without its code spans.
        let prose = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        found.extend(in_line(number + 1, &prose));
    }
    found
}

/// The words of a line that are refused, whatever stands between them: of a name each word counts.
fn in_line(number: usize, line: &str) -> Vec<String> {
    let words = line.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    let line = format!(" {} ", words.collect::<Vec<_>>().join(" ").to_lowercase());
    let hits = WORDS.iter().filter(|(word, _)| line.contains(&format!(" {word} ")));
    hits.map(|(word, instead)| format!("{number}: {word:?}: write {instead}")).collect()
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
    fn of_a_source_names_count_as_comments_do() {
        assert_eq!(
            in_line(3, "let told_ns = now; // anew"),
            ["3: \"told\": write emitted, reported, notified", "3: \"anew\": write again"]
        );
    }

    #[test]
    fn transcripts_code_and_longer_words_are_no_prose_of_ours() {
        assert!(refused("    told\n```\ntold\n```\n`told` storytelling, on its way out of it\n").is_empty());
    }
}
