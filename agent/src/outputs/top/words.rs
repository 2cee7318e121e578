//! Words of a row: processes, peers and times, escaped as lines of `trace` are, and cut to a width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{
    fact::Process,
    text::{duration::span, shown},
};

/// `nginx[1017]@blue shop/cart-7d9f`: in a narrow column the name matters most.
pub(super) fn who(process: Option<&Process>) -> String {
    let Some(process) = process else { return "-".into() };
    let place = process.belongs().map(|place| format!(" {place}")).unwrap_or_default();
    let netns = process.netns.as_ref().map(|netns| format!("@{}", shown(netns))).unwrap_or_default();
    format!("{}[{}]{netns}{place}", shown(&process.comm), process.pid)
}

/// A span of time in a narrow column.
pub(super) fn age(ns: u64) -> String {
    match ns {
        ns if ns < 60_000_000_000 => span(ns),
        ns => span(ns / 1_000_000_000 * 1_000_000_000)
            .replace(" min", "m")
            .replace(" s", "s")
            .replace(" h", "h"),
    }
}

/// Text in exactly so many columns; what is cut ends in `…`.
pub(super) fn fit(text: &str, width: usize) -> String {
    let mut out = String::new();
    if text.width() <= width {
        out.push_str(text);
    } else {
        let mut left = width.saturating_sub(1);
        for c in text.chars() {
            let columns = c.width().unwrap_or(0);
            if columns > left {
                break;
            }
            left -= columns;
            out.push(c);
        }
        out.push('…');
    }
    let used = out.width();
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    out
}

/// Text broken between words into lines of at most so many columns; a word that is longer is broken within.
pub(super) fn wrap(text: &str, first: &str, rest: &str, width: usize, lines: &mut Vec<String>) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.width() + 1 + word.width() > width {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        for c in word.chars() {
            if line.width() + c.width().unwrap_or(0) > width && line.width() > rest.width() {
                lines.push(std::mem::replace(&mut line, rest.to_owned()));
            }
            line.push(c);
        }
        empty = false;
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits_its_column_whatever_it_is_written_in() {
        assert_eq!(fit("nginx[7]", 10), "nginx[7]  ");
        assert_eq!(fit("nginx[70000]", 8), "nginx[7…");
        assert_eq!(fit("東京東京", 6), "東京… ");
    }

    #[test]
    fn long_text_is_broken_between_words_and_long_words_within() {
        let mut lines = Vec::new();
        wrap("one two threefourfive", "- ", "  ", 9, &mut lines);
        assert_eq!(lines, ["- one two", "  threefo", "  urfive"]);
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(1_500_000_000), age(61_000_000_000)], ["1.5 s", "1m 1s"]);
    }
}
