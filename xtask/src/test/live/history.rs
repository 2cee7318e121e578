//! Which tests passed only when they ran alone, over the last runs: a test that needs that again and again is
//! broken, however green each run.
//!
//! Kept below the tools directory, one file for each kernel and kind of run.

use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::toolchain;

/// Runs that are remembered, this one included.
const RUNS: usize = 5;

/// Adds a run in which these tests passed only alone. Returns those that did so in another of the last five as well.
pub(crate) fn remember(machine: &str, alone: &[String]) -> Result<Vec<String>> {
    let directory = toolchain::tools_dir().join("passed-alone");
    fs::create_dir_all(&directory)?;
    remember_in(&directory.join(format!("{}.json", machine.replace(['/', ' '], "-"))), alone)
}

fn remember_in(path: &Path, alone: &[String]) -> Result<Vec<String>> {
    // No file, or one that was torn: no run is remembered.
    let mut runs: Vec<Vec<String>> =
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let repeated =
        alone.iter().filter(|test| runs.iter().rev().take(RUNS - 1).flatten().any(|old| old == *test));
    let repeated = repeated.cloned().collect();
    runs.push(alone.to_vec());
    let last = runs.len().saturating_sub(RUNS);
    let text = serde_json::to_vec(&runs[last..]).context("writing a list of names")?;
    fs::write(path, text)?;
    Ok(repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_needs_it_twice_in_five_runs_is_named_and_forgotten_after_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("here.json");
        let run = |alone: &[&str]| {
            remember_in(&path, &alone.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
        };
        assert!(run(&["a"]).is_empty());
        assert!(run(&["b"]).is_empty());
        assert_eq!(run(&["a"]), ["a"]);
        for _ in 0..4 {
            assert!(run(&[]).is_empty());
        }
        assert!(run(&["a", "b"]).is_empty());
    }
}
