//! Setting the guest going: what a `vCont` asks for, as one command to the debuggee.
//!
//! GDB steps one thread at a time. What the others do meanwhile is the domain's `--others` policy,
//! unless GDB names no action for them (`set scheduler-locking on`, and whenever it steps off a
//! breakpoint that it took out): then they do not move, and for a single step interrupts are held
//! too.

use crate::Error;
use crate::going::{Going, Wanted};
use crate::guest::Guest;
use crate::monitor;
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::multithread::{
    MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::reverse_exec::{
    ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps,
};
use std::time::{Duration, Instant};
use stepwell_arch::Va;
use stepwell_debuggee::{CodeRange, Debuggee, InterruptPolicy, OthersPolicy, StepRequest, VcpuId};

/// How long a guest may take to stop, when a client is gone and nobody waits for it.
const STOPPING: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

impl Guest<'_> {
    /// Sets the guest going as was asked.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        if self.going != Going::Stopped {
            // A client that says so twice.
            return Ok(());
        }
        self.is_interrupted = false;
        self.forget_events()?;
        self.going = self.choose()?;
        self.set_going()
    }

    /// Takes what has happened while the guest was stopped: a pause that came too late, the
    /// console.
    pub(crate) fn forget_events(&mut self) -> Result<(), Error> {
        while let Some(event) = self.debuggee.wait(Duration::ZERO)? {
            self.happened(event)?;
        }
        Ok(())
    }

    /// Ctrl-C. A stop follows, if the guest goes at all.
    pub(crate) fn interrupt(&mut self) -> Result<(), Error> {
        if self.going == Going::Stopped {
            return Ok(());
        }
        self.is_interrupted = true;
        match self.debuggee.pause(self.domain) {
            // Where it has stopped or ended by itself, the event is on its way.
            Ok(()) | Err(stepwell_debuggee::Error::Refused(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes out all that the client has set, and lets the guest go if it is stopped and `run`.
    pub(crate) fn leave(&mut self, run: bool) -> Result<(), Error> {
        if self.going != Going::Stopped {
            // Breakpoints are taken out of a stopped guest.
            self.stop()?;
        }
        self.remove_all()?;
        monitor::leave(self)?;
        self.choose_others(self.policies.others)?;
        self.choose_interrupts(self.policies.interrupts)?;
        self.forget_events()?;
        if !run {
            return Ok(());
        }
        match self.debuggee.resume(self.domain) {
            Ok(()) | Err(stepwell_debuggee::Error::Refused(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stops the guest for ourselves.
    fn stop(&mut self) -> Result<(), Error> {
        self.interrupt()?;
        let patience = Instant::now() + STOPPING;
        while self.going != Going::Stopped && Instant::now() < patience {
            if let Some(event) = self.debuggee.wait(POLL)? {
                self.happened(event)?;
            }
        }
        Ok(())
    }

    fn choose(&mut self) -> Result<Going, Error> {
        let Wanted { step, free, is_locked } = std::mem::take(&mut self.wanted);
        if let Some((vcpu, range)) = step {
            let vcpu = VcpuId { domain: self.domain, vcpu };
            self.breakpoints.going(None);
            return self.step_of(vcpu, range, is_locked);
        }
        let threads = match self.threads() {
            Ok(threads) => threads,
            Err(stepwell_debuggee::Error::Refused(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let all = threads.iter().all(|thread| free.contains(thread));
        if let Some(vcpu) = self.stepped_by_breakpoint(if is_locked { &free } else { &threads })? {
            return self.step_of(vcpu, None, is_locked && !all);
        }
        if let Some(&vcpu) = free.first().filter(|_| is_locked && !all) {
            return Ok(Going::Alone(VcpuId { domain: self.domain, vcpu }));
        }
        self.note_tasks(&threads)?;
        Ok(Going::Free)
    }

    /// Notes which task each thread is in, where the guest goes with a new breakpoint.
    fn note_tasks(&mut self, vcpus: &[u8]) -> Result<(), Error> {
        let breakpoints = self.breakpoints.addresses().collect();
        if !self.seats.is_news(breakpoints) || vcpus.len() < 2 {
            return Ok(());
        }
        let mut tasks = Vec::new();
        for &vcpu in vcpus {
            let id = VcpuId { domain: self.domain, vcpu };
            tasks.push((vcpu, self.services.task_address(&mut self.debuggee, id)?));
        }
        self.seats.note(&tasks);
        Ok(())
    }

    fn step_of(
        &mut self,
        vcpu: VcpuId,
        range: Option<(u64, u64)>,
        is_locked: bool,
    ) -> Result<Going, Error> {
        let (from, sp) = match self.debuggee.read_registers(vcpu) {
            Ok(registers) => (registers.pc, registers.sp),
            Err(stepwell_debuggee::Error::Refused(_)) => (0, 0),
            Err(error) => return Err(error.into()),
        };
        Ok(Going::Step { vcpu, range, from, sp, is_in_handler: false, is_locked })
    }

    /// Gives the debuggee the command for what is going.
    pub(crate) fn set_going(&mut self) -> Result<(), Error> {
        let record = self.services.is_tracing();
        let others = match self.going {
            Going::Step { is_locked: true, .. } | Going::Alone(_) => OthersPolicy::Freeze,
            // `continue`, recorded: everybody goes, step by step.
            Going::Free if record => OthersPolicy::STEP,
            _ => self.policies.others,
        };
        self.choose_others(others)?;
        let interrupts = match self.going {
            // Off a breakpoint: one instruction of this vCPU. A handler may wait for the others,
            // and GDB is not prepared to hear of one of those now.
            Going::Step { is_locked: true, range: None, .. } => InterruptPolicy::Hold,
            _ => self.policies.interrupts,
        };
        if self.going != Going::Free || record {
            self.choose_interrupts(interrupts)?;
        }
        let request = |count| StepRequest { record, ..StepRequest::steps(count) };
        let within = |(start, end)| CodeRange { start: Va(start), end: Va(end) };
        let result = match self.going {
            Going::Stopped | Going::Refused(..) => return Ok(()),
            Going::Free if record => self.debuggee.step(self.current(), request(u64::MAX)),
            Going::Free => self.debuggee.resume(self.domain),
            Going::Alone(vcpu) if record => self.debuggee.step(vcpu, request(u64::MAX)),
            Going::Alone(vcpu) => self.debuggee.resume_only(vcpu),
            Going::Step { vcpu, from, is_in_handler: true, .. } => {
                let until = Some(Va(from));
                self.debuggee.step(vcpu, StepRequest { until, ..request(u64::MAX) })
            }
            Going::Back | Going::StepBack(_) | Going::BehindAccess(_) => self.set_going_back(),
            Going::Step { vcpu, range: None, .. } => self.debuggee.step(vcpu, request(1)),
            Going::Step { vcpu, range: Some(range), .. } => {
                let within = Some(within(range));
                self.debuggee.step(vcpu, StepRequest { within, ..request(u64::MAX) })
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(stepwell_debuggee::Error::Refused(refusal)) => {
                let vcpu = match self.going {
                    Going::Alone(vcpu) | Going::StepBack(vcpu) | Going::Step { vcpu, .. } => {
                        vcpu.vcpu
                    }
                    _ => self.selected,
                };
                self.going = Going::Refused(refusal, vcpu);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the debuggee what the others are to do, if that is something new.
    pub(crate) fn choose_others(&mut self, others: OthersPolicy) -> Result<(), Error> {
        if others == self.others_now {
            return Ok(());
        }
        let Some(ability) = self.debuggee.support_others() else { return Ok(()) };
        match ability.set_others_policy(self.domain, others) {
            Ok(()) => self.others_now = others,
            // The command that follows is refused for the same reason.
            Err(stepwell_debuggee::Error::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells the debuggee what becomes of interrupts under a step, if that is something new.
    pub(crate) fn choose_interrupts(&mut self, policy: InterruptPolicy) -> Result<(), Error> {
        if policy == self.interrupts_now {
            return Ok(());
        }
        let Some(ability) = self.debuggee.support_interrupts() else { return Ok(()) };
        match ability.set_interrupt_policy(self.domain, policy) {
            Ok(()) => self.interrupts_now = policy,
            // The command that follows is refused for the same reason.
            Err(stepwell_debuggee::Error::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn vcpu(&self, tid: Tid) -> u8 {
        // One that is not there is refused when it is to go.
        self.seats.vcpu(tid).unwrap_or(u8::MAX)
    }
}

impl Going {
    /// Tells whether a vCPU that came to `pc` is to go on.
    pub(crate) fn stays_in(self, pc: Va) -> bool {
        match self {
            Self::Step { range: Some((start, end)), .. } => (start..end).contains(&pc.0),
            _ => false,
        }
    }
}

impl MultiThreadResume for Guest<'_> {
    fn resume(&mut self) -> Result<(), Error> {
        self.go()
    }

    fn clear_resume_actions(&mut self) -> Result<(), Error> {
        self.wanted = Wanted::default();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Error> {
        let vcpu = self.vcpu(tid);
        if !self.wanted.free.contains(&vcpu) {
            self.wanted.free.push(vcpu);
        }
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, Tid, Self>> {
        self.goes_back().then_some(self as &mut dyn ReverseStep<Tid, Arch = _, Error = _>)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, Tid, Self>> {
        self.goes_back().then_some(self as &mut dyn ReverseCont<Tid, Arch = _, Error = _>)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest<'_> {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Error> {
        let vcpu = self.vcpu(tid);
        self.wanted.step.get_or_insert((vcpu, None));
        Ok(())
    }
}

impl MultiThreadRangeStepping for Guest<'_> {
    fn set_resume_action_range_step(
        &mut self,
        tid: Tid,
        start: u64,
        end: u64,
    ) -> Result<(), Error> {
        let vcpu = self.vcpu(tid);
        // An empty range is one step, wherever it leads.
        self.wanted.step.get_or_insert((vcpu, (start < end).then_some((start, end))));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Error> {
        self.wanted.is_locked = true;
        Ok(())
    }
}
