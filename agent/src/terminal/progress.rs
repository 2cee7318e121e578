//! Talk, and what shows that a command is alive while it has nothing to say: one line on standard error that goes
//! away. Only where a person looks: not in a pipe, and not where a log is wanted line by line.

use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal, Read, Write},
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Piece, lines, width_of_talk};

/// A wait that is shorter is none.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the line moves.
const EVERY: Duration = Duration::from_millis(100);

/// The line that is shown now; talk has to go around it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A wait that is shown when it turns out to be long, until it is dropped.
pub struct Progress {
    bar: ProgressBar,
    /// Who shows it, and how that one hears that there is nothing to wait for any more.
    shows: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// A wait of unknown length: a moving sign and what is being done.
    pub fn spinner(doing: &'static str, verbose: bool) -> Self {
        Self::new(ProgressBar::new_spinner(), "{spinner} {msg}", doing, verbose)
    }

    /// A file that is read, of so many bytes when that is known.
    pub fn file(doing: &'static str, bytes: Option<u64>, verbose: bool) -> Self {
        match bytes {
            Some(bytes) => {
                let template = "{spinner} {msg}: {percent}% of {total_bytes}, {eta} left";
                Self::new(ProgressBar::new(bytes), template, doing, verbose)
            }
            None => Self::new(ProgressBar::new_spinner(), "{spinner} {msg}: {bytes}", doing, verbose),
        }
    }

    fn new(bar: ProgressBar, template: &str, doing: &'static str, verbose: bool) -> Self {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.set_message(doing);
        let logs = std::env::var_os("RUST_LOG").is_some_and(|level| !level.is_empty());
        let wanted = io::stderr().is_terminal() && !verbose && !logs;
        Self { shows: wanted.then(|| show(bar.clone())), bar }
    }

    /// What is being done, in other words.
    pub fn say(&self, doing: impl Into<Cow<'static, str>>) {
        self.bar.set_message(doing);
    }

    /// Counts what is read.
    pub fn reads<R: Read>(&self, input: R) -> impl Read + use<R> {
        self.bar.wrap_read(input)
    }
}

/// Shows a wait when it has lasted for a while.
fn show(bar: ProgressBar) -> (Sender<()>, JoinHandle<()>) {
    let (over, waits) = channel();
    let shows = thread::spawn(move || {
        if waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(EVERY);
            *shown = Some(bar);
        }
    });
    (over, shows)
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Some((over, shows)) = self.shows.take() else { return };
        drop(over);
        // It does nothing that could fail.
        let _ = shows.join();
        let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        self.bar.finish_and_clear();
        *shown = None;
    }
}

/// Writes something while the line is out of the way.
pub fn around<T>(write: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error, for talk: broken at words on a terminal, and never in the middle of a line that shows progress.
/// Each write is whole lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Talk;

impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let said = match width_of_talk() {
            Some(width) => broken(&String::from_utf8_lossy(bytes), width).into_bytes(),
            None => bytes.to_vec(),
        };
        around(|| io::stderr().write_all(&said))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn broken(text: &str, width: usize) -> String {
    let broken = |line| lines([Piece::words(line)], 0, 2, Some(width)).join("\n  ") + "\n";
    text.lines().map(broken).collect()
}

/// Says something on standard error.
pub fn say(what: impl fmt::Display) {
    // There is no one left to hear that standard error is gone.
    let _ = Talk.write_all(format!("culprit: {what}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_counted_and_nothing_is_shown_where_a_log_is_wanted() {
        let progress = Progress::file("reading", Some(5), true);
        let mut text = String::new();
        progress.reads(&b"hello"[..]).read_to_string(&mut text).expect("memory");
        assert_eq!((text.as_str(), progress.bar.position()), ("hello", 5));
        assert!(progress.shows.is_none());
    }

    #[test]
    fn talk_is_broken_at_words() {
        assert_eq!(broken("culprit: one two three\nfour\n", 16), "culprit: one two\n  three\nfour\n");
    }
}
