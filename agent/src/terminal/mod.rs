//! The terminal a person looks at: how wide is it, where may a line be broken, what stands in a table, and what
//! shows that a command is alive? Columns are counted in cells, as a terminal does. A pipe has no width: what
//! goes there is never broken. It refuses to know what a line says.

mod lines;
pub mod progress;
mod table;

use std::io::{self, IsTerminal};

use anstream::ColorChoice;
pub use lines::{Piece, lines, paragraph};
pub use table::{Column, table};
use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

/// Columns of a terminal that does not say how many it has.
const USUAL: usize = 80;
/// In less nothing can be laid out.
const LEAST: usize = 40;

/// Columns of the terminal that standard output goes to; nothing when it goes elsewhere.
pub fn width() -> Option<usize> {
    let out = io::stdout();
    out.is_terminal().then(|| columns(terminal_size_of(&out)))
}

/// The same of standard error.
pub fn width_of_talk() -> Option<usize> {
    let talk = io::stderr();
    talk.is_terminal().then(|| columns(terminal_size_of(&talk)))
}

fn columns(size: Option<(Width, terminal_size::Height)>) -> usize {
    let reported = size.map(|(Width(columns), _)| usize::from(columns)).filter(|&columns| columns > 0);
    reported.unwrap_or(USUAL).max(LEAST)
}

/// Whether standard output wants colours: a terminal that has them, NO_COLOR, CLICOLOR and CLICOLOR_FORCE.
pub fn colours() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Cells that a text takes.
pub fn cells(text: &str) -> usize {
    text.width()
}

/// A text followed by blanks, up to `width` cells.
pub fn padded(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(cells(text));
    format!("{text}{:blanks$}", "")
}

/// A text in `width` cells at most; what is cut is replaced by `…`.
pub fn cut(text: &str, width: usize) -> String {
    if cells(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        let wider = cells(&out) + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if wider + 1 > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_cells() {
        assert_eq!((cells("nginx"), cells("東京"), cells("µs→")), (5, 4, 3));
        assert_eq!((padded("東京", 6), padded("nginx", 3)), ("東京  ".into(), "nginx".into()));
        assert_eq!(
            (cut("東京都", 6), cut("東京都", 5), cut("東京都", 4)),
            ("東京都".into(), "東京…".into(), "東…".into())
        );
    }

    #[test]
    fn a_terminal_that_does_not_say_how_wide_it_is_has_eighty_columns() {
        let size = |columns| Some((Width(columns), terminal_size::Height(24)));
        assert_eq!((columns(None), columns(size(0)), columns(size(132))), (80, 80, 132));
        assert_eq!(columns(size(3)), LEAST);
    }
}
