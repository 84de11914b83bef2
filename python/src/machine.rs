//! A machine with a guest in it, and everything that is asked of either.

use crate::errors::{NotLinux, Refused};
use crate::failed;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::time::Duration;
use stepwell::linux::LinuxError;
use stepwell::listings::Listings;
use stepwell::machine::{Guest, Layout, MachineOptions, QemuMachine};
use stepwell::names::Names;
use stepwell::questions::{self, LOADED, UNLOADED};
use stepwell::recorder::Recorder;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Error, Event, Place, Registers, StepRequest, Stop, StopReason, VcpuId,
    WatchAccess, Watchpoint,
};
use stepwell_link::Link;
use stepwell_linux::Task;
use stepwell_trace::symbols::elf;
use stepwell_trace::{Header, RawPolicy};

/// A task: number, process, name, state, CPU, whether it is on it, address of its structure.
type TaskTuple = (u32, u32, String, String, u32, bool, u64);

/// A module: name, base, bytes, users, state.
type ModuleTuple = (String, u64, u64, u64, String);

/// A mapping: start, end, rights, offset, file.
type MappingTuple = (u64, u64, String, u64, Option<String>);

/// What happened: its kind, and what there is to tell of it.
type Happened = (&'static str, u8, String, u64, u64, Vec<u8>);

/// A machine, its guest's names, and what is recorded of it.
#[pyclass(unsendable)]
pub struct Core {
    /// Dropped first: the machine ends by it.
    link: Link,
    machine: QemuMachine,
    names: Names,
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
    /// Starts a machine; its guest is stopped at reset once that event was taken.
    #[new]
    #[pyo3(signature = (kernel, initrd, append, smp, memory, cpu, symbols, qemu, hypervisor, raw, verbose))]
    #[expect(clippy::too_many_arguments, reason = "Python's class names each of them")]
    fn launch(
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        append: String,
        smp: u8,
        memory: &str,
        cpu: String,
        symbols: Option<PathBuf>,
        qemu: Option<PathBuf>,
        hypervisor: Option<PathBuf>,
        raw: bool,
        verbose: bool,
    ) -> PyResult<Self> {
        let policy = if raw { RawPolicy::Accept } else { RawPolicy::Refuse };
        let mut guest = Guest::read(&kernel, policy).map_err(failed)?;
        if let Some(initrd) = initrd {
            guest = guest.with_initrd(&initrd).map_err(failed)?;
        }
        guest.command_line = append;
        let memory = memory.parse().map_err(|error| failed(format!("memory: {error}")))?;
        let layout = Layout::new(memory, &guest).map_err(failed)?;
        let symbols = symbols.map(|path| {
            let bytes = std::fs::read(&path).map_err(|error| error.to_string());
            let read = bytes.and_then(|bytes| elf::from_elf(&bytes).map_err(|e| e.to_string()));
            read.map_err(|error| failed(format!("{}: {error}", path.display())))
        });
        let names = Names::new(symbols.transpose()?, &guest, &layout);
        let defaults = MachineOptions::default();
        let qemu = qemu.unwrap_or(defaults.qemu.clone());
        let options = MachineOptions { smp, memory, cpu, hypervisor, qemu, verbose, ..defaults };
        let (machine, link) = QemuMachine::launch(&options, &guest).map_err(failed)?;
        let header = Header {
            stepwell_version: env!("CARGO_PKG_VERSION").into(),
            cpu_model: options.cpu,
            command_line: guest.command_line,
            interrupt_policy: "over".into(),
            time_policy: "stopped".into(),
            recorded: "pc".into(),
            vcpus: smp,
        };
        Ok(Self { link, machine, names, header, recorder: None })
    }

    /// QEMU's process.
    fn process_id(&self) -> u32 {
        self.machine.process_id()
    }

    /// Waits for what happens next, so many seconds at most.
    fn wait(&mut self, seconds: f64) -> PyResult<Option<Happened>> {
        let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let event = self.link.wait(timeout).map_err(told)?;
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
                self.names.locate(&mut self.link, stop.vcpu, stop.pc).map_err(told)?;
                self.name_recording(stop.vcpu)?;
                let (reason, address) = reason_of(stop.reason);
                let (pc, steps, index) = (stop.pc.0, stop.steps, stop.vcpu.vcpu);
                let address = address.to_le_bytes().to_vec();
                Some(("stopped", index, reason, pc, steps, address))
            }
        })
    }

    fn pause(&mut self) -> PyResult<()> {
        self.link.pause(0).map_err(told)
    }

    fn resume(&mut self) -> PyResult<()> {
        self.link.resume(0).map_err(told)
    }

    /// Sets one vCPU stepping.
    fn step(&mut self, index: u8, count: u64, until: Option<u64>) -> PyResult<()> {
        let record = self.recorder.is_some();
        let request = StepRequest { until: until.map(Va), record, ..StepRequest::steps(count) };
        self.link.step(vcpu(index), request).map_err(told)
    }

    /// X0 to X30, SP, PC and PSTATE.
    fn registers(&mut self, index: u8) -> PyResult<Vec<u64>> {
        let registers = self.link.read_registers(vcpu(index)).map_err(told)?;
        let Registers { x, sp, pc, pstate } = registers;
        Ok(x.into_iter().chain([sp, pc, pstate]).collect())
    }

    fn write_registers(&mut self, index: u8, values: Vec<u64>) -> PyResult<()> {
        let Ok([x @ .., sp, pc, pstate]) = <[u64; 34]>::try_from(values) else {
            return Err(failed("34 registers: X0 to X30, SP, PC and PSTATE"));
        };
        let registers = Registers { x, sp, pc, pstate };
        self.link.write_registers(vcpu(index), &registers).map_err(told)
    }

    /// Reads a system register by its encoding, op0:op1:CRn:CRm:op2 as in bits 20:5 of MRS.
    fn system_register(&mut self, index: u8, encoding: u16) -> PyResult<u64> {
        let system = self.link.support_system_registers();
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
        self.link.read_memory(vcpu(index), place(address, physical), &mut bytes).map_err(told)?;
        Ok(bytes)
    }

    fn write(&mut self, index: u8, address: u64, bytes: Vec<u8>, physical: bool) -> PyResult<()> {
        self.link.write_memory(vcpu(index), place(address, physical), &bytes).map_err(told)
    }

    fn translate(&mut self, index: u8, address: u64) -> PyResult<u64> {
        self.link.translate(vcpu(index), Va(address)).map(|ipa| ipa.0).map_err(told)
    }

    fn set_breakpoint(&mut self, address: u64, physical: bool) -> PyResult<()> {
        self.link.set_breakpoint(0, place(address, physical)).map_err(told)
    }

    fn clear_breakpoint(&mut self, address: u64, physical: bool) -> PyResult<()> {
        self.link.clear_breakpoint(0, place(address, physical)).map_err(told)
    }

    fn watch(
        &mut self,
        index: u8,
        address: u64,
        length: u64,
        access: &str,
        on: bool,
    ) -> PyResult<()> {
        let access = match access {
            "read" => WatchAccess::Read,
            "write" => WatchAccess::Write,
            "access" => WatchAccess::ReadWrite,
            other => return Err(failed(format!("{other}: \"read\", \"write\" or \"access\""))),
        };
        let watchpoint = Watchpoint { address: Va(address), length, access };
        let ability = self.link.support_watchpoints();
        let ability = ability.ok_or_else(|| failed("this machine has no watchpoints"))?;
        if on {
            ability.set_watchpoint(vcpu(index), watchpoint).map_err(told)
        } else {
            ability.clear_watchpoint(0, watchpoint).map_err(told)
        }
    }

    fn set_policy(&mut self, which: &str, word: &str) -> PyResult<()> {
        let result = match which {
            "interrupts" => {
                let policy = word.parse().map_err(failed)?;
                self.header.interrupt_policy = word.to_owned();
                self.link.support_interrupts().map(|one| one.set_interrupt_policy(0, policy))
            }
            "others" => {
                let policy = word.parse().map_err(failed)?;
                self.link.support_others().map(|one| one.set_others_policy(0, policy))
            }
            _ => {
                let policy = word.parse().map_err(failed)?;
                self.header.time_policy = word.to_owned();
                self.link.support_time().map(|one| one.set_time_policy(0, policy))
            }
        };
        result.unwrap_or(Ok(())).map_err(told)
    }

    /// Types on the guest's console; tells how many bytes it took.
    fn type_bytes(&mut self, bytes: Vec<u8>) -> PyResult<usize> {
        match self.link.support_console() {
            Some(console) => console.type_bytes(0, &bytes).map_err(told),
            None => Ok(0),
        }
    }

    /// The name of an address.
    fn describe(&self, address: u64) -> Option<String> {
        self.names.describe(Va(address))
    }

    /// Where a word leads: the place of a breakpoint, whether that is physical, and its address.
    /// Nothing for a module that is not loaded.
    fn resolve(&mut self, word: &str) -> PyResult<Option<(u64, bool, u64)>> {
        match self.names.resolve_instruction(word) {
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
        let link = &mut self.link;
        if let Some(module) = questions::coming(&mut self.names, link, stop).map_err(unanswered)? {
            return Ok(Some((module.name, true)));
        }
        let going = questions::going(&mut self.names, link, stop).map_err(unanswered)?;
        Ok(going.map(|module| (module.name, false)))
    }

    fn tasks(&mut self, index: u8) -> PyResult<Vec<TaskTuple>> {
        let tasks = questions::tasks(&mut self.names, &mut self.link, vcpu(index));
        Ok(tasks.map_err(unanswered)?.into_iter().map(tuple).collect())
    }

    fn current_task(&mut self, index: u8) -> PyResult<TaskTuple> {
        let task = questions::current_task(&mut self.names, &mut self.link, vcpu(index));
        task.map(tuple).map_err(unanswered)
    }

    /// Modules: name, base, bytes, users, state.
    fn modules(&mut self, index: u8) -> PyResult<Vec<ModuleTuple>> {
        let modules = questions::modules(&mut self.names, &mut self.link, vcpu(index));
        let modules = modules.map_err(unanswered)?;
        self.names.find_modules(&mut self.link, vcpu(index)).map_err(unanswered)?;
        let told = modules.into_iter().map(|module| {
            let (base, size, state) = (module.base(), module.size(), module.state.word());
            (module.name, base, size, module.references, state.to_owned())
        });
        Ok(told.collect())
    }

    /// A process's mappings: start, end, rights, offset, file.
    fn mappings(&mut self, index: u8, pid: Option<u32>) -> PyResult<Vec<MappingTuple>> {
        let task = self.task(index, pid)?;
        let mappings = questions::mappings(&mut self.names, &mut self.link, vcpu(index), &task);
        let mappings = mappings.map_err(unanswered)?.into_iter();
        Ok(mappings.map(|one| (one.start, one.end, one.rights(), one.offset, one.file)).collect())
    }

    /// A task's calls, the innermost first, and where it goes on in its program.
    fn stack(&mut self, index: u8, pid: Option<u32>) -> PyResult<(Vec<u64>, Option<u64>)> {
        let task = self.task(index, pid)?;
        let stack = questions::stack(&mut self.names, &mut self.link, vcpu(index), &task);
        let stack = stack.map_err(unanswered)?;
        Ok((stack.frames, stack.program))
    }

    /// The value of an expression, as text.
    fn value(&mut self, index: u8, expression: &str) -> PyResult<String> {
        let (names, debuggee) = (&mut self.names, &mut self.link);
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

    /// Completes the recording; tells how many instructions are in it.
    fn finish_recording(&mut self) -> PyResult<u64> {
        self.drain()?;
        let recorder = self.recorder.take().ok_or_else(|| failed("nothing is being recorded"))?;
        Ok(recorder.finish(&self.names).map_err(failed)?.instructions)
    }
}

impl Core {
    fn task(&mut self, index: u8, pid: Option<u32>) -> PyResult<Task> {
        let Some(pid) = pid else {
            let current = questions::current_task(&mut self.names, &mut self.link, vcpu(index));
            return current.map_err(unanswered);
        };
        let tasks = questions::tasks(&mut self.names, &mut self.link, vcpu(index));
        let found = tasks.map_err(unanswered)?.into_iter().find(|task| task.pid == pid);
        found.ok_or_else(|| NotLinux::new_err(stepwell_linux::Error::NoTask(pid).to_string()))
    }

    /// Takes recorded steps, so that the ring has room.
    fn drain(&mut self) -> PyResult<()> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let mut records = Vec::new();
        if let Some(trace) = self.link.support_trace() {
            trace.drain(&mut records).map_err(told)?;
        }
        recorder.take(&mut records).map_err(failed)
    }

    /// While the guest is stopped: what a recording has of code and names.
    fn name_recording(&mut self, vcpu: VcpuId) -> PyResult<()> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        recorder.notice_modules(&mut self.names, &mut self.link, vcpu).map_err(told)?;
        let fetched = recorder.fetch_code(&mut self.link, vcpu);
        fetched.map_err(|error| failed(error.to_string()))?;
        recorder.name(&self.names).map_err(failed)
    }
}

/// A word for a reason, and the address that it is about.
fn reason_of(reason: StopReason) -> (String, u64) {
    match reason {
        StopReason::Watchpoint { address, .. } => ("watchpoint".to_owned(), address.0),
        StopReason::PrivilegedCall { immediate } => ("smc".to_owned(), immediate.into()),
        other => (other.to_string(), 0),
    }
}
