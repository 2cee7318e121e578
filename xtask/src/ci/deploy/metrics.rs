//! Every metric, label and value that rules and dashboards speak of is one that docs/metrics.md lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, bail};
use fs_err as fs;

use super::{Expression, promql};

/// What Prometheus says by itself.
const PROMETHEUS: &[&str] = &["up", "ALERTS"];
/// The labels of targets, and the one of a histogram's buckets.
const TARGET: &[&str] = &["job", "instance", "node", "le"];
/// The series of a histogram.
const HISTOGRAM: &[&str] = &["_bucket", "_sum", "_count"];

/// Labels, and their values where they are listed.
type Labels<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

pub(super) fn check(expressions: &[Expression], records: &BTreeSet<&str>, docs: &Path) -> Result<()> {
    let text = fs::read_to_string(docs)?;
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

/// The lines ``| `name` | type | `label`: `value` `value`<br>`label`: what | … |``.
fn listed(docs: &str) -> BTreeMap<&str, Labels<'_>> {
    let family = |line| {
        let mut cells = str::split(line, " | ");
        let name = cells.next()?.strip_prefix("| `")?.split('`').next()?;
        let ours = name.starts_with("culprit_") || name.starts_with("process_");
        let labels = cells.nth(1).into_iter().flat_map(|cell| cell.split("<br>")).filter_map(|label| {
            let mut words = label.split('`').skip(1).step_by(2);
            Some((words.next()?, words.collect()))
        });
        ours.then(|| (name, labels.collect()))
    };
    docs.lines().filter_map(family).collect()
}

fn unknown(
    expressions: &[Expression],
    records: &BTreeSet<&str>,
    listed: &BTreeMap<&str, Labels<'_>>,
) -> Vec<String> {
    let mut unknown = Vec::new();
    for expression in expressions {
        for selector in promql::selectors(&expression.text) {
            let name = selector.metric.as_str();
            if PROMETHEUS.contains(&name) || records.contains(name) {
                continue;
            }
            let family = || HISTOGRAM.iter().find_map(|suffix| listed.get(name.strip_suffix(suffix)?));
            let Some(labels) = listed.get(name).or_else(family) else {
                unknown.push(format!("{name} ({})", expression.place));
                continue;
            };
            for (label, value) in &selector.matchers {
                if let Some(what) = unlisted(label, value, labels) {
                    unknown.push(format!("{what} of {name} ({})", expression.place));
                }
            }
        }
    }
    unknown
}

/// What is not listed: the label, or one of the values.
fn unlisted(label: &str, value: &str, labels: &Labels<'_>) -> Option<String> {
    if TARGET.contains(&label) {
        return None;
    }
    let Some(values) = labels.get(label) else { return Some(format!("label {label}")) };
    // Alternatives of plain words are checked; other patterns, and Grafana's variables, are not.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-|".contains(c);
    if values.is_empty() || !value.chars().all(plain) {
        return None;
    }
    let wrong = value.split('|').find(|value| !value.is_empty() && !values.contains(value))?;
    Some(format!("value {wrong} for label {label}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = "| metric |\n|---|\n\
        | `culprit_a_total` | counter | `x`: `one` `two`<br>`y`: anything | … |\n\
        | `culprit_b_seconds` | histogram |  | … |\n\
        `culprit_c`\n";

    fn of(text: &str) -> Vec<String> {
        let expressions = [Expression { place: "here".to_owned(), text: text.to_owned() }];
        unknown(&expressions, &BTreeSet::from(["culprit:r"]), &listed(DOCS))
    }

    #[test]
    fn a_metric_that_is_not_listed_is_named_with_its_place() {
        let good = "culprit_a_total{job=\"j\"} / culprit_b_seconds_bucket{le=\"1\"} + culprit:r{z=\"\"} + up";
        assert_eq!(of(good), Vec::<String>::new());
        assert_eq!(of("culprit_c + culprit_a"), ["culprit_c (here)", "culprit_a (here)"]);
    }

    #[test]
    fn a_label_or_value_that_is_not_listed_is_named() {
        assert_eq!(
            of("culprit_a_total{x=~\"one|two\", y=\"any\", x=~\"$v\", x!=\"\"}"),
            Vec::<String>::new()
        );
        assert_eq!(of("culprit_a_total{z=\"one\"}"), ["label z of culprit_a_total (here)"]);
        assert_eq!(
            of("culprit_a_total{x!~\"one|tow\"}"),
            ["value tow for label x of culprit_a_total (here)"]
        );
    }
}
