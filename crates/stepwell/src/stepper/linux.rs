//! What the stepper shows of a Linux guest: tasks and modules.

use super::Stepper;
use stepwell_linux::Task;

impl Stepper<'_> {
    /// Shows the tasks, a line each, with `*` behind the CPU of one that is on it.
    pub(super) fn processes(&mut self) -> anyhow::Result<()> {
        let tasks = self.names.tasks(self.debuggee, self.vcpu)?;
        let on_cpu = self.names.current_tasks(self.debuggee, self.vcpu)?;
        writeln!(self.output, "    PID    TGID  S  CPU   NAME")?;
        for task in idle(&on_cpu, &tasks).chain(&tasks) {
            let is_current = on_cpu.iter().flatten().any(|one| one.address == task.address);
            let mark = if is_current { '*' } else { ' ' };
            let Task { pid, tgid, state, cpu, .. } = task;
            writeln!(self.output, "{pid:>7} {tgid:>7}  {state}  {cpu:>3}{mark}  {}", called(task))?;
        }
        Ok(())
    }

    /// Shows the modules, a line each.
    pub(super) fn modules(&mut self) -> anyhow::Result<()> {
        let modules = self.names.modules(self.debuggee, self.vcpu)?;
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
}

/// Returns those that CPUs are idle with, of which the list has the first one only.
fn idle<'a>(on_cpu: &'a [Option<Task>], tasks: &'a [Task]) -> impl Iterator<Item = &'a Task> {
    let listed = |one: &Task| tasks.iter().any(|task| task.address == one.address);
    on_cpu.iter().flatten().filter(move |one| !listed(one))
}

/// Returns a task's name, in brackets for one of the kernel's own, as `ps` has it.
pub(super) fn called(task: &Task) -> String {
    if task.mm == 0 { format!("[{}]", task.comm) } else { task.comm.clone() }
}
