//! `perfetto`: a timeline of functions, interrupts and vCPUs that ui.perfetto.dev opens.
//!
//! Each vCPU is a thread with the slices of its calls, and has a track of its interrupts and
//! exceptions besides, and one of the tasks that it executes where the recording tells them. A trace has hundreds of calls for every one that can be seen on a screen,
//! so calls shorter than some number of instructions are folded into their callers; interrupts
//! never are. That bounds the file: each slice that is written takes that many instructions, times
//! the depth of the stack.
//!
//! A slice is written once it has lasted long enough, and its callers before it, so that time
//! never runs backwards on a track and nothing waits in memory but the stack itself.
//!
//! Format: Perfetto's "Synthetic TrackEvent" and the messages in its `protos/perfetto/trace`.

mod proto;

use super::{ExportError, end_at_broken_pipe};
use crate::call_stack::{CallStacks, CallVisitor, Entry, Exit, FrameKind};
use crate::format::{Event, ExceptionCause, ExceptionEntry, Header, Record};
use crate::printable::printable;
use crate::source::Source;
use proto::{EventKind, Tracks};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use stepwell_arch::address::Va;

/// What a nanosecond of the timeline stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// An instruction of the recording, whichever vCPU executed it.
    #[default]
    Instructions,
    /// A nanosecond of the guest's time, as far as the recording tells it; between two times that
    /// it tells, the policy for time is believed.
    GuestTime,
}

/// How a timeline is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Calls that take fewer instructions are folded into their callers; at least 1.
    pub fold: u64,
    /// The unit of time.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self { fold: 1000, clock: Clock::default() }
    }
}

/// Writes a timeline of what is left of a recording.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged (after the timeline of what precedes the damage) or
/// the output fails; a broken pipe is none.
pub fn write(
    source: &mut impl Source,
    options: Options,
    output: impl Write,
) -> Result<(), ExportError> {
    let (code, symbols) = (source.code_pages()?, source.symbols()?);
    let mut stacks = CallStacks::new(&code, &symbols);
    let output = BufWriter::with_capacity(1 << 18, output);
    let mut timeline = Timeline::new(source.header(), options, output);
    let read = loop {
        match source.next_record() {
            Ok(Some(record)) => {
                timeline.look_at(&record, source.position());
                stacks.record(&record, &mut timeline);
                timeline.name_interrupt(&record);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
        if timeline.tracks.has_failed() {
            break Ok(());
        }
    };
    stacks.finish(&mut timeline);
    timeline.end_tasks();
    let written = timeline.tracks.finish().map_err(ExportError::from);
    end_at_broken_pipe(read.and(written))
}

/// A call or exception that has not ended.
#[derive(Debug)]
struct Frame {
    start_ns: u64,
    /// Instructions of the recording before it.
    began: u64,
    name: String,
    is_exception: bool,
    /// It is on the track of interrupts.
    is_told: bool,
}

#[derive(Debug, Default)]
struct Vcpu {
    frames: Vec<Frame>,
    /// How many of them, from the outermost on, are on the track of calls.
    told: usize,
    /// The name of an exception that is about to be entered.
    exception: Option<String>,
    /// The name of the task that it executes, on the track of tasks.
    task: Option<String>,
}

struct Timeline<W: Write> {
    tracks: Tracks<W>,
    fold: u64,
    clock: Clock,
    /// Instructions of the recording so far.
    position: u64,
    /// Instructions and nanoseconds when the recording last told the time.
    emitted_time: (u64, u64),
    ns_per_instruction: u64,
    /// Time never goes back.
    now_ns: u64,
    vcpus: BTreeMap<u8, Vcpu>,
}

impl<W: Write> Timeline<W> {
    fn new(header: &Header, options: Options, output: W) -> Self {
        Self {
            tracks: Tracks::new(&header.command_line, output),
            fold: options.fold.max(1),
            clock: options.clock,
            position: 0,
            emitted_time: (0, 0),
            ns_per_instruction: ns_per_instruction(header),
            now_ns: 0,
            vcpus: BTreeMap::new(),
        }
    }

    /// Is told of each record before the calls are.
    fn look_at(&mut self, record: &Record, position: u64) {
        match record {
            Record::Run { length, .. } => self.position = position - u64::from(*length),
            Record::Time { ns } => {
                self.position = position;
                self.emitted_time = (position, *ns);
            }
            _ => self.position = position,
        }
        if let Record::ExceptionEntry(entry) = record {
            self.vcpus.entry(entry.vcpu).or_default().exception = Some(exception_name(entry));
        }
        self.tick();
        if let Record::Event(Event::Task { vcpu, pid, name, .. }) = record {
            self.switch(*vcpu, format!("{} ({pid})", printable(name)));
        }
    }

    /// Ends the slice of the task that a vCPU executed, and begins another's.
    fn switch(&mut self, number: u8, name: String) {
        let vcpu = self.vcpus.entry(number).or_default();
        if vcpu.task.as_ref() == Some(&name) {
            return;
        }
        if vcpu.task.is_some() {
            self.tracks.task(number, EventKind::End, self.now_ns);
        }
        self.tracks.task(number, EventKind::Begin(&name), self.now_ns);
        vcpu.task = Some(name);
    }

    fn end_tasks(&mut self) {
        for (number, vcpu) in &mut self.vcpus {
            if vcpu.task.take().is_some() {
                self.tracks.task(*number, EventKind::End, self.now_ns);
            }
        }
    }

    fn tick(&mut self) {
        let ns = match self.clock {
            Clock::Instructions => self.position,
            Clock::GuestTime => {
                let since = self.position.saturating_sub(self.emitted_time.0);
                self.emitted_time.1.saturating_add(since.saturating_mul(self.ns_per_instruction))
            }
        };
        self.now_ns = self.now_ns.max(ns);
    }

    /// Gives an interrupt that was entered before its details came the name that they tell.
    fn name_interrupt(&mut self, record: &Record) {
        let Record::ExceptionEntry(entry) = record else { return };
        let Some(vcpu) = self.vcpus.get_mut(&entry.vcpu) else { return };
        let top = vcpu.frames.last_mut().filter(|top| top.is_exception && !top.is_told);
        if let Some(top) = top
            && let Some(name) = vcpu.exception.take()
        {
            top.name = name;
        }
    }

    /// Puts an exception on its track, once its name is known for good.
    fn emit_exceptions(&mut self, number: u8) {
        let Some(vcpu) = self.vcpus.get_mut(&number) else { return };
        for frame in vcpu.frames.iter_mut().filter(|frame| frame.is_exception && !frame.is_told) {
            frame.is_told = true;
            self.tracks.interrupt(number, EventKind::Begin(&frame.name), frame.start_ns);
        }
    }

    /// Puts the calls on their track that have lasted long enough.
    fn emit_calls(&mut self, number: u8) {
        let Some(vcpu) = self.vcpus.get_mut(&number) else { return };
        let is_long = |frame: &&Frame| self.position - frame.began >= self.fold;
        while let Some(frame) = vcpu.frames.get(vcpu.told).filter(is_long) {
            self.tracks.call(number, EventKind::Begin(&frame.name), frame.start_ns);
            vcpu.told += 1;
        }
    }
}

impl<W: Write> CallVisitor for Timeline<W> {
    fn enter(&mut self, entry: Entry<'_>) {
        let is_exception = entry.kind.is_exception();
        let vcpu = self.vcpus.entry(entry.vcpu).or_default();
        let known = if is_exception { vcpu.exception.take() } else { None };
        let name = known.unwrap_or_else(|| match entry.kind {
            FrameKind::Interrupt => format!("interrupt in {}", entry.name),
            FrameKind::Exception => format!("exception in {}", entry.name),
            _ => entry.name.to_owned(),
        });
        let (start_ns, began) = (self.now_ns, self.position);
        vcpu.frames.push(Frame { start_ns, began, name, is_exception, is_told: false });
    }

    fn leave(&mut self, exit: Exit) {
        self.emit_exceptions(exit.vcpu);
        let Some(vcpu) = self.vcpus.get_mut(&exit.vcpu) else { return };
        let Some(frame) = vcpu.frames.pop() else { return };
        if frame.is_exception {
            self.tracks.interrupt(exit.vcpu, EventKind::End, self.now_ns);
        }
        if vcpu.told > vcpu.frames.len() {
            vcpu.told = vcpu.frames.len();
            self.tracks.call(exit.vcpu, EventKind::End, self.now_ns);
        }
    }

    fn execute(&mut self, vcpu: u8, _pc: Va, length: u32) {
        self.emit_exceptions(vcpu);
        self.position += u64::from(length);
        self.tick();
        self.emit_calls(vcpu);
    }
}

fn exception_name(entry: &ExceptionEntry) -> String {
    match (entry.cause, entry.intid) {
        (ExceptionCause::Irq, Some(intid)) => format!("IRQ {intid}"),
        (ExceptionCause::Fiq, Some(intid)) => format!("FIQ {intid}"),
        (ExceptionCause::Irq, None) => "IRQ".into(),
        (ExceptionCause::Fiq, None) => "FIQ".into(),
        (ExceptionCause::SError, _) => "SError".into(),
        (ExceptionCause::Synchronous, _) => synchronous_name(entry.syndrome),
    }
}

/// Returns the name of an exception class. Arm ARM, DDI 0487 L.b, "ESR_EL1, Exception Syndrome
/// Register (EL1)", field EC.
fn synchronous_name(syndrome: u64) -> String {
    let class = (syndrome >> 26) & 0x3f;
    let name = match class {
        0x07 => "FP/SIMD trap",
        0x15 => return format!("SVC {:#x}", syndrome & 0xffff),
        0x18 => "system register trap",
        0x20 | 0x21 => "instruction abort",
        0x22 => "PC alignment fault",
        0x24 | 0x25 => "data abort",
        0x26 => "SP alignment fault",
        0x30 | 0x31 => "breakpoint",
        0x32 | 0x33 => "software step",
        0x34 | 0x35 => "watchpoint",
        0x3c => "BRK",
        _ => return format!("exception class {class:#x}"),
    };
    name.into()
}

/// Returns what a stepped instruction adds to the guest's time.
fn ns_per_instruction(header: &Header) -> u64 {
    const STOPPED: u64 = 10;
    let told = header.time_policy.strip_prefix("per-step=");
    told.and_then(|ns| ns.parse().ok()).unwrap_or(STOPPED)
}
