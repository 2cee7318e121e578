//! Parse, dispatch, exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use culprit::{
    cli::{Cli, Command, List, Schema},
    clocks, doctor, list, neighbours, replay, run, sinks,
};

/// Something did not work.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("culprit: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Trace(options) => {
            let (session, output) = options.config();
            runtime()?.block_on(run::trace(&session, &output))
        }
        Command::Run(options) => {
            let (session, output) = options.config();
            runtime()?.block_on(run::trace(&session, &output))
        }
        Command::Record(options) => runtime()?.block_on(run::record(&options.config(), &options.file)),
        Command::Replay(options) => replay::replay(&options.config()),
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
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            write(&text)
        }
        Command::Schema { of: Schema::Stream } => write(&serde_json::to_vec_pretty(&sinks::json::schema())?),
        Command::Schema { of: Schema::Incident } => {
            write(&serde_json::to_vec_pretty(&sinks::json::incident_schema())?)
        }
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
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}
