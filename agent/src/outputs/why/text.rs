//! The answer as a tree for people: processes, what their threads do, what that waits for, and the incidents in full.

use std::io::{self, Write};

use super::{
    answer::{Answer, Doing, On, Waiter},
    called,
    waits::Wait,
};
use crate::{
    outputs::text::{Incidents, Style, Watch, tries},
    terminal::{Piece, lines},
    text::printable,
};

/// Threads named by number, at most.
const NAMED: usize = 4;
/// Columns where nothing says how many there are.
const WIDTH: usize = 118;

/// Writes it.
pub(super) fn write(answer: &Answer<'_>, style: Style, out: &mut impl Write) -> io::Result<()> {
    for process in &answer.processes {
        line(&format!("{}{}", called(&process.comm, process.pid), threads(process)), "", "    ", style, out)?;
        inside(process, "", style, out)?;
    }
    if answer.cut {
        writeln!(out, "There is more than is followed here.")?;
    }
    if !answer.remedies.is_empty() {
        writeln!(out)?;
        tries(&answer.remedies, "", style, out)?;
    }
    let mut incidents = Incidents::default();
    for incident in &answer.incidents {
        incidents.call(incident);
    }
    for incident in &answer.incidents {
        incidents.paragraph(incident, Watch::Stopped, style, out)?;
    }
    if !answer.waits {
        writeln!(out, "Nothing is waiting on anything outside.")?;
    }
    Ok(())
}

fn threads(process: &Waiter) -> String {
    let all = process.threads.iter().map(|doing| doing.tids.len()).sum::<usize>()
        + process.threads_left_out as usize;
    if process.again {
        "  (see above)".into()
    } else if all == 1 {
        "  1 thread".into()
    } else {
        format!("  {all} threads")
    }
}

/// What stands below a process: its threads, then what no thread in particular waits for.
fn inside(process: &Waiter, indent: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let count = process.threads.len() + process.waits.len() + process.on.len();
    for (at, doing) in process.threads.iter().enumerate() {
        let (branch, below) = branches(indent, at + 1 == count);
        line(&format!("{}: {}", named(doing), doing.text), &branch, &below, style, out)?;
        leaves(&doing.waits, &doing.on, &below, style, out)?;
    }
    leaves(&process.waits, &process.on, indent, style, out)
}

/// What is waited for, and the processes that are.
fn leaves(waits: &[Wait], on: &[On], indent: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let count = waits.len() + on.len();
    for (at, wait) in waits.iter().enumerate() {
        let (branch, below) = branches(indent, at + 1 == count);
        line(&wait.text, &branch, &below, style, out)?;
    }
    for (at, on) in on.iter().enumerate() {
        let (branch, below) = branches(indent, waits.len() + at + 1 == count);
        let who = called(&on.process.comm, on.process.pid);
        let text = format!("waits for {who} ({}){}", on.by, threads(&on.process));
        line(&text, &branch, &below, style, out)?;
        inside(&on.process, &below, style, out)?;
    }
    Ok(())
}

fn branches(indent: &str, last: bool) -> (String, String) {
    if last {
        (format!("{indent}└─ "), format!("{indent}   "))
    } else {
        (format!("{indent}├─ "), format!("{indent}│  "))
    }
}

/// `thread 44`, `3 threads`.
fn named(doing: &Doing) -> String {
    match doing.tids.as_slice() {
        [tid] => format!("thread {tid}"),
        tids if tids.len() <= NAMED => {
            format!("threads {}", tids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
        }
        tids => format!("{} threads", tids.len()),
    }
}

fn line(text: &str, first: &str, rest: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let (text, width) = (printable(text), style.width.unwrap_or(WIDTH));
    let mut lead = first;
    let pieces = [Piece::words(&text).plain()];
    for part in lines(pieces, crate::terminal::cells(first), crate::terminal::cells(rest), Some(width)) {
        writeln!(out, "{lead}{part}")?;
        lead = rest;
    }
    Ok(())
}
