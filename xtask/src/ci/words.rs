//! Do pages and sources use the field's terms? Words of a private dialect are refused, each with what to write in its
//! place.
//!
//! Of pages it reads prose: transcripts (indented or fenced), code spans and what the benchmark wrote do not count. Of
//! sources it reads everything: names, comments and messages.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::files;

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

/// Where the sources are.
const SOURCES: &[&str] = &["agent", "ebpf-probes", "xtask", "tests", "fuzz/fuzz_targets"];
/// What `cargo xtask bench` wrote, and this file, which has the words themselves.
const EXEMPT: &[&str] = &["docs/bench.md", "xtask/src/ci/words.rs"];

/// Each refused word in the pages and sources of the repository at `root`, with its place.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut look = |dir: &str, depth, ending, of: fn(&str) -> Vec<String>| -> Result<()> {
        for file in files(&root.join(dir), depth, ending)? {
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            if !EXEMPT.contains(&name.as_str()) {
                let text = fs::read_to_string(&file)?;
                complaints.extend(of(&text).into_iter().map(|found| format!("{name}:{found}")));
            }
        }
        Ok(())
    };
    for dir in ["", "docs", "docs/incidents", "tests"] {
        look(dir, 1, ".md", in_page)?;
    }
    for dir in SOURCES {
        look(dir, usize::MAX, ".rs", in_source)?;
    }
    Ok(complaints)
}

/// `line: "word": write …`.
fn in_page(text: &str) -> Vec<String> {
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

fn in_source(text: &str) -> Vec<String> {
    text.lines().enumerate().flat_map(|(number, line)| in_line(number + 1, line)).collect()
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
        let found = in_page("Fine.\nNobody answers; asked **in\nvain**, in vain.\n");
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
        assert!(in_page("    told\n```\ntold\n```\n`told` storytelling, on its way out of it\n").is_empty());
    }
}
