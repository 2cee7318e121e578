//! What a person looks at: which table, in which order, through which filter, which row, and what keys do to that.
//! Knows nothing of terminals but their keys.

use std::sync::Arc;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    collect::Snapshot,
    rows::{Row, Tab, rows},
};
use crate::pipeline::incident::Incident;

/// Characters of a filter at most.
const FILTER: usize = 64;

/// What lies over the table.
#[derive(Debug, Clone, Default)]
pub(super) enum Over {
    #[default]
    Nothing,
    Help,
    /// The evidence of an incident, and how far it is scrolled.
    Evidence(Arc<Incident>, u16),
}

/// How one table is looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct TableView {
    /// The column it is sorted by, and whether the largest comes first.
    pub(super) order: (usize, bool),
    /// The key of the row that is chosen, and where it stood.
    chosen: Option<String>,
    at: usize,
    /// The first row in sight.
    pub(super) top: usize,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) tab: Tab,
    pub(super) tables: [TableView; 3],
    pub(super) filter: String,
    /// The filter is being written.
    pub(super) writing: bool,
    pub(super) over: Over,
    pub(super) snapshot: Snapshot,
    /// The rows of this table that pass the filter, in order.
    pub(super) shown: Vec<Row>,
    /// Rows that fit on the screen, as it was drawn last.
    pub(super) page: usize,
}

impl View {
    pub(super) fn new() -> Self {
        let table_view = |tab: Tab| TableView { order: tab.order(), ..TableView::default() };
        Self { tables: Tab::ALL.map(table_view), page: 1, ..Self::default() }
    }

    /// What is shown from now on.
    pub(super) fn update(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
        if let Over::Evidence(shown, _) = &mut self.over
            && let Some((now, _)) = self.snapshot.incidents.iter().find(|(now, _)| now.id == shown.id)
        {
            *shown = now.clone();
        }
        self.arrange();
    }

    /// When an incident was reported, CLOCK_BOOTTIME.
    pub(super) fn emitted_ns(&self, id: &str) -> u64 {
        let emitted = self.snapshot.incidents.iter().find(|(incident, _)| incident.id == id);
        emitted.map_or(self.snapshot.now_ns, |(_, emitted)| *emitted)
    }

    pub(super) fn table_view(&self) -> &TableView {
        &self.tables[self.tab as usize]
    }

    /// Where the chosen row stands among those shown.
    pub(super) fn chosen(&self) -> Option<usize> {
        (!self.shown.is_empty()).then(|| self.table_view().at.min(self.shown.len() - 1))
    }

    /// Filters and sorts; the chosen row stays chosen wherever it goes, and when it goes away the one that takes its
    /// place is.
    fn arrange(&mut self) {
        let (column, largest_first) = self.table_view().order;
        self.shown = rows(&self.snapshot, self.tab);
        let filter = self.filter.to_lowercase();
        self.shown.retain(|row| filter.is_empty() || row.has(&filter));
        self.shown.sort_by(|one, other| one.compare(other, column, largest_first));
        let table_view = &mut self.tables[self.tab as usize];
        if let Some(at) = self.shown.iter().position(|row| Some(&row.key) == table_view.chosen.as_ref()) {
            table_view.at = at;
        }
        self.choose(self.table_view().at);
    }

    fn choose(&mut self, at: usize) {
        let at = at.min(self.shown.len().saturating_sub(1));
        let key = self.shown.get(at).map(|row| row.key.clone());
        let page = self.page.max(1);
        let table_view = &mut self.tables[self.tab as usize];
        table_view.at = at;
        table_view.chosen = key.or(table_view.chosen.take());
        table_view.top = table_view.top.min(at).max((at + 1).saturating_sub(page));
    }

    /// As many rows fit.
    pub(super) fn fits(&mut self, page: usize) {
        self.page = page;
        self.choose(self.table_view().at);
    }

    /// A key was pressed; `true`: it is over.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return true;
        }
        if self.writing {
            self.write(key.code, control);
            return false;
        }
        let page = self.page.max(1);
        match (&mut self.over, key.code) {
            (_, KeyCode::Char('q')) => return true,
            (Over::Nothing, KeyCode::Esc) if self.filter.is_empty() => return true,
            (Over::Nothing, KeyCode::Esc) => {
                self.filter.clear();
                self.arrange();
            }
            (_, KeyCode::Esc)
            | (Over::Evidence(..), KeyCode::Enter | KeyCode::Backspace)
            | (Over::Help, _) => {
                self.over = Over::Nothing;
            }
            (_, KeyCode::Char('?' | 'h') | KeyCode::F(1)) => self.over = Over::Help,
            (Over::Evidence(_, at), code) => {
                *at = match code {
                    KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
                    KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1),
                    KeyCode::PageUp => at.saturating_sub(page as u16),
                    KeyCode::PageDown | KeyCode::Char(' ') => at.saturating_add(page as u16),
                    KeyCode::Home | KeyCode::Char('g') => 0,
                    KeyCode::End | KeyCode::Char('G') => u16::MAX,
                    _ => *at,
                };
            }
            (Over::Nothing, code) => self.table_key(code, page),
        }
        false
    }

    fn table_key(&mut self, code: KeyCode, page: usize) {
        let at = self.table_view().at;
        let columns = self.tab.columns().len();
        let order = self.table_view().order;
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.choose(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(at + 1),
            KeyCode::PageUp => self.choose(at.saturating_sub(page)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.choose(at + page),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::Tab | KeyCode::Right => self.turn((self.tab as usize + 1) % 3),
            KeyCode::BackTab | KeyCode::Left => self.turn((self.tab as usize + 2) % 3),
            KeyCode::Char(digit @ '1'..='3') => self.turn(digit as usize - '1' as usize),
            KeyCode::Char('>' | '.') => self.sort((order.0 + 1) % columns, order.1),
            KeyCode::Char('<' | ',') => self.sort((order.0 + columns - 1) % columns, order.1),
            KeyCode::Char('r') => self.sort(order.0, !order.1),
            KeyCode::Char('/') => self.writing = true,
            KeyCode::Enter => {
                let row = self.chosen().and_then(|at| self.shown.get(at));
                if let Some(incident) = row.and_then(|row| row.incident.clone()) {
                    self.over = Over::Evidence(incident, 0);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, code: KeyCode, control: bool) {
        match code {
            KeyCode::Enter => self.writing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.writing = false;
            }
            KeyCode::Char('u') if control => self.filter.clear(),
            KeyCode::Char(c)
                if !control && !crate::text::hidden(c) && self.filter.chars().count() < FILTER =>
            {
                self.filter.push(c);
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            _ => {}
        }
        self.arrange();
    }

    fn turn(&mut self, to: usize) {
        self.tab = Tab::ALL[to];
        self.arrange();
    }

    fn sort(&mut self, column: usize, largest_first: bool) {
        self.tables[self.tab as usize].order = (column, largest_first);
        self.arrange();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::top::collect::Failing;

    fn failing(process: &str, count: u64) -> Failing {
        Failing {
            process: process.into(),
            destination: "192.0.2.1:80".into(),
            error: "refused (ECONNREFUSED)".into(),
            count,
            rate: count,
            last_ns: 0,
        }
    }

    fn view(rows: &[(&str, u64)]) -> View {
        let mut view = View::new();
        view.page = 10;
        update(&mut view, rows);
        press(&mut view, "3");
        view
    }

    fn update(view: &mut View, rows: &[(&str, u64)]) {
        let failing = rows.iter().map(|(process, count)| failing(process, *count)).collect();
        view.update(Snapshot { failing, ..Snapshot::default() });
    }

    fn press(view: &mut View, keys: &str) {
        for c in keys.chars() {
            assert!(!view.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
        }
    }

    fn names(view: &View) -> Vec<&str> {
        view.shown.iter().map(|row| row.cells[0].as_str()).collect()
    }

    fn special(view: &mut View, code: KeyCode) -> bool {
        view.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn rows_are_sorted_by_the_column_that_is_chosen_both_ways() {
        let mut view = view(&[("b[1]", 9), ("a[2]", 10), ("c[3]", 1)]);
        assert_eq!(names(&view), ["a[2]", "b[1]", "c[3]"]);
        press(&mut view, "r");
        assert_eq!(names(&view), ["c[3]", "b[1]", "a[2]"]);
        press(&mut view, ">>");
        assert_eq!(view.table_view().order, (0, false));
        press(&mut view, "r");
        assert_eq!(names(&view), ["c[3]", "b[1]", "a[2]"]);
    }

    #[test]
    fn a_filter_shows_what_has_it_in_any_case_and_escape_takes_it_away() {
        let mut view = view(&[("Nginx[1]", 1), ("raven[2]", 2)]);
        press(&mut view, "/nGINx");
        assert_eq!(names(&view), ["Nginx[1]"]);
        special(&mut view, KeyCode::Enter);
        assert!(!view.writing);
        assert!(!special(&mut view, KeyCode::Esc));
        assert_eq!(names(&view).len(), 2);
        assert!(special(&mut view, KeyCode::Esc), "nothing is left to leave");
    }

    #[test]
    fn while_a_filter_is_written_keys_are_letters_of_it() {
        let mut view = view(&[("a[1]", 1)]);
        press(&mut view, "/q?r\x1b");
        assert_eq!(view.filter, "q?r");
        assert!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), "^C always ends");
    }

    #[test]
    fn the_chosen_row_stays_chosen_when_it_moves_and_another_takes_its_place_when_it_goes() {
        let mut view = view(&[("a[1]", 3), ("b[2]", 2), ("c[3]", 1)]);
        press(&mut view, "j");
        update(&mut view, &[("a[1]", 3), ("b[2]", 20), ("c[3]", 1)]);
        assert_eq!(view.chosen(), Some(0));
        update(&mut view, &[("a[1]", 3), ("c[3]", 1)]);
        assert_eq!((view.chosen(), names(&view)[0]), (Some(0), "a[1]"));
        update(&mut view, &[]);
        assert_eq!(view.chosen(), None);
    }

    #[test]
    fn the_chosen_row_is_always_in_sight() {
        let many: Vec<(String, u64)> = (0..50).map(|n| (format!("p[{n}]"), n)).collect();
        let rows: Vec<(&str, u64)> = many.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        let mut view = view(&rows);
        press(&mut view, "G");
        assert_eq!((view.chosen(), view.table_view().top), (Some(49), 40));
        view.fits(5);
        assert_eq!(view.table_view().top, 45);
        press(&mut view, "g");
        assert_eq!((view.chosen(), view.table_view().top), (Some(0), 0));
    }
}
