//! `trace --user-mode`, `--kernel-mode`, `--module`, `--pid` and `--comm`: what of the steps is
//! recorded.
//!
//! What a vCPU executes is known by its address, and to which task it belongs by where the kernel
//! switches: after the instruction that makes another task the current one (the write of SP_EL0 in
//! `cpu_switch_to`) the guest is stopped for a moment. So each instruction is recorded for the task
//! that executed it, and a recording that was filtered is the unfiltered one without the others.

use super::pursuit::Who;
use crate::linux::LinuxError;
use crate::names::Names;
use crate::questions::{self, LOADED, UNLOADED};
use anyhow::anyhow;
use clap::Args;
use stepwell_arch::Va;
use stepwell_debuggee::{
    Debuggee, Error, Place, Refusal, Stop, StopReason, TraceRecord, VcpuId, VcpuState,
};
use stepwell_linux::Task;
use stepwell_trace::{Event, ExceptionEntry, MemoryAccess};

/// The kernel's function that switches tasks, and what in it makes the next one current:
/// `msr sp_el0, x1`.
const SWITCH: &str = "cpu_switch_to";
const MAKES_CURRENT: u32 = 0xd518_4101;
/// How many bytes of it are looked at.
const SWITCH_BYTES: u64 = 256;
/// The kernel's function that gives a task another name, for `exec` and for whoever asks.
const RENAMES: &str = "__set_task_comm";
/// How many bytes of it are looked at.
const RENAMES_BYTES: u64 = 1024;
/// RET, RETAA and RETAB.
const RETURNS: [u32; 3] = [0xd65f_03c0, 0xd65f_0bff, 0xd65f_0fff];
/// vCPUs that a domain may have.
const VCPUS_MAX: usize = 8;

/// What of the steps is recorded.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Only {
    /// Records what programs execute, not the kernel
    #[arg(long, alias = "user", conflicts_with = "kernel_mode", help_heading = "Filters")]
    user_mode: bool,
    /// Records what the kernel executes, modules included, not programs
    #[arg(long, help_heading = "Filters")]
    kernel_mode: bool,
    /// Records what is executed in a Linux module
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    module: Option<String>,
    /// Records what a task of a Linux guest executes, or the tasks of a process; in the kernel, too
    #[arg(long, value_name = "PID", help_heading = "Filters")]
    pid: Option<u32>,
    /// Records what tasks of this name execute; in the kernel, too
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    comm: Option<String>,
    /// Tells in the recording which task of a Linux guest's executes what, as --pid, --comm and
    /// --follow do
    #[arg(long, help_heading = "Filters")]
    tasks: bool,
    /// Steps one task, wherever it goes on, and lets everything else run in between: a PID, a name,
    /// or `current`, the one that comes to --at. --steps counts its own
    #[arg(long, value_name = "PID|COMM", conflicts_with_all = ["pid", "comm"],
        help_heading = "Filters")]
    follow: Option<Who>,
}

impl Only {
    /// Whom to follow.
    pub(super) const fn follow(&self) -> Option<&Who> {
        self.follow.as_ref()
    }

    const fn needs_tasks(&self) -> bool {
        self.pid.is_some() || self.comm.is_some() || self.tasks
    }

    /// Tells whether anything is left out.
    pub(super) fn is_any(&self) -> bool {
        self.pid.is_some()
            || self.comm.is_some()
            || self.user_mode
            || self.kernel_mode
            || self.module.is_some()
    }
}

/// The filter at work.
pub(super) struct Sieve {
    only: Only,
    /// Whether the task is wanted that each vCPU executes.
    tasks: [bool; VCPUS_MAX],
    /// Whether the last instruction of each vCPU was recorded.
    last: [bool; VCPUS_MAX],
    /// Where the guest is stopped for a moment.
    landmarks: Vec<Place>,
    /// Those of them where a task has just been given another name.
    renames: Vec<Place>,
    /// What the recording is to be told of tasks.
    news: Vec<Event>,
}

impl Sieve {
    /// Sets it up for a guest that is not started yet.
    ///
    /// # Errors
    ///
    /// Where the kernel has no such places.
    pub(super) fn new(only: &Only, names: &Names) -> anyhow::Result<Self> {
        let (mut landmarks, mut renames) = (Vec::new(), Vec::new());
        if only.needs_tasks() {
            landmarks.push(after_switch(names)?);
            if only.comm.is_some() || only.tasks {
                renames = after_renaming(names)?;
                landmarks.extend(&renames);
            }
        }
        if only.module.is_some() {
            for name in [LOADED, UNLOADED] {
                landmarks.push(names.resolve_instruction(name)?.place);
            }
        }
        let (tasks, last) = ([!only.needs_tasks(); VCPUS_MAX], [true; VCPUS_MAX]);
        let news = Vec::new();
        Ok(Self { only: only.clone(), tasks, last, landmarks, renames, news })
    }

    /// Begins, with a guest that is stopped where its recording begins.
    pub(super) fn begin(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
    ) -> anyhow::Result<()> {
        for place in &self.landmarks {
            match debuggee.set_breakpoint(0, *place) {
                Ok(()) | Err(Error::Refused(Refusal::Breakpoint)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.look_at_all(names, debuggee)
    }

    /// Learns from a stop which task a vCPU executes from here on. Tells whether it is one that was
    /// made for that, and not for `until`.
    pub(super) fn stopped(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        stop: Stop,
        until: Option<Place>,
    ) -> anyhow::Result<bool> {
        if stop.reason != StopReason::Breakpoint || self.landmarks.is_empty() {
            return Ok(false);
        }
        let here = debuggee.translate(stop.vcpu, stop.pc);
        let is_here = |place: &Place| match place {
            Place::Va(va) => *va == stop.pc,
            Place::Ipa(ipa) => here.as_ref().is_ok_and(|here| here == ipa),
        };
        let landmark = self.landmarks.iter().copied().find(is_here);
        if landmark.is_some() {
            self.look(names, debuggee, stop.vcpu)?;
        }
        if self.renames.iter().any(|place| Some(*place) == landmark) {
            // It may be another's name that was changed.
            self.look_at_all(names, debuggee)?;
        }
        Ok(landmark.is_some() && landmark != until)
    }

    /// Learns which task each vCPU executes.
    fn look_at_all(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
    ) -> anyhow::Result<()> {
        let status = debuggee.status(0)?;
        for (vcpu, status) in (0..).zip(status) {
            if status.state == VcpuState::Stopped {
                self.look(names, debuggee, VcpuId { vcpu, domain: 0 })?;
            }
        }
        Ok(())
    }

    fn look(
        &mut self,
        names: &mut Names,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> anyhow::Result<()> {
        if self.only.module.is_some() {
            match names.find_modules(debuggee, vcpu) {
                Ok(()) | Err(LinuxError::Guest(stepwell_linux::Error::NotRunning)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !self.only.needs_tasks() {
            return Ok(());
        }
        let wanted = match questions::current_task(names, debuggee, vcpu) {
            Ok(task) => {
                let pid = self.only.pid.is_none_or(|pid| task.pid == pid || task.tgid == pid);
                let wanted = pid && self.only.comm.as_ref().is_none_or(|comm| task.comm == *comm);
                self.news.extend(wanted.then(|| told(vcpu, &task)));
                wanted
            }
            // It has no tasks yet.
            Err(LinuxError::Guest(stepwell_linux::Error::NotRunning)) => {
                self.only.pid.is_none() && self.only.comm.is_none()
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(task) = self.tasks.get_mut(usize::from(vcpu.vcpu)) {
            *task = wanted;
        }
        Ok(())
    }

    /// Returns what the recording is to be told of tasks since the last stop.
    pub(super) fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// Leaves out of `records`, which came in since the last stop, what is not to be recorded.
    pub(super) fn retain(&mut self, names: &Names, records: &mut Vec<TraceRecord>) {
        if !self.only.is_any() {
            return;
        }
        records.retain(|record| match *record {
            TraceRecord::Run { vcpu, pc, .. } => {
                let at = usize::from(vcpu);
                let wanted =
                    self.tasks.get(at).is_some_and(|task| *task) && self.is_place(names, pc);
                if let Some(last) = self.last.get_mut(at) {
                    *last = wanted;
                }
                wanted
            }
            // What comes after is read with these.
            TraceRecord::Context { .. }
            | TraceRecord::InstructionSet { .. }
            | TraceRecord::Time { .. } => true,
            TraceRecord::Interrupt { vcpu, .. }
            | TraceRecord::ExceptionEntry(ExceptionEntry { vcpu, .. })
            | TraceRecord::ExceptionReturn { vcpu, .. }
            | TraceRecord::Exclusive { vcpu, .. }
            | TraceRecord::Turns { vcpu, .. }
            | TraceRecord::Register { vcpu, .. }
            | TraceRecord::Memory(MemoryAccess { vcpu, .. }) => {
                self.last.get(usize::from(vcpu)).is_some_and(|last| *last)
            }
            TraceRecord::Event(never) => match never {},
        });
    }

    /// Tells whether what is at an address is wanted, whoever executes it.
    fn is_place(&self, names: &Names, pc: Va) -> bool {
        let is_kernel = pc.0 >> 63 != 0;
        let module = self.only.module.as_deref();
        !(self.only.user_mode && is_kernel)
            && (!self.only.kernel_mode || is_kernel)
            && module.is_none_or(|module| names.is_in_module(module, pc))
    }
}

/// What a recording tells of the task that a vCPU executes.
pub(super) fn told(vcpu: VcpuId, task: &Task) -> Event {
    let Task { pid, tgid, .. } = *task;
    Event::Task { vcpu: vcpu.vcpu, pid, tgid, name: task.name().to_owned() }
}

/// Finds the places where a task has just been given another name: by `exec`, by itself (`prctl`),
/// or through `/proc`.
pub(super) fn after_renaming(names: &Names) -> anyhow::Result<Vec<Place>> {
    let target = names.resolve_instruction(RENAMES)?;
    let code = names.file_bytes(target.va, RENAMES_BYTES).unwrap_or_default();
    let is_its = |at: u64| {
        let name = names.describe(target.va.offset(at)).unwrap_or_default();
        name.split('+').next() == Some(RENAMES)
    };
    let words = (0..).step_by(4).zip(code.chunks_exact(4));
    let words = words.take_while(|(at, _)| is_its(*at));
    let returns = words.filter(|(_, word)| RETURNS.iter().any(|ret| ret.to_le_bytes() == **word));
    let places: Vec<Place> = returns.map(|(at, _)| target.place.offset(at)).collect();
    anyhow::ensure!(!places.is_empty(), "{RENAMES} of this kernel is not known here: name a PID");
    Ok(places)
}

/// Finds the place where another task has just become the current one.
pub(super) fn after_switch(names: &Names) -> anyhow::Result<Place> {
    let target = names.resolve_instruction(SWITCH)?;
    let code = names.file_bytes(target.va, SWITCH_BYTES).unwrap_or_default();
    let found = code.chunks_exact(4).position(|word| word == MAKES_CURRENT.to_le_bytes());
    let found = found.ok_or_else(|| {
        anyhow!("{SWITCH} of this kernel is not known here: record without --pid and --comm")
    })?;
    Ok(target.place.offset(4 * (found as u64 + 1)))
}
