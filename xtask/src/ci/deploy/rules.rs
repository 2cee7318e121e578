//! Prometheus: its configuration, the rules and their tests, by promtool; and what promtool does not ask: is every
//! alert tested, both ways, and explained in the runbook, and is every expression of the pages tested?

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde_json::{Value, json};

use super::{Expression, document, list, text};
use crate::{cmd, setup};

/// A file of rules.
pub(super) struct Rules {
    file: PathBuf,
    pub(super) groups: Value,
}

impl Rules {
    pub(super) fn read(file: &Path) -> Result<Self> {
        Ok(Self { file: file.to_owned(), groups: document(file)?["groups"].take() })
    }

    fn rules(&self) -> impl Iterator<Item = &Value> {
        self.groups.as_array().into_iter().flatten().flat_map(|group| list(group, "rules"))
    }

    fn alerts(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.rules().map(|rule| (text(rule, "alert"), rule)).filter(|(name, _)| !name.is_empty())
    }

    /// The names of what is recorded.
    pub(super) fn records(&self) -> BTreeSet<&str> {
        self.rules().map(|rule| text(rule, "record")).filter(|name| !name.is_empty()).collect()
    }

    pub(super) fn expressions(&self) -> Vec<Expression> {
        let place = |rule: &Value| format!("rule {}{}", text(rule, "alert"), text(rule, "record"));
        self.rules()
            .map(|rule| Expression { place: place(rule), text: text(rule, "expr").to_owned() })
            .collect()
    }

    pub(super) fn check(&self, directory: &Path, docs: &Path) -> Result<()> {
        promtool(&["check", "rules"], &self.file)?;
        let tests = self.file.with_extension("test.yml");
        promtool(&["test", "rules"], &tests)?;
        promtool(&["check", "config"], &directory.join("prometheus.yml"))?;
        kubernetes(&directory.join("prometheus-kubernetes.yml"))?;
        let tests = document(&tests)?;
        let mut complaints = self.untested(&tests);
        complaints.extend(self.unexplained(&fs::read_to_string(&docs.join("runbook.md"))?));
        complaints.extend(unproven(&fs::read_to_string(&docs.join("daemon.md"))?, &tests));
        if !complaints.is_empty() {
            bail!("{}", complaints.join("; "));
        }
        Ok(())
    }

    /// Alerts without a test where they fire, and are silent at another moment.
    fn untested(&self, tests: &Value) -> Vec<String> {
        let mut complaints = Vec::new();
        for (alert, _) in self.alerts() {
            let label = format!("alertname=\"{alert}\"");
            let fires = |expectation: &Value| {
                list(expectation, "exp_samples").iter().any(|sample| text(sample, "labels").contains(&label))
            };
            let both_ways = list(tests, "tests").iter().any(|test| {
                let moments = || {
                    list(test, "promql_expr_test")
                        .iter()
                        .filter(|moment| text(moment, "expr").starts_with("ALERTS"))
                };
                moments().any(fires) && moments().any(|moment| !fires(moment))
            });
            if !both_ways {
                complaints.push(format!("{alert} has no test where it fires, and before or after does not"));
            }
        }
        complaints
    }

    /// What an alert should say and does not.
    fn unexplained(&self, runbook: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut sections: BTreeMap<&str, bool> =
            runbook.lines().filter_map(|line| Some((line.strip_prefix("## ")?, false))).collect();
        for (alert, rule) in self.alerts() {
            let annotations = &rule["annotations"];
            for name in ["summary", "description", "runbook", "runbook_url"] {
                if text(annotations, name).is_empty() {
                    complaints.push(format!("{alert} has no annotation {name}"));
                }
            }
            let anchor = format!("/docs/runbook.md#{}", alert.to_lowercase());
            if !text(annotations, "runbook_url").ends_with(&anchor) {
                complaints.push(format!("the runbook_url of {alert} does not end in {anchor}"));
            }
            match sections.get_mut(alert) {
                Some(explained) => *explained = true,
                None => complaints.push(format!("docs/runbook.md has no section {alert}")),
            }
        }
        let unknown = sections.iter().filter(|(_, explained)| !**explained);
        complaints.extend(unknown.map(|(name, _)| format!("docs/runbook.md: {name} is no alert")));
        complaints
    }
}

/// Expressions in the page's fences ```` ```promql ```` that no test evaluates.
fn unproven(page: &str, tests: &Value) -> Vec<String> {
    let plain = |expression: &str| expression.split_whitespace().collect::<Vec<_>>().join(" ");
    let tested: BTreeSet<String> = list(tests, "tests")
        .iter()
        .flat_map(|test| list(test, "promql_expr_test"))
        .map(|moment| plain(text(moment, "expr")))
        .collect();
    let examples: Vec<String> = page
        .split("\n```promql\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .map(plain)
        .collect();
    if examples.is_empty() {
        return vec!["docs/daemon.md has no expression for a fleet that is half upgraded".to_owned()];
    }
    let unproven = examples.into_iter().filter(|example| !tested.contains(example));
    unproven.map(|example| format!("no test evaluates what docs/daemon.md says: {example}")).collect()
}

/// The example for Kubernetes. Debian's promtool is built without it: what that would do is left out, and the rest of
/// such a job checked as if its pods were listed.
fn kubernetes(file: &Path) -> Result<()> {
    let mut example = document(file)?;
    for job in example["scrape_configs"].as_array_mut().into_iter().flatten() {
        let Some(discovery) = job.as_object_mut().and_then(|job| job.remove("kubernetes_sd_configs")) else {
            continue;
        };
        if discovery.as_array().is_none_or(|all| all.iter().any(|one| text(one, "role") != "pod")) {
            bail!("{}: kubernetes_sd_configs of another role than pod", file.display());
        }
        job["static_configs"] = json!([{"targets": ["192.0.2.1:9877"]}]);
    }
    let work = tempfile::tempdir()?;
    let copy = work.path().join("prometheus.yml");
    for rules in list(&example, "rule_files").iter().filter_map(Value::as_str) {
        fs::copy(file.with_file_name(rules), work.path().join(rules)).with_context(|| rules.to_owned())?;
    }
    // YAML takes JSON.
    fs::write(&copy, example.to_string())?;
    promtool(&["check", "config"], &copy).with_context(|| format!("of {}", file.display()))
}

/// Has promtool parse expressions, as rules that are never loaded.
pub(super) fn parse(expressions: &[Expression]) -> Result<()> {
    let rule = |(number, expression): (usize, &Expression)| json!({"record": format!("expression:{number}"), "expr": variables_replaced(&expression.text)});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let work = tempfile::tempdir()?;
    let file = work.path().join("expressions.yml");
    fs::write(&file, json!({"groups": [{"name": "expressions", "rules": rules}]}).to_string())?;
    promtool(&["check", "rules"], &file).map_err(|error| {
        // promtool names a rule by its number, counted from 1.
        let message = format!("{error:#}");
        let number = message.split_once("rule ").and_then(|(_, rest)| rest.split_once(','));
        let expression = number.and_then(|(number, _)| expressions.get(number.parse::<usize>().ok()? - 1));
        let place = expression.map(|expression| format!("{}: {}\n", expression.place, expression.text));
        error.context(place.unwrap_or_default())
    })
}

/// Grafana's variables of time are durations; its others stand in strings only.
fn variables_replaced(expression: &str) -> String {
    ["$__rate_interval", "$__interval", "$__range"]
        .iter()
        .fold(expression.to_owned(), |text, variable| text.replace(variable, "5m"))
}

fn promtool(action: &[&str], file: &Path) -> Result<()> {
    let promtool =
        setup::unpacked::PROMTOOL.find().context("promtool is not here: `cargo xtask setup` brings it")?;
    let mut command = Command::new(promtool);
    cmd::output(command.args(action).arg(file))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let url = "https://x/docs/runbook.md#a";
        let annotations = json!({"summary": "s", "description": "d", "runbook": "r", "runbook_url": url});
        let groups = json!([{"rules": [{"alert": "A", "expr": "up", "annotations": annotations}]}]);
        Rules { file: PathBuf::new(), groups }
    }

    #[test]
    fn an_alert_is_tested_when_it_fires_and_is_silent_in_one_test() {
        let fires = json!({"expr": "ALERTS", "exp_samples": [{"labels": "ALERTS{alertname=\"A\"}"}]});
        let silent = json!({"expr": "ALERTS", "exp_samples": []});
        let test = |moments: &[&Value]| json!({"tests": [{"promql_expr_test": moments}]});
        assert!(rules().untested(&test(&[&silent, &fires])).is_empty());
        assert_eq!(rules().untested(&test(&[&fires])).len(), 1);
        assert_eq!(rules().untested(&test(&[&silent])).len(), 1);
    }

    #[test]
    fn an_alert_and_its_section_of_the_runbook_need_each_other() {
        assert!(rules().unexplained("# Runbook\n## A\n").is_empty());
        assert_eq!(
            rules().unexplained("## B\n"),
            ["docs/runbook.md has no section A", "docs/runbook.md: B is no alert"]
        );
    }

    #[test]
    fn an_expression_of_a_page_is_evaluated_by_a_test_however_it_is_broken() {
        let page = "Text.\n\n```promql\nsum(a\n  or b)\n```\n\n```promql\nc\n```\n";
        let tests = |expressions: &[&str]| {
            let moments: Vec<Value> =
                expressions.iter().map(|expression| json!({"expr": expression})).collect();
            json!({"tests": [{"promql_expr_test": moments}]})
        };
        assert_eq!(unproven(page, &tests(&["sum(a or b)", "c"])), Vec::<String>::new());
        assert_eq!(
            unproven(page, &tests(&["sum(a or b)"])),
            ["no test evaluates what docs/daemon.md says: c"]
        );
        assert_eq!(unproven("Text.\n", &tests(&["c"])).len(), 1);
    }

    #[test]
    fn variables_of_time_become_durations() {
        assert_eq!(variables_replaced("rate(a[$__rate_interval])"), "rate(a[5m])");
    }
}
