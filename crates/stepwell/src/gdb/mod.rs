//! What the tool does for a debugger: names, recordings, and the guest's console on this terminal.

mod init_file;
mod recordings;
mod socket_folder;

pub use init_file::init_file;
pub use recordings::Recordings;
pub use socket_folder::SocketFolder;

use crate::console::{Input, MarkedText};
use crate::linux::LinuxError;
use crate::listings::Listings;
use crate::names::{Names, Target};
use crate::questions;
use crate::recorder::Recorder;
use crate::terminal::notice;
use std::io::stdout;
use std::path::{Path, PathBuf};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{Debuggee, Error, Place, TraceRecord, VcpuId, VcpuState};
use stepwell_gdb::{Process, Services};
use stepwell_linux::Task;
use stepwell_trace::{Disassembler, Header};

/// The tool's services for one guest.
pub struct Tool {
    names: Names,
    /// The file that the debugger is to load symbols from.
    symbols: Option<PathBuf>,
    /// It was written here, from names that move together.
    has_one_section: bool,
    disassembler: Disassembler,
    header: Header,
    recording: Option<Recording>,
    /// Where a client may make recordings, if anywhere.
    recordings: Option<Recordings>,
    input: Input,
    console: MarkedText,
    /// How far the user was told that the guest has moved.
    told: Option<u64>,
    /// Where a hidden breakpoint of our own is, until it is known where the kernel runs.
    landmark: Option<Ipa>,
}

/// Executed once, by then at the addresses that the kernel keeps.
const LANDMARK: &str = "start_kernel";

struct Recording {
    recorder: Recorder,
    file: PathBuf,
    records: Vec<TraceRecord>,
    /// Why nothing is recorded any more.
    broken: Option<String>,
}

impl Tool {
    /// Sets up the services. `header` is that of the recordings.
    ///
    /// # Errors
    ///
    /// Where the disassembler or a thread cannot be had.
    pub fn new(names: Names, header: Header) -> anyhow::Result<Self> {
        Ok(Self {
            names,
            symbols: None,
            has_one_section: false,
            disassembler: Disassembler::new()?,
            header,
            recording: None,
            recordings: None,
            input: Input::start()?,
            console: MarkedText::default(),
            told: None,
            landmark: None,
        })
    }

    /// Has the guest stop where it will be seen which addresses it has chosen, if it is a kernel
    /// that chooses. The guest is stopped at reset.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] only: without, the first stop at EL1 tells.
    pub fn look_out(&mut self, debuggee: &mut dyn Debuggee) -> Result<(), Error> {
        if self.names.located() {
            return Ok(());
        }
        let Ok(Target { place: place @ Place::Ipa(ipa), .. }) = self.names.resolve(LANDMARK) else {
            return Ok(());
        };
        match debuggee.set_breakpoint(0, place) {
            Ok(()) => self.landmark = Some(ipa),
            Err(error) if error.is_fatal() => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    /// Names the file that a debugger loads symbols from; `ours` if it was written from our own
    /// names.
    pub fn set_symbols(&mut self, file: &Path, ours: bool) {
        (self.symbols, self.has_one_section) = (Some(file.to_owned()), ours);
    }

    /// Lets clients make recordings there.
    pub fn allow_recordings(&mut self, folder: Recordings) {
        self.recordings = Some(folder);
    }

    /// Returns the names, with what was learnt.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the task that a vCPU executes, where the guest tells.
    fn current_task(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<Option<Task>, Error> {
        match questions::current_task(&mut self.names, debuggee, vcpu) {
            Ok(task) => Ok(Some(task)),
            Err(LinuxError::Guest(stepwell_linux::Error::Debuggee(error))) if error.is_fatal() => {
                Err(error)
            }
            Err(_) => Ok(None),
        }
    }
}

impl Services for Tool {
    fn console(&mut self, bytes: &[u8]) {
        // A terminal that is gone is no reason to end a debugging session.
        drop(self.console.push(bytes, &mut stdout().lock()));
    }

    fn note(&mut self, text: &str) {
        drop(self.console.end_line(&mut stdout().lock()));
        notice(text);
    }

    fn poll(&mut self, debuggee: &mut dyn Debuggee) -> Result<(), Error> {
        let typed = self.input.take();
        self.input.waiting.extend(typed);
        let waiting = self.input.waiting.make_contiguous();
        if !waiting.is_empty()
            && let Some(console) = debuggee.support_console()
        {
            match console.type_bytes(0, waiting) {
                Ok(typed) => drop(self.input.waiting.drain(..typed)),
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => self.input.waiting.clear(),
            }
        }
        if let (Some(recording), Some(trace)) = (&mut self.recording, debuggee.support_trace()) {
            trace.drain(&mut recording.records)?;
            recording.take();
        }
        Ok(())
    }

    fn landmark(&self) -> Option<Ipa> {
        self.landmark
    }

    fn stopped(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        if !self.names.located() {
            // One in user space says nothing about the kernel; another may.
            let status = debuggee.status(vcpu.domain)?;
            for (vcpu, status) in (0..).zip(status) {
                if status.state == VcpuState::Stopped {
                    self.names.locate(debuggee, VcpuId { vcpu, domain: 0 }, status.pc)?;
                }
            }
        }
        if self.names.located() {
            self.landmark = None;
        }
        let moved = self.names.moved_by();
        if moved.is_some_and(|by| by != 0)
            && self.told != moved
            && let Some(command) = self.symbol_command()
        {
            self.note(&format!("the kernel has moved; in GDB: {command}"));
            self.told = moved;
        }
        Ok(())
    }

    fn name(&self, va: Va) -> Option<String> {
        self.names.describe(va)
    }

    fn resolve(&self, word: &str) -> Option<Va> {
        self.names.resolve(word).ok().map(|target| target.va)
    }

    fn task(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<Option<String>, Error> {
        let task = self.current_task(debuggee, vcpu)?;
        Ok(task.map(|task| format!("task {} {}", task.pid, task.shown())))
    }

    fn task_address(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<Option<u64>, Error> {
        Ok(self.current_task(debuggee, vcpu)?.map(|task| task.address))
    }

    fn process(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<Option<Process>, Error> {
        let task = self.current_task(debuggee, vcpu)?;
        Ok(task.map(|task| Process { pid: task.tgid, name: task.comm }))
    }

    fn command(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        words: &[&str],
    ) -> Result<Option<String>, Error> {
        let names = &mut self.names;
        let mut guest = Listings { names, debuggee, vcpu };
        let pid = |words: &[&str]| words.first().map(|word| word.parse::<u32>()).transpose();
        let result = match words {
            ["ps"] => guest.tasks(),
            ["modules" | "lsmod"] => guest.modules(),
            ["print" | "p", rest @ ..] if !rest.is_empty() => guest.value(&rest.join(" ")),
            ["task" | "maps", _, _, ..] => return Ok(None),
            [name @ ("task" | "maps"), rest @ ..] => match (*name, pid(rest)) {
                (_, Err(error)) => return Ok(Some(format!("{error}: write {name} PID\n"))),
                ("task", Ok(pid)) => guest.stack(pid),
                (_, Ok(pid)) => guest.mappings(pid),
            },
            _ => return Ok(None),
        };
        match result {
            Ok(text) => Ok(Some(text)),
            Err(LinuxError::Guest(stepwell_linux::Error::Debuggee(error))) if error.is_fatal() => {
                Err(error)
            }
            Err(error) => Ok(Some(format!("{error}\n"))),
        }
    }

    fn help(&self) -> &str {
        "ps                           the tasks of a Linux guest\n\
         task [PID]                   how a task came to where it is; that of the current thread\n\
         maps [PID]                   what a process has mapped\n\
         modules                      the modules\n\
         print EXPRESSION             a value, by the kernel's own types: current->comm\n"
    }

    fn disassemble(&self, word: u32, va: Va) -> Option<String> {
        Some(self.disassembler.text(word, va))
    }

    fn image_place(&self, va: Va) -> Option<Ipa> {
        self.names.place_in_image(va)
    }

    fn moved_by(&self) -> Option<u64> {
        self.names.moved_by().filter(|by| *by != 0 && self.has_one_section)
    }

    fn symbol_command(&self) -> Option<String> {
        if !self.names.located() {
            return None;
        }
        let Some(file) = &self.symbols else {
            let by = self.names.moved_by().unwrap_or_default();
            return Some(format!(
                "# no file with symbols; the kernel is {by:#x} from its link address"
            ));
        };
        let by = self.names.moved_by().unwrap_or_default();
        init_file::symbol_command(file, by).ok()
    }

    fn start_trace(&mut self, name: &str) -> Result<String, String> {
        if let Some(recording) = &self.recording {
            return Err(format!("{} is being recorded", recording.file.display()));
        }
        let folder = self.recordings.as_ref().ok_or(
            "nothing may be recorded: start `stepwell gdb` with --recordings FOLDER, and \
             recordings are made there",
        )?;
        let file = folder.path_of(name)?;
        // Somebody's file is not written over, whoever asks for it.
        let recorder = Recorder::create_new(&file, &self.header);
        let recorder = recorder.map_err(|error| format!("{}: {error}", file.display()))?;
        let text = format!("recording to {}; `continue` steps meanwhile", file.display());
        self.recording = Some(Recording { recorder, file, records: Vec::new(), broken: None });
        Ok(text)
    }

    fn is_tracing(&self) -> bool {
        self.recording.is_some()
    }

    fn drain_trace(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        self.poll(debuggee)?;
        let Some(recording) = &mut self.recording else { return Ok(()) };
        recording.recorder.notice_modules(&mut self.names, debuggee, vcpu)?;
        match recording.recorder.fetch_code(debuggee, vcpu) {
            Ok(()) => {}
            Err(error) => match error.downcast::<Error>() {
                Ok(lost) => return Err(lost),
                Err(error) => recording.broke(&error),
            },
        }
        if let Err(error) = recording.recorder.name(&self.names) {
            recording.broke(&error);
        }
        Ok(())
    }

    fn stop_trace(&mut self) -> Result<String, String> {
        let recording = self.recording.take().ok_or("nothing is being recorded")?;
        let Recording { recorder, file, broken, .. } = recording;
        let (steps, file) = (recorder.totals().instructions, file.display());
        let finished = recorder.finish(&self.names);
        match (broken, finished) {
            (Some(error), _) => Err(format!("{file}: {error}")),
            (None, Err(error)) => Err(format!("{file}: {error}")),
            (None, Ok(_)) => Ok(format!("{steps} steps are in {file}")),
        }
    }
}

impl Recording {
    fn take(&mut self) {
        if let Err(error) = self.recorder.take(&mut self.records) {
            self.broke(&error);
        }
    }

    fn broke(&mut self, error: &dyn std::fmt::Display) {
        self.broken.get_or_insert_with(|| error.to_string());
    }
}
