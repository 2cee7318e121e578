//! Parse, dispatch, exit code.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory;
use culprit::{
    cli::{self, Cli, Command, List, Schema},
    clocks, config, doctor, incidents,
    kernel::timens,
    list, log, neighbours, outputs, replay, run,
    terminal::progress::say,
};

/// Something did not work.
const FAILED: u8 = 1;
/// The command line or the configuration says something that cannot be.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match cli::parse(&args) {
        Ok(Ok(cli)) => cli,
        Ok(Err(error)) => {
            say(error);
            return ExitCode::from(USAGE);
        }
        // Help and version too; clap knows which of them is which.
        Err(error) => error.exit(),
    };
    match dispatch(&cli.command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Trace(options) => {
            timens::join_initial()?;
            log::plain();
            let (session, output) = options.config();
            let doing = if session.spec.quiet { "watching" } else { "tracing" };
            let outputs = config::Outputs { printed: Some(output), ..config::Outputs::default() };
            runtime()?.block_on(run::session(&session, &outputs, Some(doing)))
        }
        Command::Run(options) => {
            timens::join_initial()?;
            let config = options.config();
            let level = log::daemon(config.log_format, config.log_level);
            runtime()?.block_on(run::daemon::run(config, level, Box::new(again)))
        }
        Command::Top(options) => {
            // Before anything that takes time, or privileges.
            outputs::top::check()?;
            timens::join_initial()?;
            log::plain();
            let (session, colour) = options.config();
            let outputs = config::Outputs { screen: Some(colour), ..config::Outputs::default() };
            runtime()?.block_on(run::session(&session, &outputs, None))
        }
        Command::Why(options) => {
            timens::join_initial()?;
            log::plain();
            runtime()?.block_on(run::why::why(&options.config()))
        }
        Command::Record(options) => {
            timens::join_initial()?;
            log::plain();
            let session = options.config();
            let recording = config::Recording {
                file: options.file.clone(),
                force: options.force,
                // A command may write to the same terminal.
                progress: session.command.is_empty(),
            };
            let outputs = config::Outputs { recording: Some(recording), ..config::Outputs::default() };
            runtime()?.block_on(run::session(&session, &outputs, Some("recording")))
        }
        Command::Replay(options) => replay::replay(&options.config()),
        Command::Incidents(options) => {
            incidents::list(&options.query(), &options.place(), options.format, options.all)
        }
        Command::Show(options) => incidents::show(&options.id, &options.place(), options.format),
        Command::Doctor(options) => doctor::doctor(&options.config()),
        Command::List { what: List::Probes { format } } => list::probes(*format),
        Command::List { what: List::Rules { format } } => list::rules(*format),
        Command::List { what: List::Neighbours { format } } => neighbours::list(*format),
        Command::List { what: List::Clocks { ntp, format } } => clocks::list(ntp, *format),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "culprit", &mut text);
            write(&text)
        }
        Command::Man { into: Some(directory) } => {
            clap_mangen::generate_to(Cli::command(), directory)
                .with_context(|| format!("writing manual pages into {}", directory.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { into: None } => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            write(&text)
        }
        Command::Schema { of: Schema::Stream } => {
            write(&serde_json::to_vec_pretty(&outputs::json::schema())?)
        }
        Command::Schema { of: Schema::Incident } => {
            write(&serde_json::to_vec_pretty(&outputs::json::incident_schema())?)
        }
    }
}

/// The daemon's configuration, read as it was at the start.
fn again() -> anyhow::Result<config::Daemon> {
    let args: Vec<OsString> = std::env::args_os().collect();
    match cli::parse(&args).map_err(|error| anyhow::anyhow!(error.to_string()))??.command {
        Command::Run(options) => Ok(options.config()),
        _ => anyhow::bail!("the command line is no longer that of a daemon"),
    }
}

/// In one piece, so that only our own error can be a reader that went away: the libraries that make
/// these texts panic on it, or hide it.
fn write(text: &[u8]) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text)?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        // Its source is what the I/O error has as source, not the I/O error.
        io.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind())
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
