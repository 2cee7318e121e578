//! Tables without rules: columns side by side, a heading above. On a terminal that is too narrow the columns are
//! as wide as what they hold, and the widest are broken at words.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING};

use super::cells;

/// How a column stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Column<'a> {
    /// What it is called.
    pub heading: &'a str,
    /// Cells that it has at least, where there is room.
    pub least: usize,
    /// Numbers stand to the right.
    pub right: bool,
    /// Its words may be broken over several lines.
    pub breaks: bool,
}

/// A table, `gap` blanks between its columns, with a newline at the end of every line.
pub fn table(columns: &[Column<'_>], rows: &[Vec<String>], gap: u16, width: Option<usize>) -> String {
    let whole = laid(columns, rows, gap, None);
    match width {
        Some(width) if whole.lines().any(|line| cells(line) > width) => laid(columns, rows, gap, Some(width)),
        _ => whole,
    }
}

fn laid(columns: &[Column<'_>], rows: &[Vec<String>], gap: u16, width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(columns.iter().map(|column| column.heading));
    table.add_rows(rows);
    table.set_content_arrangement(match width {
        Some(_) => ContentArrangement::Dynamic,
        None => ContentArrangement::Disabled,
    });
    if let Some(width) = width {
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    let last = columns.len().saturating_sub(1);
    for (at, (column, how)) in table.column_iter_mut().zip(columns).enumerate() {
        let gap = if at == last { 0 } else { gap };
        column.set_padding((0, gap));
        if how.right {
            column.set_cell_alignment(CellAlignment::Right);
        }
        match width {
            None => {
                let least = u16::try_from(how.least).unwrap_or(u16::MAX).saturating_add(gap);
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
            }
            Some(_) if !how.breaks => {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            Some(_) => {}
        }
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<'static>] = &[
        Column { heading: "NAME", least: 8, right: false, breaks: false },
        Column { heading: "COUNT", least: 0, right: true, breaks: false },
        Column { heading: "ABOUT", least: 0, right: false, breaks: true },
    ];

    fn rows() -> Vec<Vec<String>> {
        [["a", "12", "one two three four"], ["東京", "1", ""]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn columns_stand_side_by_side_and_a_pipe_breaks_none() {
        let wanted = "NAME      COUNT  ABOUT\na            12  one two three four\n東京          1\n";
        assert_eq!(table(COLUMNS, &rows(), 2, None), wanted);
        assert_eq!(table(COLUMNS, &rows(), 2, Some(80)), wanted);
    }

    #[test]
    fn a_narrow_terminal_breaks_words_in_the_columns_that_may_be_broken() {
        let narrow = table(COLUMNS, &rows(), 2, Some(24));
        assert!(narrow.lines().all(|line| cells(line) <= 24), "{narrow}");
        assert!(narrow.contains("one two") && narrow.contains("three four"), "{narrow}");
    }
}
