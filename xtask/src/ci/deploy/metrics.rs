//! Every metric that rules and dashboards speak of is one that docs/metrics.md lists.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail};

use super::{Expression, promql, read};

/// What Prometheus says by itself.
const PROMETHEUS: &[&str] = &["up", "ALERTS"];
/// The series of a histogram.
const HISTOGRAM: &[&str] = &["_bucket", "_sum", "_count"];

pub(super) fn check(expressions: &[Expression], records: &BTreeSet<&str>, docs: &Path) -> Result<()> {
    let text = read(docs)?;
    let listed = listed(&text);
    if listed.is_empty() {
        bail!(
            "{} lists no metric: a line for each is expected, beginning with \"| `culprit_\"",
            docs.display()
        );
    }
    let unknown = unknown(expressions, records, &listed);
    if !unknown.is_empty() {
        bail!("not in {}:\n{}", docs.display(), unknown.join("\n"));
    }
    Ok(())
}

/// The names in the first column of tables.
fn listed(docs: &str) -> BTreeSet<&str> {
    let name = |line: &str| {
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(line.len());
        end
    };
    docs.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| line.starts_with("culprit_") || line.starts_with("process_"))
        .map(|line| &line[..name(line)])
        .collect()
}

fn unknown(expressions: &[Expression], records: &BTreeSet<&str>, listed: &BTreeSet<&str>) -> Vec<String> {
    let known = |name: &str| {
        let family = HISTOGRAM.iter().find_map(|suffix| name.strip_suffix(suffix));
        PROMETHEUS.contains(&name)
            || records.contains(name)
            || listed.contains(name)
            || family.is_some_and(|family| listed.contains(family))
    };
    let mut unknown = Vec::new();
    for expression in expressions {
        let names = promql::metrics(&expression.text);
        unknown.extend(
            names.iter().filter(|name| !known(name)).map(|name| format!("{name} ({})", expression.place)),
        );
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_is_not_listed_is_named_with_its_place() {
        let docs = "| metric |\n|---|\n| `culprit_a_total{x}` | … |\n| `culprit_b_seconds` | histogram |\n`culprit_c`\n";
        let listed = listed(docs);
        assert_eq!(listed, BTreeSet::from(["culprit_a_total", "culprit_b_seconds"]));
        let text = "culprit_a_total / culprit_b_seconds_bucket + culprit:r + up + culprit_c".to_owned();
        let expressions = [Expression { place: "here".to_owned(), text }];
        assert_eq!(unknown(&expressions, &BTreeSet::from(["culprit:r"]), &listed), ["culprit_c (here)"]);
    }
}
