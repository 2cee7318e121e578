//! Grafana's dashboards: what Grafana would take without a word and not show, or show wrongly.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde_json::Value;

use super::{Expression, files, list, text};

/// Types of panels that Grafana 10 and 11 have. `graph`, `singlestat` and `table-old` are gone.
const PANELS: &[&str] =
    &["row", "timeseries", "stat", "table", "bargauge", "gauge", "heatmap", "state-timeline", "text"];
/// The data source that the viewer chooses.
const DATA_SOURCE: &str = "${datasource}";

/// Checks every dashboard, and returns the expressions in them.
pub(super) fn check(directory: &Path) -> Result<Vec<Expression>> {
    let mut expressions = Vec::new();
    let mut complaints = Vec::new();
    for file in files(directory, 1, ".json")? {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let dashboard =
            serde_json::from_str(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())?;
        complaints.extend(look(&name, &dashboard).into_iter().map(|found| format!("{name}: {found}")));
        expressions.extend(expressions_of(&name, &dashboard));
    }
    if expressions.is_empty() {
        bail!("no expression in {}", directory.display());
    }
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    Ok(expressions)
}

fn look(name: &str, dashboard: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    // Unique, because file names are.
    if text(dashboard, "uid") != name {
        complaints.push("its uid is not the file's name".to_owned());
    }
    let variables: Vec<&str> =
        list(&dashboard["templating"], "list").iter().map(|variable| text(variable, "name")).collect();
    for wanted in ["datasource", "job", "node", "instance"] {
        if !variables.contains(&wanted) {
            complaints.push(format!("it has no variable {wanted}"));
        }
    }
    let mut ids = BTreeSet::new();
    for panel in list(dashboard, "panels") {
        let title = text(panel, "title");
        let mut complain = |what: &str| complaints.push(format!("panel \"{title}\": {what}"));
        if !panel["id"].as_u64().is_some_and(|id| ids.insert(id)) {
            complain("its id is missing, or another's");
        }
        let kind = text(panel, "type");
        if !PANELS.contains(&kind) {
            complain("a type that Grafana does not have");
        }
        if kind == "row" {
            continue;
        }
        if text(panel, "description").is_empty() {
            complain("it has no description");
        }
        if list(panel, "targets").is_empty() {
            complain("it asks nothing");
        }
    }
    if !follows_choice(dashboard) {
        complaints.push(format!("not every data source is {DATA_SOURCE}"));
    }
    complaints.extend(overlaps(list(dashboard, "panels")));
    complaints
}

/// Whether every part that names a data source names the one that was chosen, and every target names one.
fn follows_choice(part: &Value) -> bool {
    match part {
        Value::Array(parts) => parts.iter().all(follows_choice),
        Value::Object(members) => {
            let source = members.get("datasource").map(|source| text(source, "uid"));
            let asks = members.contains_key("expr");
            source.map_or(!asks, |uid| uid == DATA_SOURCE) && members.values().all(follows_choice)
        }
        _ => true,
    }
}

/// Panels that cover each other: Grafana would move one of them elsewhere.
fn overlaps(panels: &[Value]) -> Vec<String> {
    let place = |panel: &Value| {
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap_or(0);
        (side("x"), side("y"), side("w"), side("h"))
    };
    let mut complaints = Vec::new();
    for (number, one) in panels.iter().enumerate() {
        let (x, y, w, h) = place(one);
        if w == 0 || h == 0 || x + w > 24 {
            complaints.push(format!("panel \"{}\": it has no room", text(one, "title")));
        }
        for other in &panels[..number] {
            let (ox, oy, ow, oh) = place(other);
            if x < ox + ow && ox < x + w && y < oy + oh && oy < y + h {
                complaints.push(format!(
                    "panels \"{}\" and \"{}\" cover each other",
                    text(other, "title"),
                    text(one, "title")
                ));
            }
        }
    }
    complaints
}

/// Of panels, annotations, and the selectors that variables take their values from.
fn expressions_of(name: &str, dashboard: &Value) -> Vec<Expression> {
    let mut found = Vec::new();
    let mut keep = |place: &str, text: &str| {
        found.push(Expression { place: format!("{name}: {place}"), text: text.to_owned() });
    };
    for panel in list(dashboard, "panels") {
        for target in list(panel, "targets") {
            keep(text(panel, "title"), text(target, "expr"));
        }
    }
    for annotation in list(&dashboard["annotations"], "list") {
        keep(text(annotation, "name"), text(annotation, "expr"));
    }
    for variable in list(&dashboard["templating"], "list") {
        let query = text(&variable["query"], "query");
        let selector = query.strip_prefix("label_values(").and_then(|query| query.rsplit_once(", "));
        if let Some((selector, _)) = selector {
            keep(text(variable, "name"), selector);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dashboard() -> Value {
        let source = json!({"uid": "${datasource}"});
        let panel = json!({
            "id": 1, "type": "stat", "title": "t", "description": "d", "datasource": source,
            "gridPos": {"x": 0, "y": 0, "w": 4, "h": 4}, "targets": [{"datasource": source, "expr": "up"}],
        });
        let names = ["datasource", "job", "node", "instance"].map(|name| json!({"name": name}));
        json!({"uid": "d", "templating": {"list": names}, "panels": [panel]})
    }

    #[test]
    fn a_good_dashboard_is_left_alone_and_each_fault_is_named() {
        assert_eq!(look("d", &dashboard()), Vec::<String>::new());
        assert_eq!(look("e", &dashboard()), ["its uid is not the file's name"]);
        let with = |path: &str, value: Value| {
            let mut changed = dashboard();
            *changed.pointer_mut(path).unwrap() = value;
            look("d", &changed).join(" ")
        };
        assert!(with("/panels/0/type", json!("graph")).contains("type"));
        assert!(with("/panels/0/description", json!("")).contains("description"));
        assert!(with("/panels/0/targets/0/datasource/uid", json!("x")).contains("data source"));
        assert!(with("/panels/0/targets/0", json!({"expr": "up"})).contains("data source"));
        assert!(with("/panels/0/gridPos/w", json!(25)).contains("room"));
        let mut twice = dashboard();
        let panel = twice["panels"][0].clone();
        twice["panels"].as_array_mut().unwrap().push(panel);
        let complaints = look("d", &twice).join(" ");
        assert!(complaints.contains("another's") && complaints.contains("cover"), "{complaints}");
    }
}
