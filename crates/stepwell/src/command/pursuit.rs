//! `trace --follow`: the steps of one task, on whichever vCPU it is and whatever runs in between.
//!
//! The task's vCPU is stepped, and recorded, until its kernel makes another task the current one
//! (the write of SP_EL0 in `cpu_switch_to`). From there everything runs freely, stopped for a moment
//! wherever a vCPU has just switched, until the task is the current one again. So what is recorded is
//! what the task executed, in its program and in the kernel, interrupts that came meanwhile
//! included, and nothing else is stepped.
//!
//! A task is known by the address of its structure, which no other has while it lives: its name may
//! change, and its process may execute another program.

use super::only::{after_renaming, after_switch, told};
use crate::follow::{Follower, Outcome};
use crate::linux::LinuxError;
use crate::names::Names;
use crate::questions;
use std::convert::Infallible;
use std::str::FromStr;
use stepwell_arch::SystemRegister;
use stepwell_debuggee::{
    Debuggee, Error, Place, Refusal, Stop, StopReason, TraceRecord, VcpuId, VcpuState,
};
use stepwell_linux::Task;
use stepwell_trace::{Context, Event, ExceptionEntry, MemoryAccess};

/// Whom to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The task that is current where the recording begins.
    Current,
    /// The task of this number.
    Pid(u32),
    /// The first task of this name.
    Comm(String),
}

impl FromStr for Who {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match (word, word.parse()) {
            ("current", _) => Self::Current,
            (_, Ok(pid)) => Self::Pid(pid),
            (comm, Err(_)) => Self::Comm(comm.to_owned()),
        })
    }
}

impl Who {
    fn is(&self, task: &Task) -> bool {
        match self {
            Self::Current => true,
            Self::Pid(pid) => task.pid == *pid,
            Self::Comm(comm) => task.comm == *comm,
        }
    }
}

/// A task that is followed.
pub(super) struct Pursuit {
    who: Who,
    /// Where another task has just become the current one.
    switched: Place,
    /// Where a task has just been given another name.
    renamed: Vec<Place>,
    /// The address of its structure, once it was seen.
    task: Option<u64>,
    /// The vCPU that executes it; nothing while it waits.
    vcpu: Option<VcpuId>,
    /// What the recording is to be told of it.
    news: Vec<Event>,
}

/// What came of waiting for a task.
pub(super) enum Caught {
    /// This vCPU executes it.
    On(VcpuId),
    /// It has ended.
    TaskEnded,
    /// Something else happened first.
    Not(Outcome),
}

impl Pursuit {
    /// Sets it up for a guest that is not started yet.
    ///
    /// # Errors
    ///
    /// Where the kernel has no such places.
    pub(super) fn new(who: &Who, names: &Names) -> anyhow::Result<Self> {
        let switched = after_switch(names)?;
        let renamed = match who {
            Who::Comm(_) => after_renaming(names)?,
            Who::Current | Who::Pid(_) => Vec::new(),
        };
        let (task, vcpu, news) = (None, None, Vec::new());
        Ok(Self { who: who.clone(), switched, renamed, task, vcpu, news })
    }

    /// Begins, with a guest that is stopped where its recording begins.
    pub(super) fn begin(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        stop: Stop,
    ) -> anyhow::Result<()> {
        for place in std::iter::once(self.switched).chain(self.renamed.iter().copied()) {
            match debuggee.set_breakpoint(0, place) {
                Ok(()) | Err(Error::Refused(Refusal::Breakpoint)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.who == Who::Current {
            let task = questions::current_task(names, debuggee, stop.vcpu)?;
            self.task = Some(task.address);
            self.is_on(stop.vcpu, &task);
            return Ok(());
        }
        let status = debuggee.status(0)?;
        for (vcpu, status) in (0..).zip(status) {
            if status.state == VcpuState::Stopped {
                self.look(names, debuggee, VcpuId { vcpu, domain: 0 })?;
            }
        }
        Ok(())
    }

    /// Learns whether a vCPU executes the task now.
    fn look(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> anyhow::Result<()> {
        let is_other = match self.task {
            Some(task) => current(debuggee, vcpu)? != task,
            None => false,
        };
        let found = if is_other { None } else { self.read(names, debuggee, vcpu)? };
        match found {
            Some(task) => {
                self.task = Some(task.address);
                self.is_on(vcpu, &task);
            }
            None if self.vcpu == Some(vcpu) => self.vcpu = None,
            None => {}
        }
        Ok(())
    }

    /// Reads the task that a vCPU executes, if it is the one.
    fn read(
        &self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> anyhow::Result<Option<Task>> {
        match questions::current_task(names, debuggee, vcpu) {
            Ok(task) => {
                let is_it = self.task.map_or_else(|| self.who.is(&task), |at| at == task.address);
                Ok(is_it.then_some(task))
            }
            Err(LinuxError::Guest(stepwell_linux::Error::NotRunning)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes where the task is.
    fn is_on(&mut self, vcpu: VcpuId, task: &Task) {
        self.vcpu = Some(vcpu);
        self.news.push(told(vcpu, task));
    }

    /// Returns what the recording is to be told of the task since the last stop.
    pub(super) fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// Learns from a stop of the stepped vCPU, or of another. Tells whether it is none
    /// of the task's own.
    pub(super) fn stopped(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        stop: Stop,
    ) -> anyhow::Result<bool> {
        if stop.reason != StopReason::Breakpoint {
            return Ok(false);
        }
        let is_of_others = self.vcpu.is_some_and(|vcpu| vcpu != stop.vcpu);
        let here = debuggee.translate(stop.vcpu, stop.pc);
        let is_here = |place: Place| match place {
            Place::Va(va) => va == stop.pc,
            Place::Ipa(ipa) => here.as_ref().is_ok_and(|here| *here == ipa),
        };
        let is_landmark = is_here(self.switched) || self.renamed.iter().copied().any(is_here);
        if is_landmark {
            self.look(names, debuggee, stop.vcpu)?;
        }
        Ok(is_landmark || is_of_others)
    }

    /// Lets the guest run until some vCPU executes the task.
    pub(super) fn catch(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        follower: &mut Follower<'_>,
    ) -> anyhow::Result<Caught> {
        loop {
            if let Some(vcpu) = self.vcpu {
                return Ok(Caught::On(vcpu));
            }
            if self.has_ended(names, debuggee)? {
                return Ok(Caught::TaskEnded);
            }
            debuggee.resume(0)?;
            let outcome = follower.follow(debuggee)?;
            let Outcome::Stopped(stop) = outcome else { return Ok(Caught::Not(outcome)) };
            names.locate(debuggee, stop.vcpu, stop.pc)?;
            let is_landmark = self.stopped(names, debuggee, stop)?;
            // Others may come to where the recording ends.
            let is_of_others = is_landmark || stop.reason == StopReason::Breakpoint;
            if follower.interruption.is_some() || !is_of_others {
                return Ok(Caught::Not(outcome));
            }
        }
    }

    /// Tells whether the task executes nothing more.
    fn has_ended(&self, names: &mut Names, debuggee: &mut dyn Debuggee) -> anyhow::Result<bool> {
        let Some(address) = self.task else { return Ok(false) };
        let task = names
            .kernel()?
            .ask(debuggee, VcpuId::default(), |kernel, memory| Task::read(kernel, memory, address));
        match task {
            Ok(task) => Ok(matches!(task.state.0, 'Z' | 'X')),
            Err(error) if error.is_fatal() => Err(error.into()),
            // Its memory serves another purpose.
            Err(_) => Ok(true),
        }
    }

    /// Leaves out of `records` what vCPUs other than the stepped one executed.
    pub(super) fn retain(&self, records: &mut Vec<TraceRecord>) {
        let Some(VcpuId { vcpu: wanted, .. }) = self.vcpu else { return };
        records.retain(|record| match *record {
            TraceRecord::Time { .. } => true,
            TraceRecord::Context(Context { vcpu, .. })
            | TraceRecord::InstructionSet { vcpu, .. }
            | TraceRecord::Run { vcpu, .. }
            | TraceRecord::Interrupt { vcpu, .. }
            | TraceRecord::ExceptionEntry(ExceptionEntry { vcpu, .. })
            | TraceRecord::ExceptionReturn { vcpu, .. }
            | TraceRecord::Exclusive { vcpu, .. }
            | TraceRecord::Turns { vcpu, .. }
            | TraceRecord::Register { vcpu, .. }
            | TraceRecord::Memory(MemoryAccess { vcpu, .. }) => vcpu == wanted,
            TraceRecord::Event(never) => match never {},
        });
    }
}

/// The address of the task's structure that a vCPU executes in its kernel: `current` is SP_EL0.
fn current(debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<u64, Error> {
    let system = debuggee.support_system_registers().ok_or(Refusal::NoSuchRegister)?;
    system.read_system_register(vcpu, SystemRegister::SP_EL0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_a_number_or_a_name() {
        for (word, who) in [
            ("85", Who::Pid(85)),
            ("cat", Who::Comm("cat".into())),
            ("current", Who::Current),
            ("kworker/0:1", Who::Comm("kworker/0:1".into())),
        ] {
            assert_eq!(word.parse(), Ok(who));
        }
    }
}
