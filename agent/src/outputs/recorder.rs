//! A recording as an output: records as the kernel made them and context, so that `replay` gives the same again.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;

use super::{Kind, Output, SoFar};
use crate::{
    config,
    fact::{Start, Summary},
    known::context::Context,
    pipeline::incident::Incident,
    record::{self, Writer},
    terminal::progress::Progress,
    text::count_of_incidents,
    time::{boot_ns, realtime_ns},
};

/// Recordings, among the outputs.
pub(super) const KIND: Kind = Kind {
    open: |outputs| {
        let Some(recording) = outputs.recording.clone() else { return Ok(None) };
        // A pipe or a device may be there.
        let (path, force) = (&recording.file, recording.force);
        anyhow::ensure!(
            force || !path.metadata().is_ok_and(|there| there.is_file()),
            "{}: it exists: give another name, or --force to overwrite it",
            path.display()
        );
        Ok(Some(Box::new(move |start| Ok(Box::new(Recorder::create(&recording, start)?)))))
    },
};

/// Writes a recording.
pub struct Recorder {
    writer: Option<Writer<Box<dyn Write>>>,
    /// Shows that it is alive where nothing else does.
    progress: Option<Progress>,
}

impl Recorder {
    /// Begins a recording.
    ///
    /// # Errors
    /// The file cannot be written.
    fn create(recording: &config::Recording, start: &Start) -> anyhow::Result<Self> {
        let path = &recording.file;
        // Nothing else shows that it is alive.
        let progress = recording.progress.then(|| Progress::spinner("recording", false));
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).with_context(|| format!("{}: cannot write there", path.display()))?)
        };
        let start = record::Start {
            created_wall_ns: realtime_ns(),
            boot_ns: boot_ns(),
            origin: record::Origin {
                version: start.version.clone(),
                kernel: start.kernel.clone(),
                arch: std::env::consts::ARCH.into(),
                node: start.node.clone(),
                byte_order: record::ByteOrder::NATIVE,
            },
        };
        let writer = Writer::new(out, &start).with_context(|| path.display().to_string())?;
        Ok(Self { writer: Some(writer), progress })
    }
}

impl Output for Recorder {
    fn record(&mut self, record: &[u8]) -> anyhow::Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.record(record)).context("writing the recording")
    }

    fn context(&mut self, context: &Context) -> anyhow::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let bytes = serde_json::to_vec(context).context("writing the recording")?;
        writer.context(&bytes).context("writing the recording")
    }

    /// A replay concludes them again.
    fn incidents(&mut self, _incidents: &[Incident]) -> anyhow::Result<()> {
        Ok(())
    }

    fn every_second(&mut self, so_far: &SoFar) -> anyhow::Result<()> {
        if let Some(progress) = &self.progress {
            let (seconds, events) = (so_far.elapsed.as_secs(), so_far.events);
            let incidents = count_of_incidents(so_far.incidents);
            progress.say(format!("recording for {seconds} s: {events} events, {incidents}"));
        }
        self.writer.as_mut().map_or(Ok(()), Writer::flush).context("writing the recording")
    }

    fn takes_whole_steps(&self) -> bool {
        true
    }

    fn finish(&mut self, summary: &Summary) -> anyhow::Result<()> {
        self.progress = None;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer.finish(summary.lost).map(drop).context("writing the recording")
    }
}
