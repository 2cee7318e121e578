//! Kubernetes: every kustomization, put together, against the schemas of the oldest and the newest release that the
//! manifests are for.

mod kustomize;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde_json::Value;

use super::{files, rules::Rules, text, yaml};
use crate::{cmd, setup::venv::KUBERNETES_VALIDATE};

/// The oldest has `appArmorProfile`; the newest is the newest that the validator knows.
const RELEASES: &[&str] = &["1.30", "1.37"];
/// The Prometheus operator's own kinds, whose schema the validator does not have.
const OPERATOR: &str = "monitoring.coreos.com/v1";

pub(super) fn check(directory: &Path, rules: &Rules) -> Result<()> {
    let mut used = BTreeSet::new();
    let mut operator = Vec::new();
    for kustomization in kustomizations(directory)? {
        let (mut objects, read) = kustomize::render(&kustomization)?;
        used.extend(read);
        same_as_kubectl(&kustomization, &objects)?;
        operator.extend(objects.extract_if(.., |object| text(object, "apiVersion") == OPERATOR));
        validate(&kustomization, &objects)?;
    }
    let unused: Vec<String> = files(directory, usize::MAX, "")?
        .iter()
        .filter(|file| !used.contains(*file))
        .map(|file| file.display().to_string())
        .collect();
    if !unused.is_empty() {
        bail!("no kustomization names {}", unused.join(", "));
    }
    same_rules(&operator, rules)
}

/// The rules for the operator are those for Prometheus.
fn same_rules(objects: &[Value], rules: &Rules) -> Result<()> {
    let ours = objects.iter().find(|object| text(object, "kind") == "PrometheusRule");
    let ours = ours.context("no PrometheusRule among the manifests")?;
    if ours["spec"]["groups"] != rules.groups {
        bail!(
            "prometheusrule.yaml has not the rules of culprit.rules.yml: in deploy/kubernetes/overlays/prometheus-operator, \
             `(sed '/^spec:/q' prometheusrule.yaml; sed -n '/^groups:/,$p' ../../../prometheus/culprit.rules.yml | \
             sed 's/^\\(.\\)/  \\1/') > new && mv new prometheusrule.yaml`"
        );
    }
    Ok(())
}

fn validate(kustomization: &Path, objects: &[Value]) -> Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    let file = work.path().join("objects.yaml");
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    fs::write(&file, documents.join("\n---\n"))?;
    for release in RELEASES {
        let validator = KUBERNETES_VALIDATE.program("kubernetes-validate");
        let mut command = Command::new(validator);
        command
            .args(["--strict", "--kubernetes-version", release])
            .arg(&file)
            .stdin(std::process::Stdio::null());
        let out = command.output().with_context(|| format!("starting `{}`", cmd::line(&command)))?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let passed =
            said.lines().filter(|line| line.starts_with("INFO") && line.contains(" passed ")).count();
        // A kind that it does not know is a warning to it, and a spelling mistake to us.
        if !out.status.success() || passed != objects.len() {
            let faults: Vec<&str> = said.lines().filter(|line| !line.starts_with("INFO")).collect();
            bail!("{} for Kubernetes {release}:\n{}", kustomization.display(), faults.join("\n"));
        }
    }
    Ok(())
}

/// Where kubectl happens to be here, it is asked whether it would put the same together.
fn same_as_kubectl(kustomization: &Path, objects: &[Value]) -> Result<()> {
    let Some(kubectl) = cmd::which("kubectl") else { return Ok(()) };
    let rendered = cmd::output(Command::new(kubectl).arg("kustomize").arg(kustomization))?;
    let work = tempfile::tempdir()?;
    let file = work.path().join("rendered.yaml");
    fs::write(&file, rendered)?;
    let theirs = yaml(&[file])?.concat();
    if let Some(object) = objects.iter().find(|object| !theirs.contains(object)) {
        let (kind, name) = (text(object, "kind"), text(&object["metadata"], "name"));
        bail!("{}: kubectl makes another {kind} {name}", kustomization.display());
    }
    if theirs.len() != objects.len() {
        bail!("{}: kubectl makes {} objects, not {}", kustomization.display(), theirs.len(), objects.len());
    }
    Ok(())
}

fn kustomizations(directory: &Path) -> Result<Vec<PathBuf>> {
    let files = files(directory, usize::MAX, "")?;
    let found = files.iter().filter(|file| file.ends_with(kustomize::FILE));
    let found: Vec<PathBuf> = found.filter_map(|file| Some(file.parent()?.to_owned())).collect();
    if found.is_empty() {
        bail!("no {} below {}", kustomize::FILE, directory.display());
    }
    Ok(found)
}
