//! One table of options, three ways to set them: each flag of `culprit run` is also an environment variable
//! and a key of the configuration file. The table is clap's own; nothing is listed twice.

use std::{ffi::OsString, fs, path::Path};

use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use toml::de::{DeTable, DeValue};

use super::{Cli, Command};
use crate::config::RELOADED;

/// Read unless another is named.
const USUAL: &str = "/etc/culprit/culprit.toml";
/// Similarity from which a key is taken for a misspelling of another (Jaro-Winkler, 1 is equality).
const SIMILAR: f64 = 0.75;
/// A longer file is none of ours.
const LONGEST: u64 = 1 << 20;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
#[error("{file}{line}: {what}")]
pub struct Error {
    file: String,
    line: String,
    what: String,
}

/// An option of `culprit run`, as the reference page lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Option {
    /// Of the flag, without dashes.
    pub name: String,
    /// Key of the configuration file.
    pub key: String,
    /// Environment variable.
    pub variable: String,
    /// What it is for.
    pub about: String,
    /// What stands for its value; empty for a switch.
    pub value: String,
    /// The values it may have, when they are few.
    pub values: Vec<String>,
    /// By default.
    pub default: String,
    /// May be given several times; a list in the file.
    pub many: bool,
    /// Under what it is listed.
    pub heading: String,
    /// A reload changes it.
    pub reloads: bool,
}

/// Parses a command line, with the environment and, for `culprit run`, the configuration file.
///
/// # Errors
/// What is wrong with the command line or the environment (clap's, which knows how to be shown), or with the
/// file.
pub fn parse(args: &[OsString]) -> Result<Result<Cli, Error>, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let Some(("run", run)) = matches.subcommand() else {
        return made(&matches).map(Ok);
    };
    let named = run.get_one::<std::path::PathBuf>("config");
    let usual = Path::new(USUAL);
    let Some(path) = named.map(std::path::PathBuf::as_path).or_else(|| usual.is_file().then_some(usual))
    else {
        return made(&matches).map(Ok);
    };
    let settings = match read(path) {
        Ok(settings) => settings,
        Err(error) => return Ok(Err(error)),
    };
    let matches = command()
        .mut_subcommand("run", |run| {
            settings
                .into_iter()
                .fold(run, |run, (id, values)| run.mut_arg(id, |arg| arg.default_values(values)))
        })
        .try_get_matches_from(args)?;
    made(&matches).map(Ok)
}

fn made(matches: &ArgMatches) -> Result<Cli, clap::Error> {
    let mut cli = Cli::from_arg_matches(matches)?;
    if let (Command::Run(run), Some((_, found))) = (&mut cli.command, matches.subcommand()) {
        run.values = values(found);
    }
    Ok(cli)
}

/// The command line, every option of the daemon with its environment variable.
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_subcommand("run", |run| {
        run.mut_args(|arg| match variable(&arg) {
            Some(variable) => arg.env(variable).hide_env_values(true),
            None => arg,
        })
    })
}

fn variable(arg: &Arg) -> std::option::Option<String> {
    let name = arg.get_long().filter(|name| !["help", "version"].contains(name))?;
    Some(format!("CULPRIT_{}", name.replace('-', "_").to_uppercase()))
}

/// Every option of `culprit run` that a file may set.
#[must_use]
pub fn options() -> Vec<Option> {
    settable()
        .iter()
        .map(|arg| {
            let name = arg.get_long().unwrap_or_default().to_owned();
            let switch = !arg.get_action().takes_values();
            let values: Vec<String> = match switch {
                true => vec![],
                false => arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let (about, described) = match help.split_once(" [default: ") {
                Some((about, default)) => (about.to_owned(), default.trim_end_matches(']').to_owned()),
                None => (help, String::new()),
            };
            let defaults: Vec<String> =
                arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
            Option {
                key: key(&name),
                variable: variable(arg).unwrap_or_default(),
                about,
                value: match switch {
                    true => String::new(),
                    false => arg
                        .get_value_names()
                        .and_then(|names| names.first())
                        .map(ToString::to_string)
                        .unwrap_or_else(|| name.to_uppercase()),
                },
                values,
                default: match (switch, described.is_empty()) {
                    (true, _) => "false".into(),
                    (false, true) => defaults.join(","),
                    (false, false) => described,
                },
                many: matches!(arg.get_action(), ArgAction::Append),
                heading: arg.get_help_heading().unwrap_or("Other").to_owned(),
                reloads: RELOADED.contains(&name.as_str()),
                name,
            }
        })
        .collect()
}

/// The values every option has, however it got them.
fn values(run: &ArgMatches) -> Vec<(String, Vec<String>)> {
    settable()
        .iter()
        .map(|arg| {
            let id = arg.get_id().as_str();
            let raw = run.try_get_raw(id).ok().flatten().into_iter().flatten();
            let values = raw.map(|value| value.to_string_lossy().into_owned()).collect();
            (arg.get_long().unwrap_or_default().to_owned(), values)
        })
        .collect()
}

/// Options of `culprit run` that a file may set: all but those that name the file or end the daemon.
fn settable() -> Vec<Arg> {
    let command = command();
    let Some(run) = command.find_subcommand("run") else { return vec![] };
    let other = ["config", "help", "for"];
    run.get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|name| !other.contains(&name)))
        .cloned()
        .collect()
}

fn key(name: &str) -> String {
    name.replace('-', "_")
}

/// Options by id with their values, as the command line would have them.
fn read(path: &Path) -> Result<Vec<(String, Vec<OsString>)>, Error> {
    let file = path.display().to_string();
    let error = |line: String, what: String| Error { file: file.clone(), line, what };
    let fault = |why: &dyn std::fmt::Display| error(String::new(), why.to_string());
    let metadata = fs::metadata(path).map_err(|why| fault(&why))?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(fault(&"this is no configuration file: a TOML file of at most 1 MiB is wanted"));
    }
    let text = fs::read_to_string(path).map_err(|why| fault(&why))?;
    let at = |offset: usize| format!(":{}", text[..offset.min(text.len())].matches('\n').count() + 1);
    let table = DeTable::parse(&text).map_err(|why| {
        error(why.span().map_or(String::new(), |span| at(span.start)), why.message().to_owned())
    })?;
    let known = settable();
    let mut settings = Vec::new();
    for (name, value) in table.get_ref() {
        let line = at(name.span().start);
        let Some(arg) =
            known.iter().find(|arg| arg.get_long().map(key).as_deref() == Some(name.get_ref().as_ref()))
        else {
            return Err(error(line, unknown(name.get_ref(), &known)));
        };
        let values = texts(value.get_ref())
            .and_then(|values| check(arg, value.get_ref(), &values).map(|()| values))
            .map_err(|what| error(line, format!("{}: {what}", name.get_ref())))?;
        settings.push((arg.get_id().as_str().to_owned(), values.into_iter().map(Into::into).collect()));
    }
    Ok(settings)
}

fn unknown(name: &str, known: &[Arg]) -> String {
    let near = known
        .iter()
        .filter_map(|arg| arg.get_long())
        .map(|long| (strsim::jaro_winkler(&key(long), &key(name)), key(long)))
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(similarity, _)| *similarity >= SIMILAR);
    match near {
        Some((_, near)) => format!("there is no option {name}: did you mean {near}?"),
        None => {
            format!("there is no option {name}: docs/configuration.md lists them, and `culprit run --help`")
        }
    }
}

/// A value as the command line would have it.
fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    Ok(match value {
        DeValue::String(text) => vec![text.to_string()],
        DeValue::Integer(number) => vec![number.to_string()],
        DeValue::Float(number) => vec![number.to_string()],
        DeValue::Boolean(truth) => vec![truth.to_string()],
        DeValue::Array(values) => {
            let mut all = Vec::new();
            for value in values {
                match value.get_ref() {
                    DeValue::Array(_) => return Err("a list in a list".into()),
                    value => all.extend(texts(value)?),
                }
            }
            all
        }
        DeValue::Datetime(_) | DeValue::Table(_) => {
            return Err("a string, a number, true or false, or a list of them is wanted".into());
        }
    })
}

/// Whether the option takes these values; what clap says of one it does not.
fn check(arg: &Arg, value: &DeValue<'_>, values: &[String]) -> Result<(), String> {
    if !arg.get_action().takes_values() {
        return match value {
            DeValue::Boolean(_) => Ok(()),
            _ => Err("true or false is wanted".into()),
        };
    }
    let many = matches!(arg.get_action(), ArgAction::Append);
    if matches!(value, DeValue::Array(_)) && !many {
        return Err("one value is wanted, not a list".into());
    }
    let long = arg.get_long().unwrap_or_default();
    let args = values.iter().map(|value| format!("--{long}={value}"));
    let command = clap::Command::new("culprit").no_binary_name(true).arg(alone(arg));
    command.try_get_matches_from(args).map(drop).map_err(|error| {
        let text = error.to_string();
        let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let what = first.join(" ");
        let what = what.strip_prefix("error: ").unwrap_or(&what);
        // The flag's name says nothing to a person who wrote a file.
        match what.split_once(" for '--") {
            Some((before, after)) => match after.split_once('\'') {
                Some((_, after)) => format!("{before}{after}"),
                None => what.to_owned(),
            },
            None => what.to_owned(),
        }
    })
}

/// The option without what ties it to others or to the environment.
fn alone(arg: &Arg) -> Arg {
    arg.clone().env(None::<&'static str>).required(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli;

    fn run(file: &str, more: &[&str]) -> Result<cli::Run, String> {
        let mut config = tempfile::NamedTempFile::new().expect("a file");
        config.write_all(file.as_bytes()).expect("room");
        let path = config.path().display().to_string();
        let mut args: Vec<OsString> = ["culprit", "run", "--config", &path].map(Into::into).into();
        args.extend(more.iter().map(Into::into));
        match parse(&args).map_err(|why| why.to_string())? {
            Ok(Cli { command: cli::Command::Run(run) }) => Ok(*run),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string().replace(&path, "FILE")),
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "tls_stall = \"2s\"\nconnect_stall = \"5s\"\nno_syscalls = true\nwebhook = [\"http://a/\", \"http://b/\"]\nmetrics_top = 7\n";
        let run = run(file, &["--tls-stall", "4s"]).expect("sound");
        assert_eq!(run.thresholds.tls_stall.as_secs(), 4);
        assert_eq!(run.thresholds.connect_stall.as_secs(), 5);
        assert_eq!(run.keep.store_max_age.as_secs(), 30 * 86_400);
        assert!(run.filters.no_syscalls);
        assert_eq!(run.notify.webhook, ["http://a/", "http://b/"]);
        assert_eq!(run.serve.metrics_top, 7);
    }

    #[test]
    fn what_is_wrong_with_a_file_names_the_line_the_key_and_the_way_out() {
        let cases = [
            ("\ntls_stal = \"2s\"", "FILE:2: there is no option tls_stal: did you mean tls_stall?"),
            ("tls-stall = \"2s\"", "FILE:1: there is no option tls-stall: did you mean tls_stall?"),
            (
                "wibble = 1",
                "FILE:1: there is no option wibble: docs/configuration.md lists them, and `culprit run --help`",
            ),
            (
                "tls_stall = \"soon\"",
                "FILE:1: tls_stall: invalid value 'soon': soon does not begin with a number",
            ),
            ("format = \"xml\"", "FILE:1: format: invalid value 'xml' [possible values: text, json]"),
            ("no_syscalls = \"yes\"", "FILE:1: no_syscalls: true or false is wanted"),
            ("store = [\"a\", \"b\"]", "FILE:1: store: one value is wanted, not a list"),
            (
                "[wobble]\nlisten = 1",
                "FILE:1: there is no option wobble: docs/configuration.md lists them, and `culprit run --help`",
            ),
            ("ntp = [[\"a\"]]", "FILE:1: ntp: a list in a list"),
        ];
        for (file, wanted) in cases {
            assert_eq!(run(file, &[]).err().as_deref(), Some(wanted), "{file}");
        }
        assert!(run("tls_stall = ", &[]).is_err_and(|why| why.starts_with("FILE:1: ")));
        let missing = parse(&["culprit", "run", "-c", "/nonexistent.toml"].map(Into::into)).expect("sound");
        assert!(missing.is_err_and(|why| why.to_string().starts_with("/nonexistent.toml: No such file")));
    }

    #[test]
    fn every_option_has_a_key_and_a_variable_and_what_reloads_exists() {
        let options = options();
        assert!(
            options.iter().all(|option| !option.key.is_empty() && option.variable.starts_with("CULPRIT_"))
        );
        for name in RELOADED {
            assert!(options.iter().any(|option| option.name == *name), "{name}");
        }
    }
}
