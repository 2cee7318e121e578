//! Talk: what is said on standard error while data goes elsewhere. Ad hoc commands speak in plain lines; the
//! daemon keeps a log, as text or JSON, whose level a reload may change.

use std::{
    fmt,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
};

use crate::{
    config::{LogFormat, LogLevel},
    terminal::progress,
};

/// Changes what is logged.
pub struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// From now on this much.
    pub fn set(&self, level: LogLevel) {
        // The subscriber lives as long as the process.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// The daemon's log.
pub fn daemon(format: LogFormat, level: LogLevel) -> Level {
    let (filter, handle) = reload::Layer::new(filter(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    // A second subscriber in one process is a test's.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(registry.with(layer)),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(registry.with(layer.json().flatten_event(true)))
        }
    };
    Level(handle)
}

/// Of a command a person looks at: `culprit: ` and what there is to say.
pub fn plain() {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| Talk)
        .with_ansi(false)
        .event_format(Plain)
        .fmt_fields(DefaultFields::new());
    let _ = tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(LevelFilter::INFO).with(layer),
    );
}

/// What is said while a screen is drawn on, at most; the rest is dropped.
const HELD: usize = 1 << 16;
static HELD_BACK: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Keeps what is said from now on, for [`release`] to say: something else is on the terminal.
pub fn hold() {
    HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// Says what was kept, and from now on everything at once.
pub fn release() {
    if let Some(kept) = HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // As with any talk: there may be no one to hear it.
        let _ = progress::Talk.write_all(&kept);
    }
}

/// Standard error, unless talk is kept.
struct Talk;

impl io::Write for Talk {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(kept) if kept.len() < HELD => kept.extend_from_slice(text),
            Some(_) => {}
            None => return progress::Talk.write(text),
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "culprit: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
