//! A line broken at words, the rest hanging below it. What must stay whole (a command that is pasted by half is
//! another command) is left to the terminal.

use anstyle::Style;
use textwrap::{core::Fragment, wrap_algorithms::wrap_first_fit};

use super::cells;

/// A part of a line.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    text: &'a str,
    breaks: bool,
    /// A number stays with its unit.
    units: bool,
    style: Style,
}

/// Units that stand after a number.
const UNITS: &[&str] = &["ns", "µs", "ms", "s", "min", "h", "day", "days", "KiB", "MiB", "GiB", "ppm"];

impl<'a> Piece<'a> {
    /// Text that may be broken where it has a blank.
    pub fn words(text: &'a str) -> Self {
        Self { text, breaks: true, units: false, style: Style::new() }
    }

    /// The same of sentences: a number is not parted from its unit.
    pub fn prose(text: &'a str) -> Self {
        Self { units: true, ..Self::words(text) }
    }

    /// Text that stays whole, with what it touches.
    pub fn whole(text: &'a str) -> Self {
        Self { text, breaks: false, units: false, style: Style::new() }
    }

    /// The same in colour.
    pub fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// The same without.
    pub fn plain(self) -> Self {
        self.style(Style::new())
    }
}

/// What stands between two places where a line may be broken, with the blanks after it.
#[derive(Debug, Default)]
struct Chunk<'a> {
    parts: Vec<(&'a str, Style)>,
    cells: usize,
    blanks: usize,
}

impl Fragment for Chunk<'_> {
    fn width(&self) -> f64 {
        self.cells as f64
    }

    fn whitespace_width(&self) -> f64 {
        self.blanks as f64
    }

    fn penalty_width(&self) -> f64 {
        0.0
    }
}

/// Lines of at most `width` columns, of which `first` are taken on the first and `rest` on those after it: those
/// are the caller's to write. Without a width it is one line.
pub fn lines<'a>(
    pieces: impl IntoIterator<Item = Piece<'a>>,
    first: usize,
    rest: usize,
    width: Option<usize>,
) -> Vec<String> {
    let mut chunks = vec![Chunk::default()];
    for Piece { text, breaks, units, style } in pieces {
        if !breaks {
            add(&mut chunks, text, style);
            continue;
        }
        let mut before = "";
        for (at, word) in text.split(' ').enumerate() {
            if at > 0 && units && is_number(before) && is_unit(word) {
                add(&mut chunks, " ", style);
            } else if at > 0
                && let Some(last) = chunks.last_mut()
            {
                last.blanks += 1;
            }
            if !word.is_empty() {
                add(&mut chunks, word, style);
            }
            before = word;
        }
    }
    let room = |taken: usize| width.map_or(f64::MAX, |width| width.saturating_sub(taken) as f64);
    wrap_first_fit(&chunks, &[room(first), room(rest)]).into_iter().map(written).collect()
}

fn is_number(word: &str) -> bool {
    word.ends_with(|last: char| last.is_ascii_digit())
}

fn is_unit(word: &str) -> bool {
    UNITS.contains(&word.trim_end_matches(|last: char| !last.is_alphabetic()))
}

fn add<'a>(chunks: &mut Vec<Chunk<'a>>, text: &'a str, style: Style) {
    if chunks.last().is_none_or(|last| last.blanks > 0) {
        chunks.push(Chunk::default());
    }
    if let Some(last) = chunks.last_mut() {
        last.cells += cells(text);
        last.parts.push((text, style));
    }
}

fn written(line: &[Chunk<'_>]) -> String {
    let mut out = String::new();
    let mut current = Style::new();
    for (at, chunk) in line.iter().enumerate() {
        for (text, style) in &chunk.parts {
            if *style != current {
                out += &format!("{}{}", current.render_reset(), style.render());
                current = *style;
            }
            out.push_str(text);
        }
        if at + 1 < line.len() {
            out.extend(std::iter::repeat_n(' ', chunk.blanks));
        }
    }
    out + &current.render_reset().to_string()
}

/// A text as lines that begin with `first`, and those after it with as many blanks.
pub fn paragraph(first: &str, text: &str, width: Option<usize>) -> String {
    let taken = cells(first);
    lines([Piece::prose(text)], taken, taken, width).join(&format!("\n{:taken$}", ""))
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_broken_between_words_and_a_pipe_breaks_none() {
        let text = "one two  three 東京 four";
        let at = |width| lines([Piece::words(text)], 2, 4, width);
        assert_eq!(at(None), [text]);
        assert_eq!(at(Some(14)), ["one two", "three 東京", "four"]);
        assert_eq!(at(Some(1)), ["one", "two", "three", "東京", "four"]);
    }

    #[test]
    fn what_must_stay_whole_does_with_what_it_touches() {
        let pieces = [Piece::words("run "), Piece::whole("ip -4 link"), Piece::words(", then look")];
        assert_eq!(lines(pieces, 0, 0, Some(8)), ["run", "ip -4 link,", "then", "look"]);
    }

    #[test]
    fn a_number_stays_with_its_unit_in_sentences() {
        let at = |piece, width| lines([piece], 0, 0, Some(width));
        let text = "waits for 2.1 s, or 15 min 35 s (so far)";
        assert_eq!(at(Piece::prose(text), 13), ["waits for", "2.1 s, or", "15 min 35 s", "(so far)"]);
        assert_eq!(at(Piece::words(text), 13)[0], "waits for 2.1");
    }

    #[test]
    fn a_colour_ends_with_its_line() {
        let red = AnsiColor::Red.on_default();
        let pieces = [Piece::words("a "), Piece::words("b c").style(red)];
        assert_eq!(lines(pieces, 0, 0, Some(3)), ["a \x1b[31mb\x1b[0m", "\x1b[31mc\x1b[0m"]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_line_is_too_long(text in "[a-z東 ]{0,80}", width in 1usize..40) {
            let broken = lines([Piece::words(&text)], 0, 0, Some(width));
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&broken.join(" ")), words(&text));
            for line in broken {
                prop_assert!(cells(&line) <= width || !line.trim().contains(' '), "{:?}", line);
            }
        }
    }
}
