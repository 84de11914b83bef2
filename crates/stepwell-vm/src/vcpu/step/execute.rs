//! What an exit says of the instruction in hand, and what an executed one leaves to do.

use super::rearm::keep_as_if_it_ran;
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Vector};
use crate::mutation::{self, LoopMutant};
use crate::vcpu::advance::{Onward, VcpuLoop};
use crate::vcpu::exit::handle;
use crate::vcpu::hand::{Purpose, Question};
use crate::vcpu::handled::Handled;
use crate::vcpu::roots::Root;
use crate::vcpu::running::End;
use crate::vcpu::{address_space, debug, pages};
use stepwell_arch::esr::{EsrEl2, ec};
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_engine::completion::{complete, has_executed, leaves_nothing, only_arms};
use stepwell_engine::{After, Before, Boundary, Completion, MonitorChange, Saved};
use stepwell_engine::{Outcome, Plan, StepState, own_step};
use stepwell_protocol::StopReason;

/// What has become of an instruction that was entered for.
enum Came {
    /// Nothing yet: enter again.
    Nothing,
    /// The CPU was asked about it, and executes it. All is as before it.
    Accepted,
    /// It has executed, or something else came first and has been taken.
    Done,
    /// What the vCPU does ends.
    End(End),
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// Has the CPU execute an instruction that EL2 is to carry out, to see what comes before it, and
    /// puts back what that changes: see [`stepwell_engine::precedence`].
    #[inline(never)]
    pub(super) fn ask_cpu(&mut self) -> Onward {
        let plan = self.flow.hand.next.plan;
        let context = &self.running.core.context;
        let (x, pc, pstate) = (context.general(), context.elr, context.spsr);
        let waits = matches!(plan, Plan::WaitForInterrupt { .. });
        if waits {
            self.running.cpu.trap_waits(true);
        }
        let has_operand = self.harmless_operand(plan);
        self.flow.hand.purpose = Purpose::Ask(Question { x, pc, pstate, waits, has_operand });
        self.flow.hand.limit = 1;
        self.enter_anew()
    }

    /// Puts back what the question has changed.
    fn take_question_back(&mut self, is_accepted: bool) {
        let Purpose::Ask(question) =
            core::mem::replace(&mut self.flow.hand.purpose, Purpose::Execute)
        else {
            return;
        };
        if question.waits {
            // On a CPU that it shares it always traps.
            self.running.cpu.trap_waits(self.running.vcpu.shares_cpu);
        }
        let context = &mut self.running.core.context;
        if is_accepted && !mutation::is(LoopMutant::QuestionNotPutBack) {
            context.set_general(&question.x);
            (context.elr, context.spsr) = (question.pc, question.pstate);
        } else if question.has_operand {
            context.set_general(&question.x);
        }
    }

    const fn asks(&self) -> bool {
        matches!(self.flow.hand.purpose, Purpose::Ask(_))
    }

    /// What is asked of the virtual timer's registers is written: by the CPU's counter it is to mean
    /// nothing, and a compare value that was not there before may hang QEMU 7.2 (docs/qemu.md). Tells
    /// whether there is another operand now.
    fn harmless_operand(&mut self, plan: Plan) -> bool {
        let (register, rt, rt2) = match plan {
            Plan::WriteTimer { register, rt } => (register, rt, None),
            Plan::WriteTimerPair { register, rt, rt2 } => (register, rt, Some(rt2)),
            _ => return false,
        };
        let value = match register {
            SystemRegister::CNTV_CVAL_EL0 => self.running.cpu.read(SystemRegister::CNTV_CVAL_EL0),
            SystemRegister::CNTV_CTL_EL0 | SystemRegister::CNTV_TVAL_EL0 => 0,
            // Trapped, and carried out with what is written.
            _ => return false,
        };
        let context = &mut self.running.core.context;
        match rt2 {
            None => context.set_register(rt, value),
            Some(rt2) => {
                context.set_register(rt, value & 0xffff_ffff);
                context.set_register(rt2, value >> 32);
            }
        }
        true
    }

    /// The guest has left, which was entered for the instruction in hand.
    #[inline(always)]
    pub(in crate::vcpu) fn step_left(&mut self, vector: Vector) -> Onward {
        let outcome = self.unload_entry(vector);
        let came = match outcome {
            Outcome::Boundary(boundary) => self.came_to(boundary),
            Outcome::Continue => self.came_for_nothing(vector),
            Outcome::Trapped => self.came_by_trap(vector),
        };
        if let Came::Nothing = came {
            return self.enter();
        }
        pages::settle(self.running);
        self.flow.hand.root = Root::Guarded;
        if self.asks() {
            self.take_question_back(matches!(came, Came::Accepted));
        }
        match came {
            Came::Accepted => self.carry_out(),
            Came::End(end) => self.done(Some(end)),
            Came::Done | Came::Nothing => self.done(None),
        }
    }

    #[inline(always)]
    fn came_to(&mut self, boundary: Boundary) -> Came {
        if self.asks() && self.has_executed(boundary) {
            return Came::Accepted;
        }
        let core = &*self.running.core;
        let plan = if self.flow.hand.in_run { Plan::Execute } else { self.flow.hand.next.plan };
        let guest = core.debug.guest();
        if is_at_vector(self.running.cpu, core.pc()) {
            self.complete(boundary);
        } else if let Some(load) = only_arms(guest, plan, boundary) {
            self.arm(load);
        } else if !leaves_nothing(guest, plan, boundary) {
            self.complete(boundary);
        }
        self.passed(1);
        Came::Done
    }

    #[inline(never)]
    fn came_for_nothing(&mut self, vector: Vector) -> Came {
        let handled = handle(self.running, vector);
        if mutation::is(LoopMutant::RetryCounted) {
            self.passed(1);
        }
        if self.asks() && self.has_executed_unreported() {
            return Came::Accepted;
        }
        self.interrupted(handled).map_or(Came::Nothing, Came::End)
    }

    #[inline(always)]
    fn came_by_trap(&mut self, vector: Vector) -> Came {
        // It would wait, and that is EL2's to do.
        if self.asks() && self.class() == ec::WFX {
            return Came::Accepted;
        }
        let handled = handle(self.running, vector);
        // It may have been a timer's register.
        self.find_deadline();
        self.look_at_timers();
        match handled {
            Handled::Emulated => {
                match self.class() {
                    ec::HVC64 => self.running.core.monitor.called(),
                    class => {
                        self.flow.hand.is_device |= class == ec::DABT_LOWER;
                        keep_as_if_it_ran(self.running);
                    }
                }
                if self.has_changed_address_space() {
                    self.flow.hand.executed_page = None;
                    self.emit_context();
                }
                self.carried_out();
                Came::Done
            }
            Handled::Injected => {
                // A breakpoint exception comes before its instruction begins.
                if self.class() == ec::BREAKPOINT_LOWER {
                    self.take_back();
                }
                self.entered_exception();
                Came::Done
            }
            Handled::Resume => Came::Nothing,
            Handled::Unrestricted => {
                self.flow.hand.root = Root::Unrestricted;
                Came::Nothing
            }
            Handled::Past => self.let_past(),
            Handled::Stop(StopReason::Breakpoint) if self.is_for_a_return() => {
                self.take_back();
                Came::Done
            }
            Handled::Stop(reason) => {
                self.take_back();
                Came::End(End::Stop(reason))
            }
            Handled::SwitchedOff => Came::End(self.switched_off()),
        }
    }

    /// Whether a breakpoint was met that only waits for an unseen handler to return there. Whoever
    /// meets it, the next boundary finds out.
    fn is_for_a_return(&self) -> bool {
        let core = &*self.running.core;
        core.handler_of.is_some_and(|interrupted| interrupted.pc == core.pc())
            && debug::breakpoint_at_pc(self.running).is_none()
    }

    /// Whether what trapped made another address space current.
    fn has_changed_address_space(&self) -> bool {
        let esr = EsrEl2(self.running.core.context.esr);
        esr.ec() == ec::SYSTEM_REGISTER
            && !esr.system_register().is_read()
            && address_space::is_trapped(esr.system_register().register())
    }

    /// What hit is not wanted here.
    fn let_past(&mut self) -> Came {
        if self.running.is_called() {
            self.take_back();
            return Came::End(End::Asked);
        }
        if matches!(self.class(), ec::BREAKPOINT_LOWER | ec::WATCHPOINT_LOWER) {
            self.flow.hand.is_let_past = true;
        }
        Came::Nothing
    }

    /// Class of the exception that the guest left with.
    fn class(&self) -> u8 {
        EsrEl2(self.running.core.context.esr).ec()
    }

    /// The last that it executed was the call that switched it off, or something that it did not
    /// come to the end of.
    fn switched_off(&mut self) -> End {
        if self.class() == ec::HVC64 {
            self.passed(1);
        } else {
            self.take_back();
        }
        End::SwitchedOff
    }

    /// After an asynchronous exit: may the instruction be retried?
    pub(super) fn interrupted(&mut self, handled: Handled) -> Option<End> {
        if handled == Handled::SwitchedOff {
            return Some(End::SwitchedOff);
        }
        if !self.running.is_called() {
            return None;
        }
        let is_executed = self.running.core.engine.state() == StepState::ActivePending;
        if is_executed && mutation::is(LoopMutant::CallDropsExecuted) {
            self.take_back();
        } else if is_executed {
            // It has executed: report it here and now rather than with the next command.
            self.complete(Boundary { load_exclusive: false, syndrome_valid: false });
            self.report();
        } else if !mutation::is(LoopMutant::CallKeepsBegun) {
            self.take_back();
        }
        Some(End::Asked)
    }

    /// The instruction before it executed, and what the machine shows after it.
    fn around(&self, in_run: bool, boundary: Boundary) -> (Before, After) {
        let next = &self.flow.hand.next;
        let core = &*self.running.core;
        let before = Before {
            pc: (!in_run).then_some(next.pc),
            plan: if in_run { Plan::Execute } else { next.plan },
            is_svc: next.svc,
            pstate: next.pstate,
            spsr_el1: next.spsr_el1,
        };
        let after = After {
            boundary,
            pstate: core.pstate(),
            vector: is_at_vector(self.running.cpu, core.pc()).then(|| Saved {
                spsr_el1: Pstate(self.running.cpu.read(SystemRegister::SPSR_EL1)),
                elr_el1: Va(self.running.cpu.read(SystemRegister::ELR_EL1)),
            }),
        };
        (before, after)
    }

    /// Whether the instruction that the CPU was asked about has executed.
    fn has_executed(&self, boundary: Boundary) -> bool {
        let (before, after) = self.around(false, boundary);
        has_executed(before, after, self.running.core.pc(), self.flow.hand.next.bytes)
    }

    /// As [`Self::has_executed`], after an interrupt that came before the step exception. What it
    /// leaves pending is not to be reported: the instruction is EL2's to carry out.
    fn has_executed_unreported(&mut self) -> bool {
        let boundary = Boundary { load_exclusive: false, syndrome_valid: false };
        let is_pending = self.running.core.engine.state() == StepState::ActivePending;
        let has_executed = is_pending && self.has_executed(boundary);
        if has_executed {
            let _boundary = self.running.core.engine.emulated();
        }
        has_executed
    }

    /// What an executed instruction leaves to do: the one in hand, or a plain one that the fast path
    /// began after it.
    fn complete(&mut self, boundary: Boundary) {
        let (before, after) = self.around(self.flow.hand.in_run, boundary);
        let plan = before.plan;
        let core = &mut *self.running.core;
        let guest = core.debug.guest();
        let Completion { pstate, spsr_el1, monitor, is_other } = complete(guest, before, after);
        core.debug.own_stepped = if let Some(saved) = spsr_el1 {
            self.running.cpu.write(SystemRegister::SPSR_EL1, saved.0);
            None
        } else {
            let load_exclusive =
                matches!(plan, Plan::LoadExclusive(_) | Plan::SkippedLoadExclusive);
            own_step::stepped(guest, before.pstate, load_exclusive)
        };
        core.context.spsr = pstate.0;
        match monitor {
            MonitorChange::Keep => {}
            MonitorChange::Clear => core.monitor.clear(),
            MonitorChange::Arm(load) => self.arm(load),
        }
        if is_other {
            // A known page has changed.
            self.running.core.forget_pages();
        }
        if spsr_el1.is_some() {
            self.emit_entry();
        }
        match plan {
            Plan::TranslationChange => {
                address_space::look(self.running);
                self.running.core.forget_pages();
                self.flow.hand.executed_page = None;
                self.emit_context();
            }
            // Those that went to EL1 are recorded already.
            _ if spsr_el1.is_some() => {}
            Plan::StoreExclusive(store) if store.rs < 31 => {
                let stored = self.running.core.context.register(store.rs) as u32 == 0;
                self.emit_exclusive(self.flow.hand.next.pc, stored);
            }
            Plan::ExceptionReturn => self.emit_return(),
            _ => {}
        }
    }
}

fn is_at_vector<C: Cpu>(cpu: &C, pc: Va) -> bool {
    let offset = pc.0.wrapping_sub(cpu.read(SystemRegister::VBAR_EL1) & !0x7ff);
    offset < 0x800 && offset & 0x7f == 0
}
