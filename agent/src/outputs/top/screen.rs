//! The terminal: taken, drawn on and given back, however it ends. A thread of its own, so that a slow terminal holds
//! up nothing.

use std::{
    io::{self, Stdout, Write},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event,
        event::{Event, KeyEventKind},
        execute, terminal,
    },
};

use super::{
    collect::Snapshot,
    draw::{Head, draw},
    view::View,
};

/// How long a key or a snapshot may wait.
const WAIT: Duration = Duration::from_millis(100);

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the terminal, and sees to it that a panic gives it back before it is printed.
pub(super) fn take() -> io::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
    terminal::enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide).inspect_err(|_| give_back())
}

/// Gives it back as it was; once is enough.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        // No one is left to hear that it failed.
        let _ = execute!(out, terminal::LeaveAlternateScreen, cursor::Show);
        let _ = out.flush();
        let _ = terminal::disable_raw_mode();
    }
}

/// What the pipeline and the screen exchange besides snapshots.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The last snapshot was taken: another is wanted.
    pub(super) wanted: AtomicBool,
    /// It is to end.
    pub(super) closing: AtomicBool,
    /// A person has quit, a signal came, or the terminal is gone.
    pub(super) quit: AtomicBool,
}

/// Shows snapshots and obeys keys until a person quits.
pub(super) fn run(
    shared: &Arc<Shared>,
    snapshots: &Receiver<Snapshot>,
    head: &Head,
    colour: bool,
) -> io::Result<()> {
    let mut terminal: Terminal<CrosstermBackend<Stdout>> =
        Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut view = View::new();
    let mut changed = true;
    while !shared.closing.load(Ordering::SeqCst) {
        match snapshots.try_recv() {
            Ok(snapshot) => {
                view.update(snapshot);
                shared.wanted.store(true, Ordering::SeqCst);
                changed = true;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw(frame, &mut view, head, colour))?;
        }
        let mut wait = WAIT;
        while event::poll(wait)? {
            wait = Duration::ZERO;
            changed = true;
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && view.key(key)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}
