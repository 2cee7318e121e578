//! Names that stood in incidents of earlier versions, and those they have now. A store keeps incidents as the JSON
//! they were emitted as: one that is read by a later culprit is to say the same in the later one's names.

use serde_json::Value;

/// Any kind of incident.
const ANY: &str = "*";

/// A name: in incidents of which kind, at which path (`*` is every element of a list), what it was and what it is.
type Renamed = (&'static str, &'static [&'static str], &'static str, &'static str);

/// Fields of the object at the path.
const FIELDS: &[Renamed] = &[
    (ANY, &["cause", "drop"], "elsewhere", "other_netns"),
    ("connect_failing", &["details", "answered_by_host"], "says", "error"),
    ("neighbour_unresolved", &["details"], "asked_ms", "unresolved_ms"),
    ("neighbour_unresolved", &["details"], "others", "other_neighbours"),
    ("neighbour_unresolved", &["details"], "withdrawn_by", "removed_by"),
    ("neighbour_stale", &["details"], "cached_ms", "cached_for_ms"),
    ("neighbour_stale", &["details"], "seen_ms", "seen_for_ms"),
    ("neighbour_conflict", &["details", "macs", "*"], "also", "other_addresses"),
    ("neighbour_conflict", &["details", "macs", "*"], "last_ms", "last_claim_ms"),
    ("clock_stepped", &["details", "steps", "*"], "slept_ms", "suspended_ms"),
    ("clock_skewed", &["details"], "missed_ms", "paused_ms"),
];

/// Values of the field at the path.
const VALUES: &[Renamed] = &[
    ("neighbour_unresolved", &["cause", "outcome"], "quiet", "idle"),
    ("neighbour_stale", &["cause", "outcome"], "together", "same_neighbour"),
    ("neighbour_stale", &["cause", "outcome"], "quiet", "idle"),
    ("neighbour_stale", &["details", "ended_by"], "together", "same_neighbour"),
    ("neighbour_stale", &["details", "ended_by"], "quiet", "idle"),
    ("neighbour_conflict", &["details", "pattern"], "in_turn", "alternating"),
    ("neighbour_conflict", &["details", "pattern"], "at_once", "simultaneous"),
    ("clock_stepped", &["details", "verdict"], "undone", "reverted"),
    ("clock_stepped", &["details", "verdict"], "vouched", "set_by_time_daemon"),
];

/// An incident in the names of today; `None` when it has them, or is none.
pub(super) fn incident(json: &str) -> Option<String> {
    let mut incident: Value = serde_json::from_str(json).ok()?;
    let kind = incident["kind"].as_str()?.to_owned();
    let mut changed = false;
    for (_, path, old, new) in FIELDS.iter().filter(|(of, ..)| [ANY, kind.as_str()].contains(of)) {
        each(&mut incident, path, &mut |found: &mut Value| {
            let Value::Object(fields) = found else { return };
            if let Some(value) = fields.remove(*old) {
                fields.entry(*new).or_insert(value);
                changed = true;
            }
        });
    }
    for (_, path, old, new) in VALUES.iter().filter(|(of, ..)| [ANY, kind.as_str()].contains(of)) {
        each(&mut incident, path, &mut |found: &mut Value| {
            if *found == **old {
                *found = (*new).into();
                changed = true;
            }
        });
    }
    changed.then(|| incident.to_string())
}

/// What is at a path, as often as it is there.
fn each(value: &mut Value, path: &[&str], with: &mut impl FnMut(&mut Value)) {
    match path {
        [] => with(value),
        ["*", rest @ ..] => {
            value.as_array_mut().into_iter().flatten().for_each(|value| each(value, rest, with));
        }
        [name, rest @ ..] => {
            if let Some(value) = value.get_mut(name) {
                each(value, rest, with);
            }
        }
    }
}

/// Incidents as earlier versions kept them, and as they are now.
#[cfg(test)]
pub(super) fn examples() -> Vec<(Value, Value)> {
    let mut examples: Vec<(Value, Value)> = Vec::new();
    for (at, (of, path, old, new)) in FIELDS.iter().enumerate() {
        let kind = if *of == ANY { "connect_stalled" } else { *of };
        let make = |name: &str| {
            let field = Value::Object(
                [(name.to_owned(), at.into()), ("kept".to_owned(), true.into())].into_iter().collect(),
            );
            within(kind, path, field)
        };
        examples.push((make(old), make(new)));
    }
    let values = VALUES
        .iter()
        .map(|(of, path, old, new)| (within(of, path, (*old).into()), within(of, path, (*new).into())));
    examples.extend(values);
    examples
}

/// An incident of a kind that has this at the path.
#[cfg(test)]
fn within(kind: &str, path: &[&str], value: Value) -> Value {
    let nested = path.iter().rev().fold(value, |value, name| match *name {
        "*" => Value::Array(vec![value.clone(), value]),
        name => Value::Object([(name.to_owned(), value)].into_iter().collect()),
    });
    let Value::Object(mut fields) = nested else { unreachable!("a path begins with a name") };
    fields.insert("kind".into(), kind.into());
    fields.insert("summary".into(), "quiet: elsewhere, undone".into());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_the_one_of_today_once_and_nothing_else_changes() {
        for (old, new) in examples() {
            let renamed = incident(&old.to_string()).unwrap_or_else(|| panic!("{old}"));
            assert_eq!(serde_json::from_str::<Value>(&renamed).expect("JSON"), new);
            assert_eq!(incident(&renamed), None, "{new}");
        }
        let other = r#"{"kind":"neighbour_table_full","details":{"others":1,"asked_ms":2},"cause":{"outcome":"quiet"}}"#;
        assert_eq!(incident(other), None);
        assert_eq!(incident("{}"), None);
        assert_eq!(incident("no JSON"), None);
    }

    #[test]
    fn no_name_of_earlier_versions_is_one_of_today() {
        let schema = crate::outputs::json::incident_schema().to_string();
        for (_, _, old, new) in FIELDS {
            assert!(schema.contains(&format!("\"{new}\":")), "{new}");
            assert!(!schema.contains(&format!("\"{old}\":")), "{old}");
        }
        for (_, path, old, new) in VALUES {
            let is_enum = |value: &str| schema.contains(&format!("\"const\":\"{value}\""));
            let is_text = |value: &str| schema.contains(&format!("`{value}`"));
            assert!(is_enum(new) || is_text(new), "{path:?} {new}");
            assert!(!is_enum(old), "{path:?} {old}");
        }
    }
}
