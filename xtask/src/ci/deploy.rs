//! The files below `deploy/`: would Prometheus, Grafana, Kubernetes and systemd take them, and do they speak of metrics
//! that there are? Asked without any of them running.
//!
//! Every part is checked, whatever became of the others.

mod dashboards;
mod manifests;
mod metrics;
mod promql;
mod rules;
mod unit;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::files;
use crate::{cmd, setup::venv::KUBERNETES_VALIDATE};

/// An expression of PromQL, and where it stands.
struct Expression {
    place: String,
    text: String,
}

pub(super) fn check(workspace: &Path) -> Result<()> {
    let deploy = workspace.join("deploy");
    let mut complaints = Vec::new();
    let mut done = |part: &str, result: Result<()>| {
        complaints.extend(result.err().map(|error| format!("{part}: {error:#}")));
    };
    let rules = rules::Rules::read(&deploy.join("prometheus/culprit.rules.yml"))?;
    done("prometheus", rules.check(&deploy.join("prometheus"), &workspace.join("docs")));
    let mut expressions = rules.expressions();
    match dashboards::check(&deploy.join("grafana/dashboards")) {
        Ok(found) => {
            done("grafana", rules::parse(&found));
            expressions.extend(found);
        }
        Err(error) => done("grafana", Err(error)),
    }
    done("metrics", metrics::check(&expressions, &rules.records(), &workspace.join("docs/metrics.md")));
    done("kubernetes", manifests::check(&deploy.join("kubernetes"), &rules));
    done("systemd", unit::check(&deploy.join("systemd/culprit.service")));
    if !complaints.is_empty() {
        bail!("\n{}", complaints.join("\n"));
    }
    Ok(())
}

/// The documents of YAML files, file by file. A validator of manifests brings a parser.
fn yaml(files: &[PathBuf]) -> Result<Vec<Vec<Value>>> {
    const PROGRAM: &str = "import json, sys, yaml; print(json.dumps([[d for d in yaml.safe_load_all(open(f)) if d] for f in sys.argv[1:]]))";
    let mut command = Command::new(KUBERNETES_VALIDATE.program("python3"));
    let json = cmd::output(command.args(["-c", PROGRAM]).args(files))?;
    Ok(serde_json::from_str(&json)?)
}

/// The only document of a YAML file.
fn document(file: &Path) -> Result<Value> {
    let mut documents = yaml(&[file.to_owned()])?.concat();
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document),
        _ => bail!("{}: one document was expected", file.display()),
    }
}

/// A member that is a text, or the empty text.
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// A member that is a list, or nothing.
fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().map(Vec::as_slice).unwrap_or_default()
}
