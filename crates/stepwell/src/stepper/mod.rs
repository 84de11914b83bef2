//! The interactive stepper: lines in, stops out.
//!
//! It knows no terminal: [`Prompt::execute`] takes one line and writes what comes of it, so that
//! it is the same behind a line editor, a pipe and a test. It knows no link either: any
//! [`Debuggee`] will do.

mod back;
mod breakpoints;
mod parse;
mod view;

pub use parse::{Command, HELP, NAMES, ParseError, Position};

use crate::console::MarkedLines;
use crate::follow::{Follower, Outcome};
use crate::interruption::Interruption;
use crate::linux::LinuxError;
use crate::listings::Listings;
use crate::losses::Lookout;
use crate::names::{NameError, Names, Target};
use crate::questions::{self, in_program};
use breakpoints::{AWAITED, Breakpoint, Condition};
use std::collections::VecDeque;
use std::io::Write;
use stepwell_arch::aarch32::is_call;
use stepwell_arch::{InstructionSet, Pstate, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Error, ExceptionCause, Moment, Monitor, Place, Refusal, StepRequest,
    Stop, StopReason, TraceRecord, VcpuId, VcpuState, WatchAccess, Watchpoint,
};
use stepwell_trace::Disassembler;
use stepwell_trace::disassemble::instruction_bytes;

/// Steps that are shown one by one; of more only the last is.
const STEPS_SHOWN: u64 = 200;
/// Executed PCs that `b` can go back to.
const HISTORY: usize = 65_536;

/// What is to happen after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next line.
    More,
    /// The user wants to leave.
    Leave,
    /// The guest ended.
    Ended(DomainEnding),
    /// It ended before it came to where it was to come.
    NeverMet(DomainEnding),
}

/// A stepping session.
pub struct Prompt<'a> {
    debuggee: &'a mut dyn Debuggee,
    names: Names,
    output: &'a mut dyn Write,
    disassembler: Disassembler,
    console: MarkedLines,
    stop: Stop,
    /// The vCPU that commands speak of.
    vcpu: VcpuId,
    history: VecDeque<TraceRecord>,
    repeated: Option<Command>,
    /// Whether the last step was the entry into an interrupt's handler.
    entered: bool,
    interruption: Option<Interruption>,
    breakpoints: Vec<Breakpoint>,
    /// Functions of the guest's kernel where it is stopped for a moment: modules come and go there, and
    /// programs begin.
    landmarks: Vec<(&'static str, Place)>,
    lookout: Lookout,
    /// When another kernel took the place of the one that has the names.
    replaced_at: Option<Moment>,
}

impl<'a> Prompt<'a> {
    /// Starts a session with a guest that is stopped at `stop`, and shows that.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost or `output` cannot be written.
    pub fn new(
        debuggee: &'a mut dyn Debuggee,
        names: Names,
        stop: Stop,
        output: &'a mut dyn Write,
    ) -> anyhow::Result<Self> {
        let mut stepper = Self {
            debuggee,
            names,
            output,
            disassembler: Disassembler::new()?,
            console: MarkedLines::default(),
            stop,
            vcpu: stop.vcpu,
            history: VecDeque::new(),
            repeated: None,
            entered: false,
            interruption: None,
            breakpoints: Vec::new(),
            landmarks: Vec::new(),
            lookout: Lookout::default(),
            replaced_at: None,
        };
        stepper.names.follow_image(stepper.debuggee, stop.vcpu)?;
        stepper.arrived(stop)?;
        Ok(stepper)
    }

    /// Executes one line. An empty one repeats the last.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost or `output` cannot be written. What is merely refused or
    /// misspelt is told, and all goes on.
    pub fn execute(&mut self, line: &str) -> anyhow::Result<Flow> {
        let command = match Command::parse(line) {
            Ok(Some(command)) => command,
            Ok(None) => match self.repeated.clone() {
                Some(command) => command,
                None => return Ok(Flow::More),
            },
            Err(error) => {
                writeln!(self.output, "{error}")?;
                return Ok(Flow::More);
            }
        };
        self.repeated = Some(command.clone());
        let flow = match self.perform(&command) {
            Ok(flow) => flow,
            Err(error) if is_told(&error) => {
                writeln!(self.output, "{error}")?;
                Flow::More
            }
            Err(error) => return Err(error),
        };
        self.output.flush()?;
        Ok(match self.interruption.take() {
            Some(Interruption::Leave) => Flow::Leave,
            Some(Interruption::Stop) | None => flow,
        })
    }

    /// Ends the session, and returns the names with what was learnt.
    #[must_use]
    pub fn into_names(self) -> Names {
        self.names
    }

    fn perform(&mut self, command: &Command) -> anyhow::Result<Flow> {
        match command {
            Command::Step(count) => return self.step(*count),
            Command::Continue => return self.follow(),
            Command::Next => return self.next(),
            Command::Until(word) => return self.until(word),
            Command::StepBack(_)
            | Command::NextBack
            | Command::ContinueBack
            | Command::UntilBack(_)
            | Command::GoTo(_)
            | Command::When
            | Command::Last(..)
            | Command::TakeSnapshot(_)
            | Command::GoToSnapshot(_)
            | Command::Snapshots
            | Command::Fork => self.go_back(command)?,
            Command::Leave => return Ok(Flow::Leave),
            Command::Registers(None) => self.registers()?,
            Command::Registers(Some(name)) => self.register(name)?,
            Command::Memory(word, length) => self.memory(word, *length)?,
            Command::Disassemble(word, count) => self.disassemble(word.as_deref(), *count)?,
            Command::Back(count) => self.back(*count)?,
            Command::Vcpu(vcpu) => self.choose(*vcpu)?,
            Command::Interrupts(policy) => match self.debuggee.support_interrupts() {
                Some(interrupts) => interrupts.set_interrupt_policy(self.vcpu.domain, *policy)?,
                None => self.unable()?,
            },
            Command::Time(policy) => match self.debuggee.support_time() {
                Some(time) => time.set_time_policy(self.vcpu.domain, *policy)?,
                None => self.unable()?,
            },
            Command::Others(policy) => match self.debuggee.support_others() {
                Some(others) => others.set_others_policy(self.vcpu.domain, *policy)?,
                None => self.unable()?,
            },
            Command::Smc(on) => match self.debuggee.support_monitors() {
                Some(monitors) => {
                    monitors.set_monitor(self.vcpu.domain, None, Monitor::PrivilegedCall, *on)?;
                }
                None => self.unable()?,
            },
            Command::Watch(on, word, length, access) => self.watch(*on, word, *length, *access)?,
            Command::Type(text) => self.type_line(text)?,
            Command::Break(word, condition) => self.add_breakpoint(word, condition)?,
            Command::Breakpoints => self.list_breakpoints()?,
            Command::Delete(number) => self.delete_breakpoint(*number)?,
            Command::Processes => self.list(|guest| guest.tasks())?,
            Command::Stack(pid) => self.list(|guest| guest.stack(*pid))?,
            Command::Mappings(pid) => self.list(|guest| guest.mappings(*pid))?,
            Command::Print(text) => self.list(|guest| guest.value(text))?,
            Command::Modules => self.list(|guest| guest.modules())?,
            Command::Help => self.output.write_all(HELP.as_bytes())?,
        }
        Ok(Flow::More)
    }

    fn unable(&mut self) -> anyhow::Result<()> {
        Ok(writeln!(self.output, "this debuggee cannot do that")?)
    }

    /// Shows something of a Linux guest.
    fn list(
        &mut self,
        what: impl FnOnce(&mut Listings<'_>) -> Result<String, LinuxError>,
    ) -> anyhow::Result<()> {
        let (names, debuggee) = (&mut self.names, &mut *self.debuggee);
        let text = what(&mut Listings { names, debuggee, vcpu: self.vcpu })?;
        Ok(self.output.write_all(text.as_bytes())?)
    }

    fn watch(
        &mut self,
        on: bool,
        word: &str,
        length: u64,
        access: WatchAccess,
    ) -> anyhow::Result<()> {
        let watchpoint = Watchpoint { address: self.place(word)?, length, access };
        let vcpu = self.vcpu;
        let Some(watchpoints) = self.debuggee.support_watchpoints() else { return self.unable() };
        if on {
            watchpoints.set_watchpoint(vcpu, watchpoint)?;
        } else {
            watchpoints.clear_watchpoint(vcpu.domain, watchpoint)?;
        }
        Ok(())
    }

    fn type_line(&mut self, text: &str) -> anyhow::Result<()> {
        let line = format!("{text}\r");
        let domain = self.vcpu.domain;
        let Some(console) = self.debuggee.support_console() else { return self.unable() };
        let typed = console.type_bytes(domain, line.as_bytes())?;
        if typed < line.len() {
            let left = line.get(typed..).unwrap_or_default().trim_end();
            writeln!(self.output, "the guest's console is full; not typed: {left}")?;
        }
        Ok(())
    }

    fn step(&mut self, count: u64) -> anyhow::Result<Flow> {
        let at_once = if count <= STEPS_SHOWN { 1 } else { count };
        let mut left = count;
        while left > 0 {
            let request = StepRequest { record: true, ..StepRequest::steps(at_once.min(left)) };
            self.debuggee.step(self.vcpu, request)?;
            let (outcome, interrupted) = self.wait()?;
            let stop = match outcome {
                Outcome::Stopped(stop) => stop,
                Outcome::Ended(ending) => return Ok(Flow::Ended(ending)),
            };
            left = left.saturating_sub(stop.steps);
            let passes = !interrupted && self.passes(stop)?;
            let on = passes || matches!(stop.reason, StopReason::Stepped | StopReason::RingFull);
            let last = left == 0 || !on || interrupted;
            // One that was made for us alone comes before an instruction, not behind one.
            let is_step = at_once == 1 && (stop.steps > 0 || !passes);
            if last || is_step {
                self.arrived(stop)?;
            }
            if last {
                break;
            }
        }
        Ok(Flow::More)
    }

    /// Steps, but over a call as a whole: until it has come back to this stack frame.
    fn next(&mut self) -> anyhow::Result<Flow> {
        let registers = self.debuggee.read_registers(self.vcpu)?;
        let pc = Va(registers.pc);
        let set = InstructionSet::of(Pstate(registers.pstate));
        let call = self.word(pc)?.filter(|&word| is_call(set, word));
        let Some(call) = call else { return self.step(1) };
        let back = pc.offset(instruction_bytes(set, call));
        let task = self.task_address(self.vcpu)?;
        loop {
            let (outcome, interrupted) = self.go_to(Place::Va(back))?;
            let stop = match outcome {
                Outcome::Stopped(stop) => stop,
                Outcome::Ended(ending) => return Ok(Flow::Ended(ending)),
            };
            if interrupted || !self.goes_on_to(back, stop, registers.sp, task)? {
                self.arrived(stop)?;
                return Ok(Flow::More);
            }
        }
    }

    /// Tells whether who came to where a call returns to is not the one that called: another task, or
    /// a recursive call, deeper in the stack. The task may be on another vCPU by now.
    fn goes_on_to(
        &mut self,
        back: Va,
        stop: Stop,
        sp: u64,
        task: Option<u64>,
    ) -> anyhow::Result<bool> {
        if stop.reason != StopReason::Breakpoint || stop.pc != back {
            return Ok(false);
        }
        let is_caller = match task {
            Some(_) => self.task_address(stop.vcpu)? == task,
            None => stop.vcpu == self.vcpu,
        };
        match is_caller {
            true => Ok(self.debuggee.read_registers(stop.vcpu)?.sp < sp),
            false => Ok(!self.has_breakpoint_at(stop)?),
        }
    }

    /// Returns the address of the task that a vCPU executes, where the guest tells.
    fn task_address(&mut self, vcpu: VcpuId) -> anyhow::Result<Option<u64>> {
        match questions::current_task(&mut self.names, self.debuggee, vcpu) {
            Ok(task) => Ok(Some(task.address)),
            Err(error) if error.is_fatal() => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Runs to a place, which may be in an image, a module or a program that is yet to come: with a
    /// breakpoint for as long as that takes.
    fn until(&mut self, word: &str) -> anyhow::Result<Flow> {
        let can_be_met = self.begin_breakpoint(AWAITED, word, &Condition::default())?;
        let outcome = if can_be_met { Some(self.run_on(None)) } else { None };
        if !matches!(outcome, Some(Ok((Outcome::Ended(_), _))))
            && let Some(at) = self.breakpoints.iter().position(|one| one.number == AWAITED)
        {
            self.end_breakpoint(at)?;
        }
        match outcome.transpose()? {
            Some((Outcome::Ended(ending), _)) => {
                writeln!(self.output, "the guest ended before it came to {word}")?;
                Ok(Flow::NeverMet(ending))
            }
            Some((Outcome::Stopped(stop), _)) => {
                self.arrived(stop)?;
                Ok(Flow::More)
            }
            None => Ok(Flow::More),
        }
    }

    /// Finds out where the instruction is that a word means: also in modules, and in programs.
    fn target_of(&mut self, word: &str) -> anyhow::Result<Target> {
        if word.contains('!') {
            return in_program(&mut self.names, self.debuggee, self.vcpu, word);
        }
        self.value_of(word)?;
        Ok(self.names.resolve_instruction(word)?)
    }

    /// As [`Prompt::target_of`], of anything that has an address.
    fn value_of(&mut self, word: &str) -> anyhow::Result<Va> {
        if word.contains('!') {
            return Ok(self.target_of(word)?.va);
        }
        if word.contains(':') {
            self.names.find_modules(self.debuggee, self.vcpu)?;
        }
        Ok(self.names.resolve(word)?.va)
    }

    /// Lets the guest run with a breakpoint there for as long as that takes.
    fn go_to(&mut self, place: Place) -> anyhow::Result<(Outcome, bool)> {
        self.set_quietly(place)?;
        let outcome = self.run_on(Some(place));
        if !matches!(outcome, Ok((Outcome::Ended(_), _))) {
            self.clear_unless_used(place)?;
        }
        outcome
    }

    /// Lets the guest run to the next stop that somebody wants to see, or to `place`.
    fn run_on(&mut self, place: Option<Place>) -> anyhow::Result<(Outcome, bool)> {
        loop {
            self.debuggee.resume(self.vcpu.domain)?;
            let (outcome, interrupted) = self.wait()?;
            let Outcome::Stopped(stop) = outcome else { return Ok((outcome, interrupted)) };
            let passes = self.passes(stop)?;
            let there = match place {
                Some(place) => self.names.is_met(self.debuggee, stop.vcpu, place, stop.pc)?,
                None => false,
            };
            if interrupted || there || !passes {
                return Ok((outcome, interrupted));
            }
        }
    }

    fn follow(&mut self) -> anyhow::Result<Flow> {
        match self.run_on(None)?.0 {
            Outcome::Ended(ending) => Ok(Flow::Ended(ending)),
            Outcome::Stopped(stop) => {
                self.arrived(stop)?;
                Ok(Flow::More)
            }
        }
    }

    /// Waits for the guest; tells whether it was interrupted.
    fn wait(&mut self) -> anyhow::Result<(Outcome, bool)> {
        let (console, output) = (&mut self.console, &mut *self.output);
        let mut print = |bytes: &[u8]| console.push(bytes, output);
        let mut records = Vec::new();
        let mut follower =
            Follower { console: &mut print, records: &mut records, interruption: None };
        let outcome = follower.follow(self.debuggee);
        self.interruption = self.interruption.or(follower.interruption);
        let outcome = outcome?;
        if self.interruption.is_some() {
            // The terminal has put ^C where the next line begins.
            writeln!(self.output)?;
        }
        self.console.flush(self.output)?;
        // A step that enters a handler ends the run: the next one begins at the vector.
        self.entered = match records.last() {
            Some(TraceRecord::Interrupt { .. }) => true,
            Some(TraceRecord::ExceptionEntry(entry)) => entry.cause != ExceptionCause::Synchronous,
            _ => false,
        };
        records.retain(|record| {
            matches!(record, TraceRecord::Run { .. } | TraceRecord::Interrupt { .. })
        });
        self.history.extend(records);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
        Ok((outcome, self.interruption.is_some()))
    }

    fn arrived(&mut self, stop: Stop) -> anyhow::Result<()> {
        (self.stop, self.vcpu) = (stop, stop.vcpu);
        self.names.locate(self.debuggee, stop.vcpu, stop.pc)?;
        self.show_stop(stop)?;
        self.show_edge(stop)
    }

    fn choose(&mut self, vcpu: Option<u8>) -> anyhow::Result<()> {
        let domain = self.vcpu.domain;
        let status = self.debuggee.status(domain)?;
        if let Some(vcpu) = vcpu {
            match status.get(usize::from(vcpu)).map(|status| status.state) {
                None => return Err(Error::from(Refusal::NoSuchVcpu).into()),
                Some(VcpuState::Off) => return Err(Error::from(Refusal::Off).into()),
                Some(_) => self.vcpu = VcpuId { domain, vcpu },
            }
        }
        for (vcpu, status) in (0..).zip(status) {
            let mark = if vcpu == self.vcpu.vcpu { '*' } else { ' ' };
            let id = VcpuId { domain, vcpu };
            let state = match status.state {
                VcpuState::Off => "off".to_owned(),
                VcpuState::Running => "running".to_owned(),
                VcpuState::Ended => "ended".to_owned(),
                VcpuState::Stopped => format!("{:#x}  {}", status.pc, self.name(status.pc)),
            };
            writeln!(self.output, "{mark} {id}  {state}")?;
        }
        Ok(())
    }
}

/// Tells errors that a session survives from those that it doesn't.
fn is_told(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Error>().is_some_and(|error| !error.is_fatal());
    let linux = error.downcast_ref::<LinuxError>().is_some_and(|error| !error.is_fatal());
    refused || linux || error.downcast_ref::<NameError>().is_some()
}

#[cfg(test)]
mod tests;
