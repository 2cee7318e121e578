//! One story: incidents that another one in the same list explains stand behind it, counted.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// What is listed of some incidents, in their order, and how many stand behind each of them.
pub(super) fn fold(incidents: Vec<Value>) -> (Vec<Value>, BTreeMap<String, usize>) {
    let parents: HashMap<String, String> = {
        let listed: HashMap<&str, &Value> =
            incidents.iter().filter_map(|incident| Some((incident["id"].as_str()?, incident))).collect();
        let parent = |incident: &Value| {
            let id = incident["id"].as_str()?;
            let causes = incident["caused_by"].as_array()?;
            let cause = causes.iter().filter_map(Value::as_str).find(|cause| {
                // What is over explains nothing that goes on.
                *cause != id && listed.get(cause).is_some_and(|cause| is_open(cause) || !is_open(incident))
            })?;
            Some((id.to_owned(), cause.to_owned()))
        };
        incidents.iter().filter_map(parent).collect()
    };
    let mut behind: BTreeMap<String, usize> = BTreeMap::new();
    let mut folded = Vec::new();
    for incident in incidents {
        match incident["id"].as_str().and_then(|id| root(id, &parents)) {
            Some(root) => *behind.entry(root.to_owned()).or_default() += 1,
            None => folded.push(incident),
        }
    }
    (folded, behind)
}

/// The outermost incident that explains this one; none where they explain each other.
fn root<'a>(id: &str, parents: &'a HashMap<String, String>) -> Option<&'a str> {
    let mut at = parents.get(id)?;
    for _ in 0..parents.len() {
        match parents.get(at) {
            Some(next) => at = next,
            None => return Some(at),
        }
    }
    None
}

fn is_open(incident: &Value) -> bool {
    incident["state"] != "resolved"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn incident(id: &str, state: &str, caused_by: &[&str]) -> Value {
        json!({"id": id, "state": state, "caused_by": caused_by})
    }

    fn folded(incidents: &[Value]) -> (Vec<String>, BTreeMap<String, usize>) {
        let (left, behind) = fold(incidents.to_vec());
        (left.iter().map(|incident| incident["id"].as_str().expect("an id").to_owned()).collect(), behind)
    }

    #[test]
    fn what_another_explains_stands_behind_the_outermost() {
        let (left, behind) = folded(&[
            incident("a", "updated", &["b"]),
            incident("b", "open", &["r"]),
            incident("r", "open", &[]),
            incident("x", "resolved", &["gone"]),
        ]);
        assert_eq!((left, behind), (vec!["r".to_owned(), "x".to_owned()], [("r".to_owned(), 2)].into()));
    }

    #[test]
    fn what_goes_on_is_not_explained_by_what_is_over_and_none_is_lost_in_a_circle() {
        let (left, behind) = folded(&[
            incident("a", "open", &["r"]),
            incident("r", "resolved", &[]),
            incident("b", "resolved", &["r"]),
        ]);
        assert_eq!((left, behind), (vec!["a".to_owned(), "r".to_owned()], [("r".to_owned(), 1)].into()));
        let (left, behind) = folded(&[incident("a", "open", &["b"]), incident("b", "open", &["a", "b"])]);
        assert_eq!((left.len(), behind.len()), (2, 0));
    }
}
