//! What shows that a command is alive while it has nothing to say: one line on standard error that goes away.
//! Only where somebody looks: not in a pipe, and not where a log is wanted line by line.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Read, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A wait that is shorter is none.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the line moves.
const EVERY: Duration = Duration::from_millis(100);

/// The line that is shown now; talk has to go around it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A wait that is shown, until it is dropped.
pub struct Progress {
    bar: ProgressBar,
    began: Instant,
    shown: bool,
    wanted: bool,
}

impl Progress {
    /// A wait of unknown length: a moving sign and what is being done. It moves by itself.
    pub fn spinner(doing: &'static str, verbose: bool) -> Self {
        let progress = Self::new(ProgressBar::new_spinner(), "{spinner} {msg}", doing, verbose);
        if progress.wanted {
            progress.show();
            progress.bar.enable_steady_tick(EVERY);
        }
        progress
    }

    /// A file of so many bytes that is read; shown when that takes a while.
    pub fn file(doing: &'static str, bytes: Option<u64>, verbose: bool) -> Self {
        let (bar, template) = match bytes {
            Some(bytes) => {
                (ProgressBar::new(bytes), "{spinner} {msg}: {percent}% of {total_bytes}, {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {msg}: {bytes}"),
        };
        Self::new(bar, template, doing, verbose)
    }

    fn new(bar: ProgressBar, template: &str, doing: &'static str, verbose: bool) -> Self {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.set_message(doing);
        let log = std::env::var_os("RUST_LOG").is_some_and(|level| !level.is_empty());
        let wanted = io::stderr().is_terminal() && !verbose && !log;
        Self { bar, began: Instant::now(), shown: false, wanted }
    }

    fn show(&self) {
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.bar.clone());
    }

    /// Time has passed: a wait that turns out to be long is shown from now on.
    pub fn poke(&mut self) {
        if self.wanted && !self.shown && self.began.elapsed() >= PATIENCE {
            self.shown = true;
            self.show();
        }
        if self.shown {
            self.bar.tick();
        }
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

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Writes something while the line is out of the way.
pub fn around<T>(write: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error, for talk: it does not run into a line that shows progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Talk;

impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        around(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_counted_and_nothing_is_shown_where_nobody_looks() {
        let mut progress = Progress::file("reading", Some(5), true);
        let mut text = String::new();
        progress.reads(&b"hello"[..]).read_to_string(&mut text).expect("memory");
        progress.poke();
        assert_eq!((text.as_str(), progress.bar.position(), progress.shown), ("hello", 5, false));
    }
}
