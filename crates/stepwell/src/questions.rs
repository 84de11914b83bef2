//! What the commands ask of a stopped Linux guest: tasks, modules, and which one is being loaded.

use crate::linux::LinuxError;
use crate::names::{NameError, Names, Target};
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_debuggee::{Debuggee, Place, Stop, VcpuId, VcpuState};
use stepwell_linux::stack::{self, Stack, Top};
use stepwell_linux::{Error, Kernel, Mapping, Memory, Module, Task, mapping, module, task};

/// The kernel's function that calls a module's `init`, when all of the module is in its place. Its
/// argument is the module.
pub const LOADED: &str = "do_init_module";

/// The kernel's function that frees a module, which is its argument.
pub const UNLOADED: &str = "free_module";

/// The kernel's function that frees what modules had for their initialization only.
pub const INITIALIZED: &str = "do_free_init";

/// The kernel's function that `exec` calls last: the new program is in its place.
pub const EXECUTED: &str = "finalize_exec";

/// Learns of the module that the kernel is about to initialize: `stop` is at [`LOADED`]. Nothing if
/// it is not.
///
/// # Errors
///
/// [`LinuxError`].
pub fn coming(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    stop: Stop,
) -> Result<Option<Module>, LinuxError> {
    let found = argument(names, debuggee, stop, LOADED)?;
    if found.is_some() {
        names.find_modules(debuggee, stop.vcpu)?;
    }
    Ok(found)
}

/// Returns the module that the kernel is about to free: `stop` is at [`UNLOADED`]. Nothing if it is
/// not.
///
/// # Errors
///
/// [`LinuxError`].
pub fn going(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    stop: Stop,
) -> Result<Option<Module>, LinuxError> {
    argument(names, debuggee, stop, UNLOADED)
}

/// Returns the module that a function of the kernel's is called for, if `stop` is at its beginning.
fn argument(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    stop: Stop,
    function: &str,
) -> Result<Option<Module>, LinuxError> {
    names.locate(debuggee, stop.vcpu, stop.pc).map_err(Error::from)?;
    if names.resolve(function).is_ok_and(|target| target.va != stop.pc) {
        return Ok(None);
    }
    let address = debuggee.read_registers(stop.vcpu).map_err(Error::from)?.x[0];
    let read = |kernel: &Kernel, memory: &mut dyn Memory| Module::read(kernel, memory, address);
    Ok(names.kernel()?.ask(debuggee, stop.vcpu, read).map(Some)?)
}

/// Returns the guest's tasks.
///
/// # Errors
///
/// [`LinuxError`].
pub fn tasks(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
) -> Result<Vec<Task>, LinuxError> {
    let all = |kernel: &Kernel, memory: &mut dyn Memory| task::all(kernel, memory);
    Ok(names.kernel()?.ask(debuggee, vcpu, all)?)
}

/// Returns the guest's modules, the newest first.
///
/// # Errors
///
/// [`LinuxError`].
pub fn modules(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
) -> Result<Vec<Module>, LinuxError> {
    let all = |kernel: &Kernel, memory: &mut dyn Memory| module::all(kernel, memory);
    Ok(names.kernel()?.ask(debuggee, vcpu, all)?)
}

/// Returns the task that a vCPU executes.
///
/// # Errors
///
/// [`LinuxError`].
pub fn current_task(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
) -> Result<Task, LinuxError> {
    let kernel = names.kernel()?;
    let offset = per_cpu_offset(debuggee, vcpu)?;
    Ok(kernel.ask(debuggee, vcpu, |kernel, memory| {
        let at = kernel.current(memory, offset)?;
        Task::read(kernel, memory, at)
    })?)
}

/// Returns the task that each vCPU executes; nothing for one that is not stopped.
///
/// # Errors
///
/// [`LinuxError`].
pub fn current_tasks(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    domain: u8,
) -> Result<Vec<Option<Task>>, LinuxError> {
    let status = debuggee.status(domain).map_err(Error::from)?;
    let mut tasks = Vec::new();
    for (vcpu, status) in (0..).zip(status) {
        let is_stopped = status.state == VcpuState::Stopped;
        let id = VcpuId { domain, vcpu };
        tasks.push(if is_stopped { Some(current_task(names, debuggee, id)?) } else { None });
    }
    Ok(tasks)
}

/// Returns what a process has mapped; nothing for a thread of the kernel's.
///
/// # Errors
///
/// [`LinuxError`].
pub fn mappings(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    task: &Task,
) -> Result<Vec<Mapping>, LinuxError> {
    if task.mm == 0 {
        return Ok(Vec::new());
    }
    let all = |kernel: &Kernel, memory: &mut dyn Memory| mapping::all(kernel, memory, task.mm);
    Ok(names.kernel()?.ask(debuggee, vcpu, all)?)
}

/// Finds where a place in a program (`PROGRAM!SYMBOL`) is: in the process that the vCPU executes, or
/// else in the first that has the program mapped.
///
/// # Errors
///
/// [`NameError`] and [`LinuxError`].
pub fn in_program(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    word: &str,
) -> anyhow::Result<Target> {
    let found = in_processes(names, debuggee, vcpu, word, 1)?;
    let program = word.split('!').next().unwrap_or(word);
    found.first().copied().ok_or_else(|| NameError::NotMapped(program.to_owned()).into())
}

/// As [`in_program`], wherever a process has it; nothing where none has.
///
/// # Errors
///
/// As [`in_program`].
pub fn everywhere_in_program(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    word: &str,
) -> anyhow::Result<Vec<Target>> {
    in_processes(names, debuggee, vcpu, word, usize::MAX)
}

/// The first so many addresses that processes have a place in a program at.
fn in_processes(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    word: &str,
    most: usize,
) -> anyhow::Result<Vec<Target>> {
    names.programs().check(word)?;
    let current = current_task(names, debuggee, vcpu)?;
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    for task in std::iter::once(current).chain(tasks(names, debuggee, vcpu)?) {
        if task.mm == 0 || seen.contains(&task.mm) {
            continue;
        }
        seen.push(task.mm);
        let mappings = mappings(names, debuggee, vcpu, &task)?;
        if let Some(va) = names.programs().resolve(word, &mappings)? {
            let target = Target { place: Place::Va(va), va };
            if !found.contains(&target) {
                found.push(target);
            }
        }
        if found.len() >= most {
            break;
        }
    }
    Ok(found)
}

/// Returns how a task came to where it is: one that a vCPU executes, or one that waits.
///
/// # Errors
///
/// [`LinuxError`].
pub fn stack(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    task: &Task,
) -> Result<Stack, LinuxError> {
    let running = current_tasks(names, debuggee, vcpu.domain)?;
    let on = running.iter().position(|one| one.as_ref().is_some_and(|t| t.address == task.address));
    let Some(on) = on.and_then(|on| u8::try_from(on).ok()) else {
        let waits = |kernel: &Kernel, memory: &mut dyn Memory| {
            let top = Top::of_sleeper(kernel, memory, task.address)?;
            stack::follow(kernel, memory, top)
        };
        return Ok(names.kernel()?.ask(debuggee, vcpu, waits)?);
    };
    let on = VcpuId { vcpu: on, ..vcpu };
    let registers = debuggee.read_registers(on).map_err(Error::from)?;
    if Pstate(registers.pstate).el() == 0 {
        return Ok(Stack { program: Some(registers.pc), ..Stack::default() });
    }
    let (pc, fp, lr) = (registers.pc, registers.x[29], registers.x[30]);
    let function = |at: u64| names.describe(Va(at)).map(|name| before_plus(&name).to_owned());
    let is_elsewhere = function(pc) != function(lr.wrapping_sub(4));
    let follow = |kernel: &Kernel, memory: &mut dyn Memory| {
        let recorded = memory.read_u64(fp.wrapping_add(8)).unwrap_or_default();
        // A function that has made no record yet, or never does, has its way back in X30; one that
        // has may have any there.
        let is_way_back = lr != recorded && is_elsewhere;
        stack::follow(kernel, memory, Top { pc, lr: is_way_back.then_some(lr), fp })
    };
    Ok(names.kernel()?.ask(debuggee, vcpu, follow)?)
}

fn before_plus(name: &str) -> &str {
    name.split('+').next().unwrap_or(name)
}

/// Returns what a CPU adds to the address of a variable that each has its own of.
///
/// # Errors
///
/// [`Error::Debuggee`].
pub fn per_cpu_offset(debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<u64, Error> {
    let Some(system) = debuggee.support_system_registers() else { return Err(Error::NotRunning) };
    Ok(system.read_system_register(vcpu, SystemRegister::TPIDR_EL1.0)?)
}
