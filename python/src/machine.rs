//! A machine with a guest in it, and everything that is asked of either.

use crate::errors::{NotLinux, Refused};
use crate::failed;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use stepwell::command::Embedded;
use stepwell::linux::LinuxError;
use stepwell::listings::Listings;
use stepwell::questions::{self, LOADED, UNLOADED};
use stepwell::recorder::Recorder;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Edge, Error, Event, Moment, Place, Registers, Reverse, StepRequest,
    Stop, StopReason, TimeTravel, VcpuId, WatchAccess, Watchpoint,
};
use stepwell_linux::Task;
use stepwell_trace::Header;

/// A task: number, process, name, state, CPU, whether it is on it, address of its structure.
type TaskTuple = (u32, u32, String, String, u32, bool, u64);

/// A module: name, base, bytes, users, state.
type ModuleTuple = (String, u64, u64, u64, String);

/// A mapping: start, end, rights, offset, file.
type MappingTuple = (u64, u64, String, u64, Option<String>);

/// What happened: its kind, and what there is to tell of it.
type Happened = (&'static str, u8, String, u64, u64, Vec<u8>);

/// A moment with a name, and whether it is of a run that has left the recorded one.
type SnapshotTuple = (String, u64, u64, bool);

/// A machine, its guest's names, and what is recorded of it.
#[pyclass(unsendable)]
pub struct Core {
    embedded: Embedded,
    header: Header,
    recorder: Option<Recorder>,
}

/// An error of the debuggee's, as Python's.
fn told(error: Error) -> PyErr {
    match error {
        Error::Refused(refusal) => Refused::new_err(refusal.to_string()),
        Error::Lost(_) => failed(error),
    }
}

/// An answer that a guest does not give.
fn unanswered(error: LinuxError) -> PyErr {
    if error.is_fatal() { failed(error) } else { NotLinux::new_err(error.to_string()) }
}

const fn vcpu(vcpu: u8) -> VcpuId {
    VcpuId { domain: 0, vcpu }
}

const fn place(address: u64, physical: bool) -> Place {
    if physical { Place::Ipa(Ipa(address)) } else { Place::Va(Va(address)) }
}

fn tuple(task: Task) -> TaskTuple {
    let Task { pid, tgid, comm, state, cpu, on_cpu, address, .. } = task;
    (pid, tgid, comm, state.0.to_string(), cpu, on_cpu, address)
}

#[pymethods]
impl Core {
    /// Starts a machine, by the commands' options; its guest is stopped at reset once that event was
    /// taken.
    #[new]
    fn launch(options: Vec<OsString>) -> PyResult<Self> {
        let started = Embedded::start(options);
        let embedded = started.map_err(|error| failed(format!("{error:#}")))?;
        let header = embedded.header();
        Ok(Self { embedded, header, recorder: None })
    }

    /// Completes the log of a run that is recorded.
    fn finish(&mut self) -> PyResult<()> {
        self.embedded.finish().map_err(told)
    }

    /// Waits for what happens next, so many seconds at most.
    fn wait(&mut self, seconds: f64) -> PyResult<Option<Happened>> {
        let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let event = match self.guest().wait(timeout) {
            Ok(event) => event,
            Err(error @ Error::Refused(_)) => return Err(told(error)),
            Err(error) => return Err(failed(format!("{:#}", self.embedded.explain(error)))),
        };
        self.drain()?;
        Ok(match event {
            None => None,
            Some(Event::Console { bytes, .. }) => Some(("console", 0, String::new(), 0, 0, bytes)),
            Some(Event::Ended { ending, .. }) => {
                let (kind, text) = match ending {
                    DomainEnding::PoweredOff => ("powered off", String::new()),
                    DomainEnding::Reset => ("reset", String::new()),
                    DomainEnding::Fault(fault) => {
                        let (pc, address) = (fault.pc, fault.address);
                        ("crashed", format!(": {} at {pc}, address {address:#x}", fault.kind))
                    }
                };
                Some(("ended", 0, format!("{kind}{text}"), 0, 0, Vec::new()))
            }
            Some(Event::Stopped(stop)) => {
                let (guest, names) = self.embedded.parts();
                names.locate(guest, stop.vcpu, stop.pc).map_err(told)?;
                self.name_recording(stop.vcpu)?;
                let (reason, address) = reason_of(stop.reason);
                let (pc, steps, index) = (stop.pc.0, stop.steps, stop.vcpu.vcpu);
                let address = address.to_le_bytes().to_vec();
                Some(("stopped", index, reason, pc, steps, address))
            }
        })
    }

    fn pause(&mut self) -> PyResult<()> {
        self.guest().pause(0).map_err(told)
    }

    fn resume(&mut self) -> PyResult<()> {
        self.guest().resume(0).map_err(told)
    }

    /// Sets one vCPU stepping.
    fn step(&mut self, index: u8, count: u64, until: Option<u64>) -> PyResult<()> {
        let record = self.recorder.is_some();
        let request = StepRequest { until: until.map(Va), record, ..StepRequest::steps(count) };
        self.guest().step(vcpu(index), request).map_err(told)
    }

    /// X0 to X30, SP, PC and PSTATE.
    fn registers(&mut self, index: u8) -> PyResult<Vec<u64>> {
        let registers = self.guest().read_registers(vcpu(index)).map_err(told)?;
        let Registers { x, sp, pc, pstate } = registers;
        Ok(x.into_iter().chain([sp, pc, pstate]).collect())
    }

    fn write_registers(&mut self, index: u8, values: Vec<u64>) -> PyResult<()> {
        let Ok([x @ .., sp, pc, pstate]) = <[u64; 34]>::try_from(values) else {
            return Err(failed("34 registers: X0 to X30, SP, PC and PSTATE"));
        };
        let registers = Registers { x, sp, pc, pstate };
        self.guest().write_registers(vcpu(index), &registers).map_err(told)
    }

    /// Reads a system register by its encoding, op0:op1:CRn:CRm:op2 as in bits 20:5 of MRS.
    fn system_register(&mut self, index: u8, encoding: u16) -> PyResult<u64> {
        let system = self.guest().support_system_registers();
        let system = system.ok_or_else(|| failed("this machine has none"))?;
        system.read_system_register(vcpu(index), encoding).map_err(told)
    }

    fn read(
        &mut self,
        index: u8,
        address: u64,
        length: usize,
        physical: bool,
    ) -> PyResult<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.guest()
            .read_memory(vcpu(index), place(address, physical), &mut bytes)
            .map_err(told)?;
        Ok(bytes)
    }

    fn write(&mut self, index: u8, address: u64, bytes: Vec<u8>, physical: bool) -> PyResult<()> {
        self.guest().write_memory(vcpu(index), place(address, physical), &bytes).map_err(told)
    }

    fn translate(&mut self, index: u8, address: u64) -> PyResult<u64> {
        self.guest().translate(vcpu(index), Va(address)).map(|ipa| ipa.0).map_err(told)
    }

    fn set_breakpoint(&mut self, address: u64, physical: bool) -> PyResult<()> {
        self.guest().set_breakpoint(0, place(address, physical)).map_err(told)
    }

    fn clear_breakpoint(&mut self, address: u64, physical: bool) -> PyResult<()> {
        self.guest().clear_breakpoint(0, place(address, physical)).map_err(told)
    }

    fn watch(
        &mut self,
        index: u8,
        address: u64,
        length: u64,
        access: &str,
        on: bool,
    ) -> PyResult<()> {
        let watchpoint = Watchpoint { address: Va(address), length, access: accesses(access)? };
        let ability = self.guest().support_watchpoints();
        let ability = ability.ok_or_else(|| failed("this machine has no watchpoints"))?;
        if on {
            ability.set_watchpoint(vcpu(index), watchpoint).map_err(told)
        } else {
            ability.clear_watchpoint(0, watchpoint).map_err(told)
        }
    }

    fn set_policy(&mut self, which: &str, word: &str) -> PyResult<()> {
        let guest = self.embedded.parts().0;
        let result = match which {
            "interrupts" => {
                let policy = word.parse().map_err(failed)?;
                guest.support_interrupts().map(|one| one.set_interrupt_policy(0, policy))
            }
            "others" => {
                let policy = word.parse().map_err(failed)?;
                guest.support_others().map(|one| one.set_others_policy(0, policy))
            }
            _ => {
                let policy = word.parse().map_err(failed)?;
                guest.support_time().map(|one| one.set_time_policy(0, policy))
            }
        };
        result.ok_or_else(goes_as_recorded)?.map_err(told)?;
        match which {
            "interrupts" => word.clone_into(&mut self.header.interrupt_policy),
            "time" => word.clone_into(&mut self.header.time_policy),
            _ => {}
        }
        Ok(())
    }

    /// Types on the guest's console; tells how many bytes it took.
    fn type_bytes(&mut self, bytes: Vec<u8>) -> PyResult<usize> {
        match self.guest().support_console() {
            Some(console) => console.type_bytes(0, &bytes).map_err(told),
            None => Ok(0),
        }
    }

    /// The name of an address.
    fn describe(&mut self, address: u64) -> Option<String> {
        self.embedded.parts().1.describe(Va(address))
    }

    /// Where a word leads: the place of a breakpoint, whether that is physical, and its address.
    /// Nothing for a module that is not loaded.
    fn resolve(&mut self, word: &str) -> PyResult<Option<(u64, bool, u64)>> {
        match self.embedded.parts().1.resolve_instruction(word) {
            Ok(target) => Ok(Some(match target.place {
                Place::Va(va) => (va.0, false, target.va.0),
                Place::Ipa(ipa) => (ipa.0, true, target.va.0),
            })),
            Err(stepwell::names::NameError::NotLoaded(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The kernel's functions where modules come and go.
    #[staticmethod]
    fn module_landmarks() -> (&'static str, &'static str) {
        (LOADED, UNLOADED)
    }

    /// A vCPU is at one of these: learns of the module, and tells its name and whether it comes.
    fn module_changes(&mut self, index: u8, pc: u64) -> PyResult<Option<(String, bool)>> {
        let stop = Stop { vcpu: vcpu(index), reason: StopReason::Breakpoint, pc: Va(pc), steps: 0 };
        let (guest, names) = self.embedded.parts();
        if let Some(module) = questions::coming(names, guest, stop).map_err(unanswered)? {
            return Ok(Some((module.name, true)));
        }
        let going = questions::going(names, guest, stop).map_err(unanswered)?;
        Ok(going.map(|module| (module.name, false)))
    }

    fn tasks(&mut self, index: u8) -> PyResult<Vec<TaskTuple>> {
        let (guest, names) = self.embedded.parts();
        let tasks = questions::tasks(names, guest, vcpu(index));
        Ok(tasks.map_err(unanswered)?.into_iter().map(tuple).collect())
    }

    fn current_task(&mut self, index: u8) -> PyResult<TaskTuple> {
        let (guest, names) = self.embedded.parts();
        let task = questions::current_task(names, guest, vcpu(index));
        task.map(tuple).map_err(unanswered)
    }

    /// Modules: name, base, bytes, users, state.
    fn modules(&mut self, index: u8) -> PyResult<Vec<ModuleTuple>> {
        let (guest, names) = self.embedded.parts();
        let modules = questions::modules(names, guest, vcpu(index)).map_err(unanswered)?;
        names.find_modules(guest, vcpu(index)).map_err(unanswered)?;
        let told = modules.into_iter().map(|module| {
            let (base, size, state) = (module.base(), module.size(), module.state.word());
            (module.name, base, size, module.references, state.to_owned())
        });
        Ok(told.collect())
    }

    /// A process's mappings: start, end, rights, offset, file.
    fn mappings(&mut self, index: u8, pid: Option<u32>) -> PyResult<Vec<MappingTuple>> {
        let task = self.task(index, pid)?;
        let (guest, names) = self.embedded.parts();
        let mappings = questions::mappings(names, guest, vcpu(index), &task);
        let mappings = mappings.map_err(unanswered)?.into_iter();
        Ok(mappings.map(|one| (one.start, one.end, one.rights(), one.offset, one.file)).collect())
    }

    /// A task's calls, the innermost first, and where it goes on in its program.
    fn stack(&mut self, index: u8, pid: Option<u32>) -> PyResult<(Vec<u64>, Option<u64>)> {
        let task = self.task(index, pid)?;
        let (guest, names) = self.embedded.parts();
        let stack = questions::stack(names, guest, vcpu(index), &task);
        let stack = stack.map_err(unanswered)?;
        Ok((stack.frames, stack.program))
    }

    /// The value of an expression, as text.
    fn value(&mut self, index: u8, expression: &str) -> PyResult<String> {
        let (debuggee, names) = self.embedded.parts();
        let value = Listings { names, debuggee, vcpu: vcpu(index) }.value(expression);
        value.map(|text| text.trim_end().to_owned()).map_err(unanswered)
    }

    /// Records all steps from now on into a new file.
    fn start_recording(&mut self, path: PathBuf) -> PyResult<()> {
        if self.recorder.is_some() {
            return Err(failed("a recording is being made: end it first"));
        }
        let recorder = Recorder::create_new(&path, &self.header);
        let recorder = recorder.map_err(|error| failed(format!("{}: {error}", path.display())))?;
        self.recorder = Some(recorder);
        Ok(())
    }

    /// Where it is: instructions since reset, and the guest's clock.
    fn moment(&mut self) -> PyResult<(u64, u64)> {
        let Moment { position, clock } = self.travel()?.moment(0).map_err(told)?;
        Ok((position, clock))
    }

    /// A hash of registers and memory, which two moments have alike that a guest cannot tell apart.
    fn state_hash(&mut self) -> PyResult<String> {
        Ok(self.travel()?.state_hash(0).map_err(told)?.to_string())
    }

    /// The last moment that can be visited.
    fn end(&mut self) -> PyResult<(u64, u64)> {
        let Moment { position, clock } = self.reverse()?.end();
        Ok((position, clock))
    }

    /// Whether there is nothing before, or nothing behind: `begin` or `end`.
    fn edge(&mut self) -> PyResult<Option<&'static str>> {
        Ok(match self.guest().support_reverse() {
            None => None,
            Some(reverse) => reverse.edge(0).map_err(told)?.map(|edge| match edge {
                Edge::Begin => "begin",
                Edge::End => "end",
            }),
        })
    }

    fn go_to(&mut self, position: u64, clock: u64) -> PyResult<()> {
        self.reverse()?.go_to(0, Moment { position, clock }).map_err(told)
    }

    fn step_back(&mut self, index: u8, count: u64) -> PyResult<()> {
        self.reverse()?.step_back(vcpu(index), count).map_err(told)
    }

    fn continue_back(&mut self) -> PyResult<()> {
        self.reverse()?.continue_back(0).map_err(told)
    }

    /// Goes back to the last access to some bytes.
    fn last_access(&mut self, index: u8, address: u64, length: u64, access: &str) -> PyResult<()> {
        let watchpoint = Watchpoint { address: Va(address), length, access: accesses(access)? };
        self.reverse()?.last_access(vcpu(index), watchpoint).map_err(told)
    }

    fn take_snapshot(&mut self, name: &str) -> PyResult<()> {
        self.reverse()?.take_snapshot(0, name).map_err(told)
    }

    fn go_to_snapshot(&mut self, name: &str) -> PyResult<()> {
        self.reverse()?.go_to_snapshot(0, name).map_err(told)
    }

    fn snapshots(&mut self) -> PyResult<Vec<SnapshotTuple>> {
        let all = self.reverse()?.snapshots().into_iter();
        Ok(all
            .map(|one| (one.name, one.moment.position, one.moment.clock, one.is_of_fork))
            .collect())
    }

    /// Leaves the recorded run.
    fn fork(&mut self) -> PyResult<()> {
        self.travel()?.fork(0).map_err(told)
    }

    /// Completes the recording; tells how many instructions are in it.
    fn finish_recording(&mut self) -> PyResult<u64> {
        self.drain()?;
        let recorder = self.recorder.take().ok_or_else(|| failed("nothing is being recorded"))?;
        Ok(recorder.finish(self.embedded.parts().1).map_err(failed)?.instructions)
    }
}

impl Core {
    fn guest(&mut self) -> &mut dyn Debuggee {
        self.embedded.parts().0
    }

    /// Of a run that can be gone back in, too.
    fn travel(&mut self) -> PyResult<&mut dyn TimeTravel> {
        self.reverse()?;
        self.guest().support_time_travel().ok_or_else(goes_only_forwards)
    }

    fn reverse(&mut self) -> PyResult<&mut dyn Reverse> {
        self.guest().support_reverse().ok_or_else(goes_only_forwards)
    }

    fn task(&mut self, index: u8, pid: Option<u32>) -> PyResult<Task> {
        let (guest, names) = self.embedded.parts();
        let Some(pid) = pid else {
            return questions::current_task(names, guest, vcpu(index)).map_err(unanswered);
        };
        let tasks = questions::tasks(names, guest, vcpu(index));
        let found = tasks.map_err(unanswered)?.into_iter().find(|task| task.pid == pid);
        found.ok_or_else(|| NotLinux::new_err(stepwell_linux::Error::NoTask(pid).to_string()))
    }

    /// Takes recorded steps, so that the ring has room.
    fn drain(&mut self) -> PyResult<()> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let mut records = Vec::new();
        if let Some(trace) = self.embedded.parts().0.support_trace() {
            trace.drain(&mut records).map_err(told)?;
        }
        recorder.take(&mut records).map_err(failed)
    }

    /// While the guest is stopped: what a recording has of code and names.
    fn name_recording(&mut self, vcpu: VcpuId) -> PyResult<()> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let (guest, names) = self.embedded.parts();
        recorder.notice_modules(names, guest, vcpu).map_err(told)?;
        let fetched = recorder.fetch_code(guest, vcpu);
        fetched.map_err(|error| failed(error.to_string()))?;
        recorder.name(names).map_err(failed)
    }
}

fn accesses(word: &str) -> PyResult<WatchAccess> {
    match word {
        "read" => Ok(WatchAccess::Read),
        "write" => Ok(WatchAccess::Write),
        "access" => Ok(WatchAccess::ReadWrite),
        other => Err(failed(format!("{other}: \"read\", \"write\" or \"access\""))),
    }
}

fn goes_as_recorded() -> PyErr {
    Refused::new_err("a recorded run goes as it was recorded: policies are for other guests")
}

fn goes_only_forwards() -> PyErr {
    failed(
        "this guest only goes forwards: Machine(..., record=LOG) or Machine.replay(LOG) goes back",
    )
}

/// A word for a reason, and the address that it is about.
fn reason_of(reason: StopReason) -> (String, u64) {
    match reason {
        StopReason::Watchpoint { address, .. } => ("watchpoint".to_owned(), address.0),
        StopReason::PrivilegedCall { immediate } => ("smc".to_owned(), immediate.into()),
        other => (other.to_string(), 0),
    }
}
