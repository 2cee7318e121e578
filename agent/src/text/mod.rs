//! Names that strangers choose, as people see them: is there anything in a string that a terminal or a
//! browser would not show, and how does a name stand in a sentence so that no reader takes it for part of it?
//!
//! Threads, devices, namespaces, units, pods, files, DNS names and SNI are written by anyone. They are data:
//! kept whole in records and in JSON, and shown by [`shown`] (bounded, quoted where needed, escaped) and
//! [`printable`] (escaped). It refuses to know what a name is for.

use std::{borrow::Cow, fmt::Write as _};

pub mod duration;
pub mod host;
pub mod shell;

/// `1 incident`.
pub fn count_of_incidents(incidents: u64) -> String {
    match incidents {
        0 => "no incident".to_owned(),
        1 => "1 incident".to_owned(),
        many => format!("{many} incidents"),
    }
}

/// Characters of a name that are shown; what is longer is cut and its length said.
pub const SHOWN: usize = 128;

/// Whether a terminal or a browser shows nothing for a character, or does something else on it: controls,
/// line and paragraph separators, spaces other than the common one, bidi and zero-width formatting, tags,
/// variation selectors, combining marks without their letter, private and unassigned code points.
pub fn hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // Letters and symbols by their category, and blank all the same.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => true,
        c => c.escape_debug().len() > 1,
    }
}

/// Text with all that is [`hidden`] escaped, as Rust writes it: `\n`, `\u{202e}`. What is visible stays as it
/// is, so that text which was escaped once is not escaped again.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push(c, &mut out);
    }
    Cow::Owned(out)
}

fn push(c: char, out: &mut String) {
    match c {
        c if !hidden(c) => out.push(c),
        '\n' | '\r' | '\t' => out.extend(c.escape_default()),
        c => out.extend(c.escape_unicode()),
    }
}

/// A name within a sentence. Letters, digits and `. _ - + : / @ % #` stand as they are; anything else is put
/// in quotes, with quotes, backslashes and all that is [`hidden`] escaped, and cut after [`SHOWN`] characters:
/// `nginx`, `"GC Thread 0"`, `"x\n[1] is to blame"`, `"aaaa…" (1,700 bytes)`.
pub fn shown(name: &str) -> Cow<'_, str> {
    if plain(name) { Cow::Borrowed(name) } else { Cow::Owned(quoted(name)) }
}

fn plain(name: &str) -> bool {
    // How this program itself calls a namespace that has no name.
    let inner = name.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:/@%#".contains(&byte);
    // An IPv6 address with a port has brackets.
    let is_socket = || name.parse::<std::net::SocketAddr>().is_ok();
    !inner.is_empty() && inner.len() <= SHOWN && (inner.bytes().all(is_plain) || is_socket())
}

fn quoted(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(SHOWN) + 16);
    out.push('"');
    let mut chars = name.chars();
    for c in chars.by_ref().take(SHOWN) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c => push(c, &mut out),
        }
    }
    if chars.next().is_some() {
        let _ = write!(out, "…\" ({} bytes)", thousands(name.len()));
    } else {
        out.push('"');
    }
    out
}

/// `1,700`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_does_not_show_is_escaped() {
        for (text, shown) in [
            ("plain words: ok", "plain words: ok"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31m", "\\u{1b}[31m"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{202e}fdp", "\\u{202e}fdp"),
            ("\u{2066}a\u{2069}", "\\u{2066}a\\u{2069}"),
            ("a\u{200b}b\u{feff}\u{2060}\u{ad}", "a\\u{200b}b\\u{feff}\\u{2060}\\u{ad}"),
            ("\u{2028}\u{2029}\u{85}", "\\u{2028}\\u{2029}\\u{85}"),
            ("\u{e0041}\u{fe0f}\u{e0100}", "\\u{e0041}\\u{fe0f}\\u{e0100}"),
            ("\u{3164}\u{2800}\u{a0}", "\\u{3164}\\u{2800}\\u{a0}"),
            ("Straße → 東京 · µs", "Straße → 東京 · µs"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
            assert_eq!(printable(shown), shown, "escaped once is enough");
        }
    }

    #[test]
    fn a_name_that_could_be_taken_for_words_stands_in_quotes() {
        for (text, wanted) in [
            ("nginx", "nginx"),
            ("kworker/u4:2", "kworker/u4:2"),
            ("getty@tty1.service", "getty@tty1.service"),
            ("net:[4026531840]", "net:[4026531840]"),
            ("net:[40] x", "\"net:[40] x\""),
            ("", "\"\""),
            ("x is to blame.", "\"x is to blame.\""),
            ("a[1] \"b\"\\", "\"a[1] \\\"b\\\"\\\\\""),
            (";curl${IFS}a|sh", "\";curl${IFS}a|sh\""),
            ("пример", "\"пример\""),
        ] {
            assert_eq!(shown(text), wanted);
        }
    }

    #[test]
    fn a_long_name_is_cut_and_its_length_said() {
        let long = "nginx ".repeat(300);
        let shown = super::shown(&long);
        assert!(shown.starts_with("\"nginx nginx") && shown.ends_with("…\" (1,800 bytes)"), "{shown}");
        assert!(
            super::shown(&"a".repeat(SHOWN)).len() == SHOWN
                && super::shown(&"a".repeat(SHOWN + 1)).ends_with("(129 bytes)")
        );
    }

    #[test]
    fn numbers_are_grouped_in_threes() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_sizes_are_bounded(text in "\\PC*|.*|(?s).*") {
            let shown = super::shown(&text).into_owned();
            prop_assert!(!shown.chars().any(hidden), "{shown:?}");
            prop_assert!(!printable(&text).chars().any(hidden));
            // The longest escape is `\u{10ffff}`.
            prop_assert!(shown.chars().count() <= SHOWN * 10 + 32);
            prop_assert_eq!(printable(&shown).into_owned(), shown);
        }
    }
}
