//! `stepwell report`: a recording as one page for a browser.

use super::tell;
use crate::ending;
use anyhow::{Context, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use stepwell_trace::Reader;
use stepwell_trace::report::{self, Facts};

/// Makes one page for a browser of a recording
///
/// The page has everything in it (headline figures, a flame graph and a timeline that zoom, hot
/// functions, interrupts, locks) and needs neither network nor other files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    stepwell report boot.stepwell -o report.html\n  \
    stepwell report boot.stepwell --title 'Debian 12, first second' -o - | gzip >report.html.gz")]
pub(super) struct Report {
    /// The recording
    file: PathBuf,
    /// The page; - for the standard output
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// The page's title [default: the recording's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Shows no progress bar
    #[arg(long, short)]
    quiet: bool,
}

impl Report {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let named = || self.file.display().to_string();
        let mut reader = Reader::open(&self.file).with_context(named)?;
        let (_, bytes) = reader.bytes();
        let facts = Facts {
            title: self.title.clone().unwrap_or_else(|| title(&self.file)),
            bytes,
            header: reader.header().clone(),
            selection: String::new(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let bar = self.progress_bar(bytes);
        let analysed = report::analyse(&mut reader, facts, |reader| {
            bar.set_position(reader.bytes().0);
            bar.set_message(format!("{} M instructions", reader.position() / 1_000_000));
        });
        bar.finish_and_clear();
        let (report, damage) = analysed.with_context(named)?;
        self.write(&report).with_context(|| self.output.display().to_string())?;
        match damage {
            None => Ok(ending::CLEAN),
            Some(error) => {
                tell(&format!("{}: {error}; the report is of what stands before", named()));
                Ok(ending::FAILED)
            }
        }
    }

    fn write(&self, report: &report::Report) -> anyhow::Result<()> {
        if self.output == Path::new("-") {
            return match report.write(io::stdout().lock()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => Ok(result?),
            };
        }
        if same_file(&self.file, &self.output) {
            return Err(anyhow!("this is the recording: name another file for the page"));
        }
        Ok(report.write(File::create(&self.output)?)?)
    }

    fn progress_bar(&self, bytes: u64) -> ProgressBar {
        if self.quiet || !io::stderr().is_terminal() {
            return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        }
        let template = "{wide_bar} {msg}, {binary_bytes_per_sec}, {eta}";
        let style = ProgressStyle::with_template(template).expect("the template is ours");
        ProgressBar::new(bytes).with_style(style)
    }
}

fn title(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

fn same_file(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    canonical(one).is_some_and(|one| Some(one) == canonical(other))
}
