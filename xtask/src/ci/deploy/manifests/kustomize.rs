//! As much of kustomize as the manifests use: `resources`, and `patches` that are strategic merge patches in files.
//! Anything else is refused rather than passed over.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::{document, list, text, yaml};

pub(super) const FILE: &str = "kustomization.yaml";

/// Lists that are merged, and by which member; all others are replaced.
const MERGED_BY: &[(&str, &str)] =
    &[("containers", "name"), ("env", "name"), ("volumes", "name"), ("volumeMounts", "mountPath")];

/// The objects of a kustomization, and the files that were read.
pub(super) fn render(directory: &Path) -> Result<(Vec<Value>, BTreeSet<PathBuf>)> {
    let file = directory.join(FILE);
    let kustomization = document(&file)?;
    let members = kustomization.as_object().context("a kustomization is an object")?;
    for member in members.keys() {
        if !["apiVersion", "kind", "resources", "patches"].contains(&member.as_str()) {
            bail!("{}: `{member}` is not understood by this check", file.display());
        }
    }
    let mut objects = Vec::new();
    let mut read = BTreeSet::from([file]);
    for resource in list(&kustomization, "resources") {
        let path = plain(&directory.join(resource.as_str().context("a resource is a path")?));
        if path.is_dir() {
            let (more, files) = render(&path)?;
            objects.extend(more);
            read.extend(files);
        } else {
            objects.extend(yaml(std::slice::from_ref(&path))?.concat());
            read.insert(path);
        }
    }
    for patch in list(&kustomization, "patches") {
        let path = plain(&directory.join(text(patch, "path")));
        let change = document(&path)?;
        let patched = objects.iter_mut().find(|object| identity(object) == identity(&change));
        merge(patched.with_context(|| format!("{}: nothing to patch", path.display()))?, &change);
        read.insert(path);
    }
    Ok((objects, read))
}

/// A path without `..`; there are no symbolic links among the manifests.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

fn identity(object: &Value) -> [&str; 4] {
    let metadata = &object["metadata"];
    [text(object, "apiVersion"), text(object, "kind"), text(metadata, "namespace"), text(metadata, "name")]
}

/// <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>
fn merge(object: &mut Value, patch: &Value) {
    let (Some(object), Some(patch)) = (object.as_object_mut(), patch.as_object()) else {
        *object = patch.clone();
        return;
    };
    for (member, change) in patch {
        let by = MERGED_BY.iter().find(|(list, _)| list == member).map(|(_, by)| by);
        match (object.get_mut(member), by) {
            _ if change.is_null() => {
                object.remove(member);
            }
            (Some(Value::Array(items)), Some(by)) => {
                for change in change.as_array().into_iter().flatten() {
                    match items.iter_mut().find(|item| item[by] == change[by]) {
                        Some(item) => merge(item, change),
                        None => items.push(change.clone()),
                    }
                }
            }
            (Some(value), _) => merge(value, change),
            (None, _) => {
                object.insert(member.clone(), change.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_named_things_are_merged_and_others_replaced() {
        let mut object =
            json!({"containers": [{"name": "a", "args": [1, 2], "x": {"y": 1, "z": 2}}], "gone": 1});
        merge(
            &mut object,
            &json!({
                "containers": [{"name": "a", "args": [3], "x": {"y": 4}}, {"name": "b"}], "gone": null, "new": 5,
            }),
        );
        assert_eq!(
            object,
            json!({
                "containers": [{"name": "a", "args": [3], "x": {"y": 4, "z": 2}}, {"name": "b"}], "new": 5,
            })
        );
    }
}
