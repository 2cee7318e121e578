//! What does a new probe, rule, source, output or reference clock touch? Each toy of tests/touch/ is added to a copy of the
//! tree, the files that it touched are counted, and the compiler checks the copy.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

use super::files;
use crate::cmd;

/// A toy, and what it may touch at most.
struct Toy {
    /// Its folder below tests/touch/.
    name: &'static str,
    /// Folders (or single files) of its own.
    own: usize,
    /// Files of others that get a row, with the declaration of its module where they need one.
    rows: usize,
}

/// A probe has a folder in the kernel half and one in the agent. The kinds of incidents are a contract with those who read
/// them, in one table below the rules: a rule has a row there too. An output has options, a clock its weight.
const TOYS: &[Toy] = &[
    Toy { name: "probe", own: 2, rows: 2 },
    Toy { name: "rule", own: 1, rows: 2 },
    Toy { name: "source", own: 1, rows: 1 },
    Toy { name: "output", own: 1, rows: 2 },
    Toy { name: "clock", own: 1, rows: 2 },
];

/// What a toy touched.
#[derive(Debug, PartialEq, Eq)]
struct Touched {
    own: BTreeSet<PathBuf>,
    rows: BTreeSet<PathBuf>,
}

/// Adds, counts, and has the compiler check.
pub(super) fn check(root: &Path) -> Result<()> {
    let copy = tempfile::tempdir().context("making a place for the copy")?;
    copy_tree(root, copy.path())?;
    for toy in TOYS {
        let touched = add(&root.join("tests/touch").join(toy.name), copy.path())
            .with_context(|| format!("adding the toy {}", toy.name))?;
        eprintln!(
            "{:<7} {} of its own, {} with a row",
            toy.name,
            listed(&touched.own),
            listed(&touched.rows)
        );
        ensure!(
            touched.own.len() <= toy.own && touched.rows.len() <= toy.rows,
            "a new {} touches more than {} of its own and {} with a row (tests/touch/README.md)",
            toy.name,
            toy.own,
            toy.rows
        );
    }
    let target = cmd::target_dir()?;
    // The programs as the host's compiler sees them, then the agent with all that derives from the tables.
    for arguments in [&["ebpf-probes", "--features", "lint"][..], &["culprit", "--bins"]] {
        let mut command = cmd::cargo();
        command.current_dir(copy.path()).args(["check", "--quiet", "--offline", "--package"]).args(arguments);
        cmd::run(command.env("CARGO_TARGET_DIR", &target).env("CULPRIT_PROBES", "none"))?;
    }
    Ok(())
}

fn listed(paths: &BTreeSet<PathBuf>) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Copies what the compiler needs.
fn copy_tree(root: &Path, copy: &Path) -> Result<()> {
    let tracked = cmd::output(std::process::Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for file in tracked.lines().map(Path::new).filter(|file| root.join(file).is_file()) {
        let to = copy.join(file);
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        fs::copy(root.join(file), to)?;
    }
    Ok(())
}

/// Adds a toy: copies its files, and inserts its rows.
fn add(toy: &Path, tree: &Path) -> Result<Touched> {
    let new = toy.join("new");
    let mut touched = Touched { own: BTreeSet::new(), rows: BTreeSet::new() };
    for file in files(&new, usize::MAX, ".rs")? {
        let inside = file.strip_prefix(&new)?;
        let to = tree.join(inside);
        ensure!(!to.exists(), "{} is there already", inside.display());
        let folder = inside.parent().context("a file has a folder")?;
        // A folder of its own counts once, a file in a folder of others by itself.
        let is_own = !tree.join(folder).is_dir() || touched.own.contains(folder);
        touched.own.insert(if is_own { folder.to_owned() } else { inside.to_owned() });
        fs::create_dir_all(tree.join(folder))?;
        fs::copy(&file, to)?;
    }
    for row in fs::read_to_string(toy.join("rows"))?.lines() {
        let parts: Vec<String> = row.split('\t').map(|part| part.replace("\\n", "\n")).collect();
        let [file, before, inserted] = &parts[..] else { anyhow::bail!("{row:?} is no row of three") };
        let path = tree.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.matches(before.as_str()).count() == 1, "{file} has {before:?} not exactly once");
        fs::write(&path, text.replacen(before, &format!("{inserted}{before}"), 1))?;
        touched.rows.insert(file.into());
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_its_own_counts_once_and_each_file_of_others_once() {
        let (toy, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(toy.path().join("new/rules/toy")).unwrap();
        for file in ["new/rules/toy/mod.rs", "new/rules/toy/say.rs", "new/rules/one.rs"] {
            fs::write(toy.path().join(file), "").unwrap();
        }
        fs::create_dir_all(tree.path().join("rules")).unwrap();
        fs::write(tree.path().join("rules/mod.rs"), "mod a;\nT = [a];\n").unwrap();
        fs::write(toy.path().join("rows"), "rules/mod.rs\tT =\tmod toy;\\n\nrules/mod.rs\t];\t, toy\n")
            .unwrap();
        let touched = add(toy.path(), tree.path()).unwrap();
        let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        assert_eq!(touched.own, set(&["rules/toy", "rules/one.rs"]));
        assert_eq!(touched.rows, set(&["rules/mod.rs"]));
        assert_eq!(
            fs::read_to_string(tree.path().join("rules/mod.rs")).unwrap(),
            "mod a;\nmod toy;\nT = [a, toy];\n"
        );
        assert!(add(toy.path(), tree.path()).is_err(), "it is there already");
    }
}
