//! The selectors in an expression of PromQL that promtool has found to be one.

/// A metric, and what its labels are compared with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Label and value, unquoted.
    pub(super) matchers: Vec<(String, String)>,
}

/// Words that are no metric where no parenthesis follows.
const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan"];
/// Words that may have a list of labels.
const BEFORE_LABELS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
/// They may have those before their parenthesis: `sum by (job) (x)`.
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

/// The selectors in `expression` that name a metric.
pub(super) fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' | '\'' | '`' => string(rest, first).1,
            '{' => matchers(rest).1,
            '[' => rest.find(']').map_or("", |end| &rest[end..]),
            '0'..='9' => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            _ if is_name(first) => {
                let (word, after) = name(rest);
                let next = after.trim_start();
                if BEFORE_LABELS.contains(&word) && next.starts_with('(') {
                    next.find(')').map_or("", |end| &next[end..])
                } else if next.starts_with('(')
                    || [WORDS, BEFORE_LABELS, AGGREGATIONS].concat().contains(&word.to_lowercase().as_str())
                {
                    after
                } else {
                    let (matchers, after) =
                        if next.starts_with('{') { matchers(next) } else { (vec![], after) };
                    found.push(Selector { metric: word.to_owned(), matchers });
                    after
                }
            }
            _ => &rest[first.len_utf8()..],
        };
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The name that `text` begins with, and what follows.
fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()))
}

/// The matchers in the braces that `text` begins with, and what follows.
fn matchers(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut label = "";
    let mut rest = &text[1..];
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '}' => return (found, &rest[1..]),
            '"' | '\'' | '`' => {
                let (value, after) = string(rest, first);
                found.push((label.to_owned(), value.to_owned()));
                after
            }
            _ if is_name(first) => {
                let after;
                (label, after) = name(rest);
                after
            }
            _ => &rest[first.len_utf8()..],
        };
    }
    (found, "")
}

/// The string that `text` begins with, and what follows.
fn string(text: &str, quote: char) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return (&text[1..at], &text[at + 1..]);
        }
        escaped = c == '\\' && !escaped && quote != '`';
    }
    (&text[1..], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_distinguished_from_functions_labels_strings_and_words() {
        let of = |expression: &str| {
            selectors(expression).into_iter().map(|selector| selector.metric).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("sum by (job, le) (rate(a_total{x=\"b}c\", y=~'d'}[5m])) > 0.5e3"), "a_total");
        assert_eq!(of("a / on (x) group_left (y) b unless c:d:e offset 5m or vector(0)"), "a b c:d:e");
        assert_eq!(of("a / on (x) group_left b"), "a b");
        assert_eq!(of("topk(10, sum(a)) and b"), "a b");
        assert_eq!(of("{__name__=\"x\"}"), "");
        assert_eq!(of("a{x=\"\\\"\"} + b"), "a b");
    }

    #[test]
    fn a_selector_has_its_labels() {
        let matchers =
            [("x", "b}c"), ("y", "d|e")].map(|(label, value)| (label.to_owned(), value.to_owned()));
        let selector = Selector { metric: "a".to_owned(), matchers: matchers.to_vec() };
        assert_eq!(selectors("rate(a{x=\"b}c\",y=~'d|e'}[5m])"), [selector]);
    }
}
