//! From drained steps to a recording that can be read without the machine.
//!
//! The ring says where instructions were, not what. Each page that was executed is fetched once,
//! at the next stop, so that the recording disassembles by itself.

use crate::interruption;
use crate::names::Names;
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{Debuggee, Error, Place, TraceRecord, VcpuId};
use stepwell_trace::code::PAGE_SIZE;
use stepwell_trace::{Error as RecordingError, Event, Header, Totals, Writer};

/// A recording in the making.
pub struct Recorder {
    writer: Writer<File>,
    known: HashSet<u64>,
    wanted: Vec<u64>,
    /// How many places of the kernel are named.
    named: usize,
    /// Which of the guest's modules are named.
    modules: u64,
}

impl Recorder {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        Ok(Self::over(Writer::create(path, header)?))
    }

    /// Creates the file, where there must be none.
    ///
    /// # Errors
    ///
    /// Where it cannot be written, or there is something already.
    pub fn create_new(path: &Path, header: &Header) -> Result<Self, RecordingError> {
        Ok(Self::over(Writer::create_new(path, header)?))
    }

    fn over(writer: Writer<File>) -> Self {
        Self { writer, known: HashSet::new(), wanted: Vec::new(), named: 0, modules: 0 }
    }

    /// Writes what was drained, and empties it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn take(&mut self, records: &mut Vec<TraceRecord>) -> Result<(), RecordingError> {
        for record in records.drain(..) {
            if let TraceRecord::Run { pc, length, .. } = record {
                self.want(pc, length);
            }
            self.writer.record(&record.among())?;
        }
        Ok(())
    }

    /// Writes something that is no step.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn event(&mut self, event: &Event) -> Result<(), RecordingError> {
        self.writer.event(event)
    }

    /// Wants the code of some instructions, to be fetched at the next stop.
    pub fn want(&mut self, pc: Va, length: u32) {
        let first = pc.0 / PAGE_SIZE;
        // A T32 instruction may end in the next page.
        let last = pc.0.saturating_add(4 * u64::from(length.max(1)) - 1) / PAGE_SIZE;
        for page in first..=last {
            if self.known.insert(page) {
                self.wanted.push(page);
            }
        }
    }

    /// Fetches the code that was executed and is not recorded yet. The guest must be stopped.
    ///
    /// An interruption ends that early: what is left is taken by the next call, or is not taken.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost or the recording cannot be written. Code that is not there any
    /// more is none: its instructions stay without text.
    pub fn fetch_code(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> anyhow::Result<()> {
        let mut page = vec![0; PAGE_SIZE as usize];
        let mut wanted = std::mem::take(&mut self.wanted).into_iter();
        while let Some(number) = wanted.next() {
            if interruption::pending() {
                self.wanted.push(number);
                self.wanted.extend(wanted);
                return Ok(());
            }
            let va = Va(number * PAGE_SIZE);
            // What ran before the MMU was on is found by its physical address, even if that is
            // no virtual one any more.
            for place in [Place::Va(va), Place::Ipa(Ipa(va.0))] {
                match debuggee.read_memory(vcpu, place, &mut page) {
                    Ok(()) => {
                        self.writer.code(va, &page)?;
                        break;
                    }
                    Err(Error::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Takes the code that was not fetched, because the guest has ended or the user wants that this
    /// does, from its kernel's file, and notes that: a kernel that has patched itself executed
    /// something else there.
    ///
    /// # Errors
    ///
    /// Where the recording cannot be written.
    pub fn take_code_from(&mut self, names: &Names) -> Result<(), RecordingError> {
        let mut pages = 0;
        for number in std::mem::take(&mut self.wanted) {
            let va = Va(number * PAGE_SIZE);
            if let Some(bytes) = names.file_bytes(va, PAGE_SIZE) {
                self.writer.code(va, bytes)?;
                pages += 1;
            }
        }
        if pages == 0 {
            return Ok(());
        }
        self.writer.event(&Event::Note(format!(
            "recording ended before {pages} pages of code were read: their instructions are shown \
             as in the kernel's file, without what the kernel patches at boot"
        )))
    }

    /// Learns of the modules that were executed in, before the code is fetched. The guest must be
    /// stopped.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost.
    pub fn notice_modules(
        &self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<(), Error> {
        for number in &self.wanted {
            names.notice_module(debuggee, vcpu, Va(number * PAGE_SIZE))?;
        }
        Ok(())
    }

    /// Writes the symbols, once it is known where the guest runs, and those of its modules whenever
    /// they have changed.
    ///
    /// # Errors
    ///
    /// Where they cannot be written.
    pub fn name(&mut self, names: &Names) -> Result<(), RecordingError> {
        if self.named != names.places() && names.located() {
            self.named = names.places();
            self.writer.symbols(&names.as_seen())?;
        }
        let (seen, symbols) = names.of_modules();
        if seen != self.modules {
            self.modules = seen;
            self.writer.symbols(&symbols)?;
        }
        Ok(())
    }

    /// Writes out what was collected: it outlives this process from now on.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        self.writer.flush_chunk()
    }

    /// Completes the file.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; what was written before stays readable.
    pub fn finish(mut self, names: &Names) -> Result<Totals, RecordingError> {
        if self.named == 0 {
            self.writer.symbols(&names.as_seen())?;
        }
        self.writer.finish()
    }

    /// Returns what was recorded so far.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.writer.totals()
    }
}
