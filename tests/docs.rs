//! Documents that derive from the code are up to date. `CULPRIT_BLESS=1 cargo test -p culprit --test
//! docs` rewrites them.

use std::{fmt::Write as _, fs, path::PathBuf};

use culprit::{list::place, rules::RULES, sinks::json};
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
fn the_page_of_metrics_is_the_one_checked_in() {
    is_up_to_date("docs/metrics.md", &culprit::metrics::families::page());
}

#[test]
fn the_schema_of_incidents_is_the_one_checked_in() {
    let schema = serde_json::to_string_pretty(&json::incident_schema()).expect("a schema is JSON") + "\n";
    is_up_to_date("docs/culprit.incident.v1.schema.json", &schema);
}

/// The part of the README between `<!-- NAME: generated, see tests/docs.rs -->` and `<!-- end of NAME -->`.
fn readme_holds(name: &str, table: &str) {
    let (begin, end) =
        (format!("<!-- {name}: generated, see tests/docs.rs -->\n"), format!("<!-- end of {name} -->"));
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let (before, rest) = readme.split_once(&begin).expect("README.md has the opening mark");
    let (_, after) = rest.split_once(&end).expect("README.md has the closing mark");
    is_up_to_date("README.md", &format!("{before}{begin}{table}{end}{after}"));
}

#[test]
fn the_readmes_tables_are_those_of_the_code() {
    let mut table = String::from("| probe | what it sees | hooks |\n|---|---|---|\n");
    for probe in PROBES {
        let mut hooks: Vec<String> = probe.hooks.iter().map(|hook| format!("`{}`", place(hook))).collect();
        hooks.dedup();
        writeln!(table, "| `{}` | {} | {} |", probe.name, probe.about, hooks.join(", ")).expect("a string");
    }
    readme_holds("probes", &table);
    let mut table = String::from("| kind | what it says | opens when |\n|---|---|---|\n");
    for rule in RULES {
        writeln!(table, "| `{}` | {} | {} |", rule.kind.name(), rule.about, rule.opens).expect("a string");
    }
    readme_holds("rules", &table);
}
