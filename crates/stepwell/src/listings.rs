//! What a Linux guest tells, as text: the same for the stepper and for `monitor` in GDB.

use crate::linux::LinuxError;
use crate::names::Names;
use crate::questions;
use std::fmt::Write;
use stepwell_arch::Va;
use stepwell_debuggee::{Debuggee, Registers, VcpuId};
use stepwell_linux::expression::{self, ExpressionError, Scope};
use stepwell_linux::{Error, Task};

/// A stopped guest, and what is known of it.
pub struct Listings<'a> {
    /// Its names.
    pub names: &'a mut Names,
    /// The guest.
    pub debuggee: &'a mut dyn Debuggee,
    /// The vCPU that is spoken of.
    pub vcpu: VcpuId,
}

impl Listings<'_> {
    /// Lists the tasks, a line each, with `*` behind the CPU of one that is on it.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn tasks(&mut self) -> Result<String, LinuxError> {
        let tasks = questions::tasks(self.names, self.debuggee, self.vcpu)?;
        let on_cpu = questions::current_tasks(self.names, self.debuggee, self.vcpu.domain)?;
        let mut text = "    PID    TGID  S  CPU   NAME\n".to_owned();
        for task in idle(&on_cpu, &tasks).chain(&tasks) {
            let is_current = on_cpu.iter().flatten().any(|one| one.address == task.address);
            let mark = if is_current { '*' } else { ' ' };
            let (Task { pid, tgid, state, cpu, .. }, name) = (task, task.shown());
            line(&mut text, format_args!("{pid:>7} {tgid:>7}  {state}  {cpu:>3}{mark}  {name}"));
        }
        Ok(text)
    }

    /// Lists the modules, a line each.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn modules(&mut self) -> Result<String, LinuxError> {
        let modules = questions::modules(self.names, self.debuggee, self.vcpu)?;
        self.names.find_modules(self.debuggee, self.vcpu)?;
        if modules.is_empty() {
            return Ok("no module is loaded\n".to_owned());
        }
        let mut text = "NAME                        SIZE   USED  STATE      BASE\n".to_owned();
        for module in modules {
            let (size, used, base) = (module.size(), module.references, module.base());
            let (name, state) = (&module.name, module.state.word());
            let all = format_args!("{name:<24} {size:>7} {used:>6}  {state:<9}  {base:#018x}");
            line(&mut text, all);
        }
        Ok(text)
    }

    /// Lists what a process has mapped, in the lines of `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn mappings(&mut self, pid: Option<u32>) -> Result<String, LinuxError> {
        let task = self.task(pid)?;
        let mappings = questions::mappings(self.names, self.debuggee, self.vcpu, &task)?;
        if mappings.is_empty() {
            return Ok(format!("{} {} has no addresses\n", task.pid, task.shown()));
        }
        let mut text = String::new();
        for one in mappings {
            line(&mut text, format_args!("{}", one.line()));
        }
        Ok(text)
    }

    /// Shows how a task came to where it is, the innermost function first. Of the others the call
    /// is shown that they are in.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn stack(&mut self, pid: Option<u32>) -> Result<String, LinuxError> {
        let task = self.task(pid)?;
        let stack = questions::stack(self.names, self.debuggee, self.vcpu, &task)?;
        let mut text = format!("{} {} ({})\n", task.pid, task.shown(), task.state);
        for (number, frame) in stack.frames.iter().enumerate() {
            let at = if number == 0 { *frame } else { frame.wrapping_sub(4) };
            let name = self.names.describe(Va(at)).unwrap_or_else(|| "?".to_owned());
            line(&mut text, format_args!("#{number:<3} {at:#018x}  {name}"));
        }
        if let Some(pc) = stack.program {
            let number = stack.frames.len();
            line(&mut text, format_args!("#{number:<3} {pc:#018x}  (program)"));
        }
        if stack.is_cut {
            line(&mut text, format_args!("the stack cannot be followed further"));
        }
        Ok(text)
    }

    /// Shows the value of an expression.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn value(&mut self, text: &str) -> Result<String, LinuxError> {
        let kernel = self.names.kernel()?;
        let registers = self.debuggee.read_registers(self.vcpu).map_err(Error::from)?;
        let offset = questions::per_cpu_offset(self.debuggee, self.vcpu).ok();
        let names = &*self.names;
        let value = kernel.ask(self.debuggee, self.vcpu, |kernel, memory| {
            let current = offset.map(|offset| kernel.current(memory, offset)).transpose();
            let here = Here { registers, offset, current: current.ok().flatten(), names };
            expression::print(text, kernel, memory, &here)
        });
        value.map(|value| format!("{value}\n")).map_err(|error| match error {
            ExpressionError::Guest(error) => LinuxError::Guest(error),
            error => LinuxError::Kernel(error.to_string()),
        })
    }

    /// Finds a task by its number, or that which this vCPU executes.
    fn task(&mut self, pid: Option<u32>) -> Result<Task, LinuxError> {
        let Some(pid) = pid else {
            return questions::current_task(self.names, self.debuggee, self.vcpu);
        };
        let tasks = questions::tasks(self.names, self.debuggee, self.vcpu)?;
        let found = tasks.into_iter().find(|task| task.pid == pid);
        Ok(found.ok_or(Error::NoTask(pid))?)
    }
}

/// Returns those that CPUs are idle with, of which the list has the first one only.
fn idle<'a>(on_cpu: &'a [Option<Task>], tasks: &'a [Task]) -> impl Iterator<Item = &'a Task> {
    let listed = |one: &Task| tasks.iter().any(|task| task.address == one.address);
    on_cpu.iter().flatten().filter(move |one| !listed(one))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _infallible = text.write_fmt(format_args!("{arguments}\n"));
}

/// What names mean where the vCPU is.
struct Here<'a> {
    registers: Registers,
    offset: Option<u64>,
    current: Option<u64>,
    names: &'a Names,
}

impl Scope for Here<'_> {
    fn current(&self) -> Option<u64> {
        self.current
    }

    fn per_cpu_offset(&self) -> Option<u64> {
        self.offset
    }

    fn register(&self, name: &str) -> Option<u64> {
        self.registers.named(name)
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        self.names.resolve(name).ok().map(|target| target.va.0)
    }

    fn describe(&self, address: u64) -> Option<String> {
        self.names.describe(Va(address))
    }
}
