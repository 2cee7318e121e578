//! `culprit incidents` and `culprit show`: what a daemon has kept, from its store or from itself.

mod daemon;
mod fold;
mod print;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    config::Format,
    outputs::{
        json,
        store::{
            Store,
            read::{Found, Kept, Query},
        },
    },
    terminal::{self, progress::say},
    text::printable,
};

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A store.
    Store(PathBuf),
    /// A daemon.
    Daemon {
        /// Where it serves HTTP.
        url: String,
        /// Certificate authorities to trust, PEM; `None`: the system's.
        ca: Option<PathBuf>,
    },
}

/// Lists incidents, the newest last, where one looks first. In a table those that another one explains stand behind it,
/// counted, unless `all` are wanted.
///
/// # Errors
/// When the store or the daemon cannot be asked.
pub fn list(query: &Query, place: &Source, format: Format, all: bool) -> anyhow::Result<ExitCode> {
    let (mut found, more): (Vec<Value>, bool) = match place {
        Source::Store(path) => {
            let (kept, more) = Store::look(path)?.incidents(query)?;
            (kept.iter().map(parsed).collect::<anyhow::Result<_>>()?, more)
        }
        Source::Daemon { url, ca } => daemon::Client::new(url, ca.as_deref())?.incidents(query)?,
    };
    found.reverse();
    let mut out = Vec::new();
    let mut behind = BTreeMap::new();
    match format {
        Format::Json => {
            for incident in &found {
                json::write(incident, &mut out)?;
                out.push(b'\n');
            }
        }
        Format::Text => {
            if !all {
                (found, behind) = fold::fold(found);
            }
            print::table(&found, &behind, Timestamp::now(), terminal::width(), &mut out)?;
        }
    }
    io::stdout().write_all(&out)?;
    if found.is_empty() {
        say("no such incident is kept");
    } else if more {
        say("there are older ones: --limit shows more");
    }
    if !behind.is_empty() {
        say("(+N): so many more that this one explains: --all lists them");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows one incident.
///
/// # Errors
/// When there is none, or several end like that, or no daemon can be asked.
pub fn show(id: &str, place: &Source, format: Format) -> anyhow::Result<ExitCode> {
    let (json, text) = match place {
        Source::Store(path) => match Store::look(path)?.incident(id)? {
            Found::One(kept) => (kept.json, kept.text),
            Found::Nothing => {
                bail!("{id}: no incident of this id is kept: `culprit incidents` lists those that are")
            }
            Found::Several(ids) => bail!("{id}: several incidents end like that: {}", ids.join(", ")),
        },
        Source::Daemon { url, ca } => {
            let client = daemon::Client::new(url, ca.as_deref())?;
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                bail!("{id}: an incident's id has letters and digits only");
            }
            let form = |form: &str| client.ask(&format!("/api/v1/incidents/{id}?format={form}"));
            let text = if format == Format::Text { form("text")? } else { String::new() };
            (form("json")?, text)
        }
    };
    let mut out = io::stdout().lock();
    if format == Format::Json {
        // Another machine, or a store of earlier days, may hold what a terminal would take for commands.
        json.lines().try_for_each(|line| writeln!(out, "{}", printable(line)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let incident: Value = serde_json::from_str(&json).with_context(|| format!("incident {id}"))?;
    print::paragraph(&incident, &text, Timestamp::now(), terminal::width(), &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn parsed(kept: &Kept) -> anyhow::Result<Value> {
    serde_json::from_str(&kept.json).with_context(|| format!("incident {}", kept.id))
}
