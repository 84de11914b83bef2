//! What the stepper shows of a Linux guest: tasks, modules, mappings, stacks and structures.

use super::Stepper;
use super::view::core_register;
use crate::names::Names;
use crate::questions;
use stepwell_arch::Va;
use stepwell_debuggee::Registers;
use stepwell_linux::expression::{self, ExpressionError, Scope};
use stepwell_linux::{Error, Task};

impl Stepper<'_> {
    /// Shows the tasks, a line each, with `*` behind the CPU of one that is on it.
    pub(super) fn processes(&mut self) -> anyhow::Result<()> {
        let tasks = questions::tasks(&mut self.names, self.debuggee, self.vcpu)?;
        let on_cpu = questions::current_tasks(&mut self.names, self.debuggee, self.vcpu.domain)?;
        writeln!(self.output, "    PID    TGID  S  CPU   NAME")?;
        for task in idle(&on_cpu, &tasks).chain(&tasks) {
            let is_current = on_cpu.iter().flatten().any(|one| one.address == task.address);
            let mark = if is_current { '*' } else { ' ' };
            let (Task { pid, tgid, state, cpu, .. }, name) = (task, task.shown());
            writeln!(self.output, "{pid:>7} {tgid:>7}  {state}  {cpu:>3}{mark}  {name}")?;
        }
        Ok(())
    }

    /// Shows the modules, a line each.
    pub(super) fn modules(&mut self) -> anyhow::Result<()> {
        let modules = questions::modules(&mut self.names, self.debuggee, self.vcpu)?;
        self.names.find_modules(self.debuggee, self.vcpu)?;
        if modules.is_empty() {
            return Ok(writeln!(self.output, "no module is loaded")?);
        }
        writeln!(self.output, "NAME                        SIZE   USED  STATE      BASE")?;
        for module in modules {
            let (size, used, base) = (module.size(), module.references, module.base());
            let (name, state) = (&module.name, module.state.word());
            writeln!(self.output, "{name:<24} {size:>7} {used:>6}  {state:<9}  {base:#018x}")?;
        }
        Ok(())
    }

    /// Shows what a process has mapped, in the columns of `/proc/PID/maps`.
    pub(super) fn mappings(&mut self, pid: Option<u32>) -> anyhow::Result<()> {
        let task = self.task(pid)?;
        let mappings = questions::mappings(&mut self.names, self.debuggee, self.vcpu, &task)?;
        if mappings.is_empty() {
            return Ok(writeln!(self.output, "{} {} has no addresses", task.pid, task.shown())?);
        }
        for one in mappings {
            let (rights, file) = (one.rights(), one.file.as_deref().unwrap_or_default());
            let (start, end, offset) = (one.start, one.end, one.offset);
            let line = format!("{start:08x}-{end:08x} {rights} {offset:08x}  {file}");
            writeln!(self.output, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Shows how a task came to where it is, the innermost function first. Of the others the call is
    /// shown that they are in.
    pub(super) fn stack(&mut self, pid: Option<u32>) -> anyhow::Result<()> {
        let task = self.task(pid)?;
        let stack = questions::stack(&mut self.names, self.debuggee, self.vcpu, &task)?;
        writeln!(self.output, "{} {} ({})", task.pid, task.shown(), task.state)?;
        for (number, frame) in stack.frames.iter().enumerate() {
            let at = if number == 0 { *frame } else { frame.wrapping_sub(4) };
            writeln!(self.output, "#{number:<3} {at:#018x}  {}", self.name(Va(at)))?;
        }
        if let Some(pc) = stack.program {
            writeln!(self.output, "#{:<3} {pc:#018x}  (program)", stack.frames.len())?;
        }
        if stack.is_cut {
            writeln!(self.output, "the stack cannot be followed further")?;
        }
        Ok(())
    }

    /// Shows the value of an expression.
    pub(super) fn print(&mut self, text: &str) -> anyhow::Result<()> {
        let (registers, vcpu) = (self.debuggee.read_registers(self.vcpu)?, self.vcpu);
        let kernel = self.names.kernel()?;
        let offset = questions::per_cpu_offset(self.debuggee, vcpu).ok();
        let names = &self.names;
        let value = kernel.ask(self.debuggee, vcpu, |kernel, memory| {
            let current = offset.map(|offset| kernel.current(memory, offset)).transpose();
            let here = Here { registers, offset, current: current.ok().flatten(), names };
            expression::print(text, kernel, memory, &here)
        })?;
        Ok(writeln!(self.output, "{value}")?)
    }

    /// Finds a task by its number, or that which this vCPU executes.
    fn task(&mut self, pid: Option<u32>) -> anyhow::Result<Task> {
        let Some(pid) = pid else {
            return Ok(questions::current_task(&mut self.names, self.debuggee, self.vcpu)?);
        };
        let tasks = questions::tasks(&mut self.names, self.debuggee, self.vcpu)?;
        let found = tasks.into_iter().find(|task| task.pid == pid);
        Ok(found.ok_or(ExpressionError::Guest(Error::NoTask(pid)))?)
    }
}

/// Returns those that CPUs are idle with, of which the list has the first one only.
fn idle<'a>(on_cpu: &'a [Option<Task>], tasks: &'a [Task]) -> impl Iterator<Item = &'a Task> {
    let listed = |one: &Task| tasks.iter().any(|task| task.address == one.address);
    on_cpu.iter().flatten().filter(move |one| !listed(one))
}

/// What names mean where the vCPU stands.
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
        core_register(&self.registers, name)
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        self.names.resolve(name).ok().map(|target| target.va.0)
    }

    fn describe(&self, address: u64) -> Option<String> {
        self.names.describe(Va(address))
    }
}
