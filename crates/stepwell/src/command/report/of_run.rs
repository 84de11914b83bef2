//! The report of a replay log: the run is gone through once more, and looked at on the way.

use super::super::beginning::Sources;
use super::super::replayed::Replayed;
use super::Report;
use crate::ending;
use crate::interruption;
use crate::run_report::{LOOKS, Page, Samples};
use crate::travelled::Travelled;
use anyhow::{Context, anyhow, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use stepwell_debuggee::Moment;
use stepwell_replay::replay::{Audience, End, Replay, ReplayError};
use stepwell_trace::Reader;
use stepwell_trace::report::{self, Completeness, Facts};

/// What a log begins with: a checksum, and its header's first member.
const CHECKSUM_DIGITS: usize = 8;
const BEGINNING: &[u8] = b" {\"stepwell_replay\":";

/// Tells whether a file is a replay log, or was to be one.
pub(super) fn is_log(file: &Path) -> bool {
    let mut first = [0; CHECKSUM_DIGITS + BEGINNING.len()];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first.ends_with(BEGINNING)
}

impl Report {
    pub(super) fn execute_of_run(&self) -> anyhow::Result<u8> {
        let file = || self.file.display().to_string();
        let selection = self.selection.in_words();
        if !selection.is_empty() {
            bail!(
                "{selection} chooses from a recording: `stepwell trace --replay` makes one of a part"
            );
        }
        let part = self.part.as_deref().map(page_of_part).transpose()?;
        let sources = Sources { qemu: self.qemu.clone(), ..Sources::default() };
        let replayed = Replayed::open_with(&self.file, sources, |_| ())?;
        let last = replayed.script.last_position();
        let travelled = Travelled::new(self.selection.is_quiet() || self.to_stdout(), Some(last));
        let every = (last / LOOKS).max(1);
        let mut looking = Looking { samples: Samples::default(), every, travelled };
        let mut session = replayed.start()?;
        let end = session.with(|link| {
            let mut replay = Replay::new(link, &replayed.script);
            replay.run(None, false, &mut looking).map_err(|error| match error {
                ReplayError::Debuggee(error) => anyhow!(error),
                error => anyhow!(error),
            })
        });
        looking.travelled.finish();
        if end.with_context(file)? == End::Left {
            return Ok(ending::LEFT);
        }
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
        let page = Page {
            title: self.title.as_deref().unwrap_or(&name),
            script: &replayed.script,
            samples: &looking.samples,
            part: part.as_deref(),
        };
        self.write(|output| output.write_all(page.html().as_bytes()))?;
        Ok(ending::CLEAN)
    }
}

/// The report of a recording, as a page.
fn page_of_part(file: &Path) -> anyhow::Result<String> {
    let named = || file.display().to_string();
    let mut source = Reader::open(file).with_context(named)?;
    let (_, bytes) = source.bytes();
    let facts = Facts {
        title: file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
        bytes,
        header: source.header().clone(),
        selection: String::new(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let (report, damage) =
        report::analyse(&mut source, facts, |_| Completeness::Whole).with_context(named)?;
    if let Some(error) = damage {
        return Err(error).with_context(named);
    }
    let mut page = Vec::new();
    report.write(&mut page).with_context(named)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Takes what is seen of the run.
struct Looking {
    samples: Samples,
    every: u64,
    travelled: Travelled,
}

impl Audience for Looking {
    fn console(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn wants_to_leave(&mut self) -> bool {
        interruption::take().is_some()
    }

    fn progress(&mut self, moment: Moment) {
        self.travelled.come_to(moment);
    }

    fn samples_every(&self) -> Option<u64> {
        Some(self.every)
    }

    fn sampled(&mut self, moment: Moment, executed: &[u64]) {
        self.samples.look(moment, executed);
    }
}
