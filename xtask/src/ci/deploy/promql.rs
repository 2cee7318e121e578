//! The names of metrics in an expression of PromQL that promtool has found to be one.

use std::collections::BTreeSet;

/// Words that are no metric where no parenthesis follows.
const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan", "group_left", "group_right"];
/// Words before a list of labels.
const BEFORE_LABELS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names of metrics in `expression`.
pub(super) fn metrics(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' | '\'' | '`' => after_string(rest, first),
            // Selectors' labels are not metrics, nor are ranges; strings in them may hold anything.
            '{' => after_closing(rest, '}'),
            '[' => after_closing(rest, ']'),
            '0'..='9' => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
                let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                let parenthesis = after.trim_start().starts_with('(');
                if BEFORE_LABELS.contains(&word) && parenthesis {
                    after_closing(after.trim_start(), ')')
                } else {
                    if !parenthesis
                        && !WORDS.contains(&word.to_lowercase().as_str())
                        && !BEFORE_LABELS.contains(&word)
                        && !AGGREGATIONS.contains(&word)
                    {
                        found.insert(word.to_owned());
                    }
                    after
                }
            }
            _ => &rest[first.len_utf8()..],
        };
    }
    found
}

/// They may have their labels before the parenthesis: `sum by (job) (x)`.
const AGGREGATIONS: &[&str] = &[
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
];

/// What follows the string that `text` begins with.
fn after_string(text: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return &text[at + 1..];
        }
        escaped = c == '\\' && !escaped && quote != '`';
    }
    ""
}

/// What follows the closing bracket of the one that `text` begins with.
fn after_closing(text: &str, closing: char) -> &str {
    let mut rest = &text[1..];
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' | '\'' | '`' => after_string(rest, first),
            _ if first == closing => return &rest[1..],
            _ => &rest[first.len_utf8()..],
        };
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_from_functions_labels_strings_and_words() {
        let of = |expression: &str| metrics(expression).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of("sum by (job, le) (rate(a_total{x=\"b}c\", y=~'d'}[5m])) > 0.5e3"), "a_total");
        assert_eq!(of("a / on (x) group_left (y) b unless c:d:e offset 5m or vector(0)"), "a b c:d:e");
        assert_eq!(of("topk(10, sum(a)) and b"), "a b");
        assert_eq!(of("{__name__=\"x\"}"), "");
        assert_eq!(of("a{x=\"\\\"\"} + b"), "a b");
    }
}
