//! Documents that derive from the code are up to date. `CULPRIT_BLESS=1 cargo test -p culprit --test
//! docs` rewrites them.

use std::{fmt::Write as _, fs, path::PathBuf};

use culprit::{list::place, sinks::json};
use ebpf_probes::probes::PROBES;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file holds `wanted`, or is made to.
fn is_up_to_date(path: &str, wanted: &str) {
    let file = root().join(path);
    if std::env::var_os("CULPRIT_BLESS").is_some() {
        fs::write(&file, wanted).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let found = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(
        found == wanted,
        "{path} is not what the code says: CULPRIT_BLESS=1 cargo test -p culprit --test docs"
    );
}

#[test]
fn the_json_schema_is_the_one_checked_in() {
    let schema = serde_json::to_string_pretty(&json::schema()).expect("a schema is JSON") + "\n";
    is_up_to_date("docs/culprit.stream.v1.schema.json", &schema);
}

#[test]
fn the_readmes_table_of_probes_is_the_probes_table() {
    const BEGIN: &str = "<!-- probes: generated, see tests/docs.rs -->\n";
    const END: &str = "<!-- end of probes -->";
    let mut table = String::from("| probe | what it sees | hooks |\n|---|---|---|\n");
    for probe in PROBES {
        let mut hooks: Vec<String> = probe.hooks.iter().map(|hook| format!("`{}`", place(hook))).collect();
        hooks.dedup();
        writeln!(table, "| `{}` | {} | {} |", probe.name, probe.about, hooks.join(", ")).expect("a string");
    }
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the opening mark");
    let (_, after) = rest.split_once(END).expect("README.md has the closing mark");
    is_up_to_date("README.md", &format!("{before}{BEGIN}{table}{END}{after}"));
}
