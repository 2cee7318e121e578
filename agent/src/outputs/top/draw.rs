//! A view on a screen. What colours say, words say too.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    evidence,
    rows::{Row, Tab, lasted_ns},
    view::{Over, View},
    words::{fit, wrap},
};
use crate::{
    pipeline::incident::Severity,
    text::{printable, thousands},
};

/// Lines about the chosen incident below the table.
const ABOUT: u16 = 4;

const HELP: &str = "\
Tables       1 2 3, Tab, ← →    incidents, pending, failing
Rows         ↑ ↓, k j           one up, one down; PgUp, PgDn, Home, End
Evidence     Enter              of the chosen incident; Esc goes back
Sort         < >                by the column to the left, to the right
             r                  the other way round; ▼ is largest first
Filter       /                  rows that have a text in any column; Enter keeps
                                it, Esc takes it away
Help         ?                  this
Quit         q, ^C              Esc, when nothing is open

Incidents    situations with a cause: CRIT, WARN, info; `over` has been resolved
Pending      connects (longer than 0.25 s), handshakes, lookups and neighbours
             under way
Failing      errors by process and destination: how many, how many in the last
             minute, how long ago the last was";

/// What is said of the machine.
pub(super) struct Head {
    pub(super) node: String,
    pub(super) probes: String,
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, head: &Head, colour: bool) {
    let about = if view.tab == Tab::Incidents && frame.area().height > 14 { ABOUT } else { 0 };
    let [top, tabs, titles, table, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(about),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let body = titles.union(table).union(below);
    view.fits(usize::from(if matches!(view.over, Over::Nothing) { table.height } else { body.height }));
    frame.render_widget(status(view, head, top.width), top);
    frame.render_widget(tab_bar(view, tabs.width), tabs);
    match view.over.clone() {
        Over::Nothing => {
            let widths = widths(view.tab, titles.width);
            frame.render_widget(titles_line(view, &widths), titles);
            rows(frame, table, view, &widths, colour);
            if about > 0 {
                frame.render_widget(chosen(view, below.width), below);
            }
        }
        Over::Help => frame.render_widget(Paragraph::new(HELP), body),
        Over::Evidence(incident, at) => {
            let lasted =
                lasted_ns(&incident, view.snapshot.now_ns.saturating_sub(view.emitted_ns(&incident.id)));
            let lines = evidence::lines(&incident, lasted, usize::from(body.width));
            let last = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(body.height);
            let at = at.min(last);
            view.over = Over::Evidence(incident, at);
            let in_sight = lines.into_iter().skip(usize::from(at)).take(usize::from(body.height));
            frame.render_widget(Paragraph::new(in_sight.map(Line::raw).collect::<Vec<_>>()), body);
        }
    }
    frame.render_widget(footer(view, foot.width), foot);
}

fn status<'a>(view: &View, head: &Head, width: u16) -> Line<'a> {
    let snapshot = &view.snapshot;
    let time = snapshot.wall.get(11..19).unwrap_or("");
    let lost = match snapshot.lost {
        0 => "none lost".to_owned(),
        lost => format!("{} LOST", thousands(lost as usize)),
    };
    let facts = thousands(snapshot.facts as usize);
    let text = format!("culprit top  {time} UTC  {}  {facts} events, {lost}  {}", head.node, head.probes);
    Line::raw(fit(&text, usize::from(width)))
}

fn tab_bar<'a>(view: &View, width: u16) -> Line<'a> {
    let snapshot = &view.snapshot;
    let open = snapshot.incidents.iter().filter(|(incident, _)| incident.resolved_at.is_none()).count();
    let counts = [open, snapshot.pending.len(), snapshot.failing.len()];
    let mut spans = Vec::new();
    for (at, tab) in Tab::ALL.into_iter().enumerate() {
        let more = if snapshot.left_out[at] > 0 {
            format!("+{}", thousands(snapshot.left_out[at]))
        } else {
            "".into()
        };
        let text = format!("{} {} {}{more}", at + 1, tab.title(), counts[at]);
        if tab == view.tab {
            spans.push(Span::styled(format!("[{text}]"), Style::new().add_modifier(Modifier::BOLD)));
        } else {
            spans.push(Span::raw(format!(" {text} ")));
        }
        spans.push(Span::raw(" "));
    }
    if !view.filter.is_empty() {
        spans.push(Span::raw(
            fit(&format!(" filter: {}", view.filter), usize::from(width / 3)).trim_end().to_owned(),
        ));
    }
    Line::from(spans)
}

/// The widths of a table's columns: what there is beyond 80 columns goes to those that grow; below, the last ones are
/// cut.
fn widths(tab: Tab, width: u16) -> Vec<usize> {
    let columns = tab.columns();
    let least: u16 = columns.iter().map(|column| column.width + 1).sum::<u16>() - 1;
    let parts: u16 = columns.iter().map(|column| column.grows).sum();
    let spare = width.saturating_sub(least);
    columns.iter().map(|column| usize::from(column.width + spare / parts.max(1) * column.grows)).collect()
}

fn titles_line<'a>(view: &View, widths: &[usize]) -> Line<'a> {
    let (sorted, largest_first) = view.table_view().order;
    let title = |(at, width): (usize, &usize)| {
        let mark = if at == sorted { if largest_first { "▼" } else { "▲" } } else { "" };
        fit(&format!("{}{mark}", view.tab.columns()[at].title), *width)
    };
    let titles: Vec<String> = widths.iter().enumerate().map(title).collect();
    Line::styled(titles.join(" "), Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}

fn rows(frame: &mut Frame<'_>, area: Rect, view: &View, widths: &[usize], colour: bool) {
    if view.shown.is_empty() {
        let nothing = match (view.filter.is_empty(), view.tab) {
            (false, _) => "nothing passes the filter: Esc takes it away",
            (true, Tab::Incidents) => "no incident is open",
            (true, Tab::Pending) => "nothing is pending",
            (true, Tab::Failing) => "nothing has failed",
        };
        return frame.render_widget(Line::raw(nothing), area);
    }
    let (top, chosen) = (view.table_view().top, view.chosen());
    let in_sight = view.shown.iter().enumerate().skip(top).take(usize::from(area.height));
    let lines: Vec<Line<'_>> = in_sight
        .map(|(at, row)| {
            let is_chosen = Some(at) == chosen;
            let cells: Vec<String> =
                row.cells.iter().zip(widths).map(|(cell, width)| fit(cell, *width)).collect();
            let mut text = cells.join(" ");
            if is_chosen {
                text = fit(&text, usize::from(area.width));
            }
            Line::styled(text, style(row, is_chosen, colour))
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn style(row: &Row, is_chosen: bool, colour: bool) -> Style {
    let style = if is_chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    match row.severity {
        Some(Severity::Critical) if colour => style.fg(Color::Red),
        Some(Severity::Warning) if colour => style.fg(Color::Yellow),
        _ => style,
    }
}

/// What the chosen incident says.
fn chosen<'a>(view: &View, width: u16) -> Paragraph<'a> {
    let row = view.chosen().and_then(|at| view.shown.get(at));
    let mut lines = vec![String::new()];
    if let Some(incident) = row.and_then(|row| row.incident.as_ref()) {
        lines.clear();
        wrap(&printable(&incident.summary), "", "", usize::from(width), &mut lines);
        if lines.len() > usize::from(ABOUT) - 1 {
            lines.truncate(usize::from(ABOUT) - 1);
            if let Some(last) = lines.last_mut() {
                *last = fit(&format!("{last} …"), usize::from(width));
            }
        }
        lines.insert(0, String::new());
    }
    Paragraph::new(lines.into_iter().map(Line::raw).collect::<Vec<_>>())
}

fn footer<'a>(view: &View, width: u16) -> Line<'a> {
    let text = match (&view.over, view.writing) {
        (_, true) => format!("/{}_   Enter keeps the filter, Esc takes it away", view.filter),
        (Over::Help, _) => "any key goes back  q quit".into(),
        (Over::Evidence(..), _) => "↑ ↓ scroll  Esc back  q quit".into(),
        (Over::Nothing, _) => {
            "Tab table  Enter evidence  < > sort  r reverse  / filter  ? help  q quit".into()
        }
    };
    Line::styled(fit(&text, usize::from(width)), Style::new().add_modifier(Modifier::REVERSED))
}
