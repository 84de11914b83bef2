//! From the debuggee's events to what the client is told.

use crate::Error;
use crate::breakpoints::Sort;
use crate::going::Going;
use crate::guest::Guest;
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use stepwell_arch::{EsrEl2, Va};
use stepwell_debuggee::{Debuggee, DomainEnding, Event, OthersPolicy, Stop, StopReason, VcpuId};

type Reason = MultiThreadStopReason<u64>;

/// What a client is to be told.
#[derive(Debug)]
pub(crate) struct Report {
    /// For GDB's console, before the stop itself.
    pub(crate) text: Option<String>,
    pub(crate) reason: Reason,
    /// The vCPU whose registers go along.
    pub(crate) vcpu: Option<VcpuId>,
}

impl Guest<'_> {
    /// Takes an event. Nothing where the client need not know.
    pub(crate) fn happened(&mut self, event: Event) -> Result<Option<Report>, Error> {
        match event {
            Event::Console { bytes, .. } => {
                self.services.console(&bytes);
                Ok(None)
            }
            Event::Stopped(stop) if stop.vcpu.domain == self.domain => self.stopped(stop),
            Event::Ended { domain, ending } if domain == self.domain => {
                self.going = Going::Stopped;
                Ok(Some(ended(ending)))
            }
            _ => Ok(None),
        }
    }

    fn stopped(&mut self, stop: Stop) -> Result<Option<Report>, Error> {
        if self.services.is_tracing() {
            self.services.drain_trace(&mut self.debuggee, stop.vcpu)?;
        }
        if self.going == Going::Stopped {
            // It was told of already, or nobody asked for it.
            return Ok(None);
        }
        if let Going::BehindAccess(access) = self.going {
            self.going = Going::Stopped;
            self.learn(access.vcpu)?;
            return self.report(access, false).map(Some);
        }
        let is_hit = stop.reason == StopReason::Breakpoint && self.is_hit(stop.vcpu, stop.pc)?;
        if stop.reason == StopReason::Breakpoint && !is_hit {
            self.learn(stop.vcpu)?;
        }
        let is_met = stop.reason == StopReason::Breakpoint && !is_hit;
        let elsewhere = if is_met { self.met_elsewhere(stop.pc) } else { None };
        if self.is_passed_over(stop, is_hit || elsewhere.is_some())? {
            return Ok(None);
        }
        if self.goes_behind(stop)? {
            return Ok(None);
        }
        let stop = self.step_done(stop, is_hit || elsewhere.is_some())?;
        self.going = Going::Stopped;
        self.learn(stop.vcpu)?;
        if is_hit {
            self.follow_task(stop.vcpu)?;
        }
        let report = self.report(stop, is_hit)?;
        Ok(Some(match elsewhere {
            Some(va) => met_elsewhere(va, self.seats.tid(stop.vcpu.vcpu), stop, report),
            None => report,
        }))
    }

    /// A vCPU has come to a breakpoint of the client's: its thread is that of its task.
    fn follow_task(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        if self.seats.knows_tasks()
            && let Some(task) = self.services.task_address(&mut self.debuggee, vcpu)?
        {
            self.seats.follow(vcpu.vcpu, task);
        }
        Ok(())
    }

    /// What to tell of a breakpoint that does not count, where the step was done when another vCPU
    /// came to it: of that step.
    fn step_done(&mut self, stop: Stop, is_hit: bool) -> Result<Stop, Error> {
        let Going::Step { vcpu, .. } = self.going else { return Ok(stop) };
        if stop.reason != StopReason::Breakpoint || is_hit || self.is_interrupted {
            return Ok(stop);
        }
        let pc = Va(self.debuggee.read_registers(vcpu)?.pc);
        Ok(Stop { vcpu, reason: StopReason::Stepped, pc, steps: 1 })
    }

    /// Sets the guest going again where the stop is none for the client.
    fn is_passed_over(&mut self, stop: Stop, is_hit: bool) -> Result<bool, Error> {
        if self.is_interrupted {
            return Ok(false);
        }
        let again = match stop.reason {
            StopReason::RingFull => match self.going {
                Going::Step { .. } => stop.steps == 0 || self.going.stays_in(stop.pc),
                _ => true,
            },
            StopReason::Breakpoint if !is_hit => self.steps_on(stop)?,
            StopReason::Until => self.is_out_of_handler()?,
            // The access happens as the guest goes on.
            StopReason::Watchpoint { address, .. } => !self.is_in_scope(stop.vcpu, address)?,
            _ => false,
        };
        if again {
            self.set_going()?;
        }
        Ok(again && !matches!(self.going, Going::Refused(..)))
    }

    /// Tells whether a breakpoint that does not count leaves something to do.
    fn steps_on(&mut self, stop: Stop) -> Result<bool, Error> {
        let Going::Step { vcpu, from, is_in_handler, is_locked, .. } = self.going else {
            return Ok(true);
        };
        let pc = self.debuggee.read_registers(vcpu)?.pc;
        if pc == from || is_in_handler {
            return Ok(true);
        }
        // The step may have been done when another vCPU came to that place; one that runs beside it
        // does not know.
        let runs_beside = self.policies.others == OthersPolicy::Run && !is_locked;
        if stop.steps == 0 && (vcpu == stop.vcpu || !runs_beside) {
            if let Going::Step { is_in_handler, .. } = &mut self.going {
                *is_in_handler = true;
            }
            return Ok(true);
        }
        Ok(self.going.stays_in(Va(pc)))
    }

    /// Somebody came to where a handler is to return to. If it was that handler, the step is next.
    fn is_out_of_handler(&mut self) -> Result<bool, Error> {
        let Going::Step { vcpu, from, sp, is_in_handler, .. } = &mut self.going else {
            return Ok(false);
        };
        let registers = self.debuggee.read_registers(*vcpu)?;
        let was_in_handler = *is_in_handler;
        if (registers.pc, registers.sp) == (*from, *sp) {
            *is_in_handler = false;
        }
        Ok(was_in_handler)
    }

    fn report(&mut self, stop: Stop, is_hit: bool) -> Result<Report, Error> {
        let mut vcpu = stop.vcpu;
        if stop.reason == StopReason::SwitchedOff {
            // It is no thread any more: the first that is one stands for it.
            let first = self.threads()?.first().copied().unwrap_or_default();
            vcpu.vcpu = first;
        }
        (self.selected, self.looked_at) = (vcpu.vcpu, vcpu.vcpu);
        let tid = self.seats.tid(vcpu.vcpu);
        let with = |signal| Reason::SignalWithThread { tid, signal };
        let told = || Some(format!("{}: {}\n", stop.vcpu, stop.reason));
        let was_interrupted = std::mem::take(&mut self.is_interrupted);
        let (text, reason) = match stop.reason {
            StopReason::Stepped | StopReason::LeftRange | StopReason::RingFull
                if was_interrupted =>
            {
                (None, with(Signal::SIGINT))
            }
            StopReason::Paused => (None, with(Signal::SIGINT)),
            StopReason::Breakpoint => match self.breakpoints.at(stop.pc).filter(|_| is_hit) {
                Some(Sort::Hardware) => (None, Reason::HwBreak(tid)),
                Some(Sort::Software) => (None, Reason::SwBreak(tid)),
                None => (None, with(Signal::SIGINT)),
            },
            StopReason::Watchpoint { address, access } => {
                let kind = self.breakpoints.watched(address, access);
                (None, Reason::Watch { tid, kind, addr: address.0 })
            }
            StopReason::Reached => (None, self.edge(tid)?.unwrap_or(with(Signal::SIGTRAP))),
            StopReason::Reset
            | StopReason::Stepped
            | StopReason::LeftRange
            | StopReason::Until
            | StopReason::RingFull => (None, with(Signal::SIGTRAP)),
            _ => (told(), with(Signal::SIGTRAP)),
        };
        Ok(Report { text, reason, vcpu: Some(vcpu) })
    }

    /// What to tell of a command that the debuggee refused.
    pub(crate) fn refusal(&mut self) -> Option<Report> {
        let Going::Refused(refusal, vcpu) = self.going else { return None };
        self.going = Going::Stopped;
        let id = VcpuId { domain: self.domain, vcpu };
        let text = Some(format!("{id} cannot go on: {refusal}\n"));
        let tid = self.seats.tid(self.selected);
        let reason = Reason::SignalWithThread { tid, signal: Signal::SIGTRAP };
        Some(Report { text, reason, vcpu: None })
    }
}

/// What to tell of a breakpoint that is met at another address than the client has it at. The client
/// would take it for one that was deleted meanwhile, and go on without a word.
fn met_elsewhere(va: u64, tid: Tid, stop: Stop, report: Report) -> Report {
    let pc = stop.pc;
    let text = format!(
        "the breakpoint at {va:#x} is met at {pc:#x}, where the kernel runs now: load its symbols \
         there (stepwell-symbols, or the command that `monitor symbols` shows)\n"
    );
    let reason = Reason::SignalWithThread { tid, signal: Signal::SIGTRAP };
    Report { text: Some(text), reason, ..report }
}

fn ended(ending: DomainEnding) -> Report {
    const RESET: u8 = 3;
    let (text, reason) = match ending {
        DomainEnding::PoweredOff => ("the guest powered off\n".to_owned(), Reason::Exited(0)),
        DomainEnding::Reset => {
            let text = "the guest asked to be reset, which ends it here\n";
            (text.to_owned(), Reason::Exited(RESET))
        }
        DomainEnding::Fault(fault) => {
            let text = format!(
                "the guest crashed: vcpu{} {}; pc {:#x}, esr {}, address {:#x}\n",
                fault.vcpu,
                fault.kind,
                fault.pc,
                EsrEl2(fault.esr),
                fault.address
            );
            (text, Reason::Terminated(Signal::SIGSEGV))
        }
    };
    Report { text: Some(text), reason, vcpu: None }
}
