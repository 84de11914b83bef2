//! `stepwell report`: a recording, or a whole run, as one page for a browser.

mod of_run;

use super::selection::{Selected, Selection, report_damages};
use crate::ending;
use crate::output::{self, Outputs};
use crate::terminal::notice;
use anyhow::{Context, bail};
use clap::Args;
use std::io::{self, Write, stdout};
use std::path::{Path, PathBuf};
use stepwell_trace::report::{self, Completeness, Facts};
use stepwell_trace::{Ending, Source};

/// Makes one page for a browser of a recording, or of a whole run
///
/// The page has everything in it (headline figures, a flame graph and a timeline that zoom, hot
/// functions, interrupts, locks) and needs neither network nor other files. Of a replay log (stepwell
/// record) it is the run's timeline, for which the run is gone through once more: vCPUs, where all of
/// them waited, what was typed, and the states that were taken down.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    stepwell report boot.stepwell -o report.html\n  \
    stepwell report boot.stepwell --symbol start_kernel..rest_init --title 'Early boot'\n  \
    stepwell report boot.stepwell -o - | gzip >report.html.gz\n  \
    stepwell report boot.replay --part part.stepwell")]
pub(super) struct Report {
    /// The recording, or a replay log
    file: PathBuf,
    /// A recording of a part of the run (stepwell trace --replay): its report goes into the page
    #[arg(long, value_name = "FILE")]
    part: Option<PathBuf>,
    /// QEMU, for a replay log
    #[arg(long, value_name = "PATH", default_value = "qemu-system-aarch64", env = "STEPWELL_QEMU")]
    qemu: PathBuf,
    /// The page; - for the standard output
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// The page's title [default: the recording's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    selection: Selection,
}

impl Report {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        output::refuse_inputs(&self.output, [(self.file.as_path(), "the recording itself")])?;
        if of_run::is_log(&self.file) {
            return self.execute_of_run();
        }
        if self.part.is_some() {
            bail!("--part goes with a replay log, and {} is none", self.file.display());
        }
        let named = || self.file.display().to_string();
        let mut source = self.selection.open(&self.file, !self.to_stdout())?;
        let facts = self.facts(&source);
        let analysed = report::analyse(&mut source, facts, |source| self.completeness(source));
        source.inner().finish();
        let (report, damage) = analysed.with_context(named)?;
        self.write(|output| report.write(output))?;
        if let Some(error) = damage {
            notice(&format!("{}: {error}; the report is of what comes before", named()));
            return Ok(ending::FAILED);
        }
        let is_damaged = report_damages(&self.file, source.inner().reader().damages());
        Ok(if is_damaged { ending::FAILED } else { ending::CLEAN })
    }

    fn facts(&self, source: &Selected) -> Facts {
        let selection = self.selection.in_words();
        let (_, bytes) = source.inner().reader().bytes();
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        Facts {
            title: self.title.clone().unwrap_or_else(|| name.to_string_lossy().into_owned()),
            // The size of the file says nothing about a part of it.
            bytes: if selection.is_empty() { bytes } else { 0 },
            header: source.header().clone(),
            selection,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn completeness(&self, source: &Selected) -> Completeness {
        let reader = source.inner().reader();
        match (reader.damages(), reader.ending()) {
            ([], Some(Ending::Unfinished { .. })) => Completeness::Unfinished,
            ([], _) => Completeness::Whole,
            ([damage], _) => {
                Completeness::Damaged(format!("byte {}: {}", damage.offset, damage.what))
            }
            (many, _) => Completeness::Damaged(format!("{} places", many.len())),
        }
    }

    fn to_stdout(&self) -> bool {
        self.output == Path::new("-")
    }

    fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        if !self.to_stdout() {
            let mut outputs = Outputs::default();
            let written = write(&mut outputs.create(&self.output)?);
            written.with_context(|| self.output.display().to_string())?;
            return outputs.complete();
        }
        match write(&mut stdout().lock()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }
}
