//! A progress bar for who reads a recording, with rate and time left.
//!
//! It is on standard error, and only where that is a terminal, nobody asked for quiet, and the
//! output goes into a file: a bar between lines of output, or under a pager, is of no use.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::{FileType, fstat};
use rustix::stdio::stdout;
use std::fs::File;
use std::io::BufReader;
use stepwell_trace::{CodePages, Error, Header, Reader, Record, Source, Symbols};

/// Records between two looks at the clock.
const RECORDS: u32 = 1 << 14;

/// A recording in a file.
pub type FileReader = Reader<BufReader<File>>;

/// Makes a bar, which may be one that nobody sees.
#[must_use]
pub fn bar(wanted: bool) -> ProgressBar {
    if !wanted {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let template = "{wide_bar} {percent}% {msg}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is ours");
    ProgressBar::new(0).with_style(style)
}

/// Tells whether what is written to standard output ends up in a file.
#[must_use]
pub fn stdout_is_file() -> bool {
    fstat(stdout())
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile)
}

/// A recording whose reading is shown by a bar.
#[derive(Debug)]
pub struct Watched {
    reader: FileReader,
    bar: ProgressBar,
    /// Records until the bar is moved.
    countdown: u32,
    /// The instructions that will be read, if that is not all of the file.
    range: Option<(u64, u64)>,
}

impl Watched {
    /// Shows reading on `bar`. If only the instructions of `range` are read, it shows how many of
    /// them were.
    #[must_use]
    pub fn new(reader: FileReader, bar: ProgressBar, range: Option<(u64, u64)>) -> Self {
        Self { reader, bar, countdown: RECORDS, range }
    }

    /// Returns what is read.
    #[must_use]
    pub const fn reader(&self) -> &FileReader {
        &self.reader
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&mut self) {
        self.countdown = RECORDS;
        let position = self.reader.position();
        let (done, all) = match self.range {
            Some((from, to)) => (position.saturating_sub(from), to.saturating_sub(from)),
            None => self.reader.bytes(),
        };
        let first = self.range.map_or(0, |(from, _)| from);
        let seconds = self.bar.elapsed().as_secs_f64().max(0.001);
        let rate = (position.saturating_sub(first) as f64 / seconds) as u64;
        self.bar.set_length(all);
        self.bar.set_position(done.min(all));
        self.bar.set_message(format!("{} instructions/s", HumanCount(rate)));
    }
}

impl Source for Watched {
    fn header(&self) -> &Header {
        self.reader.header()
    }

    fn code_pages(&mut self) -> Result<CodePages, Error> {
        self.reader.code_pages()
    }

    fn symbols(&mut self) -> Result<Symbols, Error> {
        self.reader.symbols()
    }

    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        self.countdown -= 1;
        if self.countdown == 0 {
            self.show();
        }
        self.reader.next_record()
    }

    fn position(&self) -> u64 {
        self.reader.position()
    }

    fn seek(&mut self, instruction: u64) -> Result<bool, Error> {
        self.reader.seek(instruction)
    }
}
