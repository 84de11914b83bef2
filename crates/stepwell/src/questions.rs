//! What the commands ask of a Linux guest that stands: tasks, modules, and which one is being loaded.

use crate::linux::LinuxError;
use crate::names::Names;
use stepwell_arch::SystemRegister;
use stepwell_debuggee::{Debuggee, Stop, VcpuId, VcpuState};
use stepwell_linux::{Error, Kernel, Memory, Module, Task, module, task};

/// The kernel's function that calls a module's `init`, when all of the module is in its place. Its
/// argument is the module.
pub const LOADED: &str = "do_init_module";

/// Learns of the module that the kernel is about to initialize: `stop` is at [`LOADED`]. Nothing if
/// it is not.
///
/// # Errors
///
/// [`LinuxError`].
pub fn loading(
    names: &mut Names,
    debuggee: &mut dyn Debuggee,
    stop: Stop,
) -> Result<Option<Module>, LinuxError> {
    names.locate(debuggee, stop.vcpu, stop.pc).map_err(Error::from)?;
    if names.resolve(LOADED).is_ok_and(|target| target.va != stop.pc) {
        return Ok(None);
    }
    let address = debuggee.read_registers(stop.vcpu).map_err(Error::from)?.x[0];
    names.find_modules(debuggee, stop.vcpu)?;
    let read = |kernel: &Kernel, memory: &mut dyn Memory| Module::read(kernel, memory, address);
    names.ask(debuggee, stop.vcpu, read).map(Some)
}

impl Names {
    /// Returns the guest's tasks.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn tasks(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<Vec<Task>, LinuxError> {
        self.ask(debuggee, vcpu, |kernel, memory| task::all(kernel, memory))
    }

    /// Returns the guest's modules, the newest first.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn modules(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<Vec<Module>, LinuxError> {
        self.ask(debuggee, vcpu, |kernel, memory| module::all(kernel, memory))
    }

    /// Returns the task that each vCPU executes; nothing for one that is off.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn current_tasks(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<Vec<Option<Task>>, LinuxError> {
        let status = debuggee.status(vcpu.domain).map_err(Error::from)?;
        let mut offsets = Vec::new();
        for (number, status) in (0..).zip(status) {
            let id = VcpuId { vcpu: number, ..vcpu };
            let stands = status.state == VcpuState::Stopped;
            offsets.push(if stands { Some(per_cpu_offset(debuggee, id)?) } else { None });
        }
        self.ask(debuggee, vcpu, |kernel, memory| {
            let current = |offset: Option<u64>| {
                let at = offset.map(|offset| kernel.current(memory, offset)).transpose()?;
                at.map(|at| Task::read(kernel, memory, at)).transpose()
            };
            offsets.into_iter().map(current).collect()
        })
    }
}

/// Returns what a CPU adds to the address of a variable that each has its own of.
fn per_cpu_offset(debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<u64, Error> {
    let Some(system) = debuggee.support_system_registers() else { return Err(Error::NotRunning) };
    Ok(system.read_system_register(vcpu, SystemRegister::TPIDR_EL1.0)?)
}
