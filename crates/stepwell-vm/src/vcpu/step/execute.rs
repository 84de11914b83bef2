//! Entering the guest for an instruction, and what its exit says of it.

use super::look::{MASKS, Shown};
use super::stepper::{Answer, Next, Stepper};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Vector};
use crate::vcpu::exit::handle;
use crate::vcpu::handled::Handled;
use crate::vcpu::pages;
use crate::vcpu::roots::Root;
use crate::vcpu::running::End;
use crate::vcpu::shadow::ArmedBreakpoints;
use crate::vcpu::{address_space, debug, interrupt, time};
use stepwell_arch::esr::{EsrEl2, ec};
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_engine::completion::{complete, has_executed, leaves_nothing};
use stepwell_engine::{After, Before, Boundary, Completion, MonitorChange, Saved};
use stepwell_engine::{Exit, Outcome, Plan, StepState, own_step};
use stepwell_protocol::InterruptPolicy;

impl<C: Cpu> Stepper<'_, '_, C> {
    /// Enters the guest for the next instruction until the engine sees a boundary.
    pub(super) fn execute(&mut self, next: &Next, limit: u64) -> Option<End> {
        match self.execute_to_boundary(next, limit, false) {
            Answer::Accepted => None,
            Answer::Taken(end) => end,
        }
    }

    /// Has the CPU execute an instruction that EL2 is to carry out, to see what comes before it,
    /// and puts back what that changes: see [`stepwell_engine::precedence`].
    pub(super) fn ask_cpu(&mut self, next: &Next) -> Answer {
        let context = &self.running.core.context;
        let (x, pc, pstate) = (context.x, context.elr, context.spsr);
        let waits = matches!(next.plan, Plan::WaitForInterrupt);
        if waits {
            self.running.cpu.trap_waits(true);
        }
        let has_operand = self.harmless_operand(next.plan);
        let answer = self.execute_to_boundary(next, 1, true);
        if waits {
            self.running.cpu.trap_waits(false);
        }
        let context = &mut self.running.core.context;
        if let Answer::Accepted = answer {
            (context.x, context.elr, context.spsr) = (x, pc, pstate);
        } else if has_operand {
            context.x = x;
        }
        answer
    }

    /// What is asked of the virtual timer's registers is written: by the CPU's counter it is to
    /// mean nothing, and a compare value that was not there before may hang QEMU 7.2
    /// (docs/qemu.md). Tells whether there is another operand now.
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

    fn execute_to_boundary(&mut self, next: &Next, limit: u64, asks: bool) -> Answer {
        let answer = self.enter_to_boundary(next, limit, asks);
        pages::settle(self.running);
        self.root = Root::Guarded;
        answer
    }

    fn enter_to_boundary(&mut self, next: &Next, mut limit: u64, asks: bool) -> Answer {
        let mut armed =
            if self.past_first { ArmedBreakpoints::PastReported } else { ArmedBreakpoints::All };
        // What is at the PC was begun by the fast path after it: plain, and not known which.
        let mut in_run = false;
        let shown = self.shown(next);
        let interface =
            !next.is_known || matches!(next.plan, Plan::InterruptMask | Plan::PendingInterrupts);
        loop {
            let (outcome, vector, used) = self.enter(limit, armed, shown, interface);
            in_run |= used > 0;
            limit = 1;
            match outcome {
                Outcome::Boundary(boundary) if asks && self.has_executed(next, boundary) => {
                    return Answer::Accepted;
                }
                Outcome::Boundary(boundary) => {
                    let core = &*self.running.core;
                    let plan = if in_run { Plan::Execute } else { next.plan };
                    if !leaves_nothing(core.debug.guest(), plan, boundary)
                        || is_at_vector(self.running.cpu, core.pc())
                    {
                        self.after(next, in_run, boundary);
                    }
                    self.passed(1);
                    return Answer::Taken(None);
                }
                Outcome::Continue => {
                    let handled = handle(self.running, vector);
                    if asks && self.has_executed_unreported(next) {
                        return Answer::Accepted;
                    }
                    if let Some(end) = self.interrupted(handled, next, in_run) {
                        return Answer::Taken(Some(end));
                    }
                }
                // It would wait, and that is EL2's to do.
                Outcome::Trapped if asks && self.class() == ec::WFX => return Answer::Accepted,
                Outcome::Trapped => {
                    if let Some(end) = self.take_trap(vector, &mut armed) {
                        return Answer::Taken(end);
                    }
                }
            }
        }
    }

    /// Does what the machine would have done about a trap. Nothing: the instruction is to be
    /// retried.
    fn take_trap(&mut self, vector: Vector, armed: &mut ArmedBreakpoints) -> Option<Option<End>> {
        match self.trapped(vector) {
            Handled::Emulated => {
                match self.class() {
                    ec::HVC64 => self.running.core.monitor.called(),
                    class => self.is_device |= class == ec::DABT_LOWER,
                }
                if self.has_changed_address_space() {
                    self.executed_page = None;
                    self.emit_context();
                }
                self.carried_out();
                Some(None)
            }
            Handled::Injected => {
                // A breakpoint exception comes before its instruction begins.
                if self.class() == ec::BREAKPOINT_LOWER {
                    self.take_back();
                }
                self.entered_exception();
                Some(None)
            }
            Handled::Resume => None,
            Handled::Unrestricted => {
                self.root = Root::Unrestricted;
                None
            }
            Handled::Past => {
                if self.running.is_called() {
                    self.take_back();
                    return Some(Some(End::Asked));
                }
                // What it is let past.
                if matches!(self.class(), ec::BREAKPOINT_LOWER | ec::WATCHPOINT_LOWER) {
                    *armed = ArmedBreakpoints::None;
                }
                None
            }
            Handled::Stop(reason) => {
                self.take_back();
                Some(Some(End::Stop(reason)))
            }
            Handled::SwitchedOff => Some(Some(self.switched_off())),
        }
    }

    /// Whether what trapped made another address space current.
    fn has_changed_address_space(&self) -> bool {
        let esr = EsrEl2(self.running.core.context.esr);
        esr.ec() == ec::SYSTEM_REGISTER
            && !esr.system_register().is_read()
            && address_space::is_trapped(esr.system_register().register())
    }

    /// What an entry for `next` is to find of what is pending, if anything.
    ///
    /// Nothing is delivered by the CPU under a step: it is entered at a boundary ([`Self::go`]), so
    /// that no instruction that was begun is overtaken. So what is pending is in the machine only
    /// for what looks at it, with everything masked while that executes. The instruction cannot
    /// tell, as none of these reads PSTATE. At EL0 they are undefined, and see nothing.
    fn shown(&self, next: &Next) -> Shown {
        let is_masked = interrupt::all_masked(next.pstate);
        match next.plan {
            Plan::PendingInterrupts if next.pstate.el() > 0 => Shown::Masked,
            // Not known, it may be one of those.
            _ if !next.is_known && is_masked => Shown::AsIs,
            // ESB defers an SError that the guest has masked; what unmasks it leaves the fast path.
            Plan::Execute if self.running.core.serror.is_some() && is_masked => Shown::AsIs,
            _ => Shown::Nothing,
        }
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

    fn trapped(&mut self, vector: Vector) -> Handled {
        let handled = handle(self.running, vector);
        // It may have been a timer's register.
        self.find_deadline();
        handled
    }

    /// After an asynchronous exit: may the instruction be retried?
    pub(super) fn interrupted(
        &mut self,
        handled: Handled,
        next: &Next,
        in_run: bool,
    ) -> Option<End> {
        if handled == Handled::SwitchedOff {
            return Some(End::SwitchedOff);
        }
        if !self.running.is_called() {
            return None;
        }
        if self.running.core.engine.state() == StepState::ActivePending {
            // It has executed: report it here and now rather than with the next command.
            let boundary = Boundary { load_exclusive: false, syndrome_valid: false };
            self.after(next, in_run, boundary);
            self.report();
        } else {
            self.take_back();
        }
        Some(End::Asked)
    }

    pub(super) fn enter(
        &mut self,
        limit: u64,
        armed: ArmedBreakpoints,
        shown: Shown,
        interface: bool,
    ) -> (Outcome, Vector, u64) {
        let running = &mut *self.running;
        pages::select(running, self.root);
        // The virtual CPU interface costs more than the step: left alone while it is quiet and
        // the instruction does not look at it.
        let loaded = interface || !interrupt::is_idle(running);
        if loaded {
            let all_held = self.interrupts == InterruptPolicy::Hold && !self.is_stepping_past;
            interrupt::load_for_step(running, shown == Shown::Nothing, all_held);
        }
        debug::load_for_step(running, armed);
        let (own, masks) = (running.core.context.spsr & MASKS, shown.masks());
        running.core.context.spsr |= masks;
        let core = &mut *running.core;
        core.context.set_fast_budget(limit - 1);
        self.lend_run();
        let begun = self.running.core.pc();
        let running = &mut *self.running;
        let vector = running.cpu.enter(&mut running.core.context);
        if masks != 0 {
            self.give_masks_back(begun, own);
        }
        let core = &mut *self.running.core;
        let used = (limit - 1) - core.context.fast_budget();
        self.take_run_back();
        let core = &mut *self.running.core;
        let mut pstate = core.pstate();
        let outcome = core.engine.on_exit(exit_of(vector, core.context.esr), &mut pstate);
        core.context.spsr = pstate.0;
        if used > 0 {
            self.passed(used);
        }
        if loaded {
            interrupt::sync(self.running);
        }
        if !self.running.core.virtual_clock {
            time::update_lines(self.running);
        }
        (outcome, vector, used)
    }

    /// PSTATE has the guest's own masks again after an instruction at `begun` for which all were
    /// set.
    fn give_masks_back(&mut self, begun: Va, own: u64) {
        let core = &mut *self.running.core;
        let moved = core.pc().0.wrapping_sub(begun.0);
        if moved == 0 || moved == 4 {
            core.context.spsr = core.context.spsr & !MASKS | own;
        } else {
            // It was taken to EL1, where what was in PSTATE is in SPSR_EL1.
            self.running.cpu.write(
                SystemRegister::SPSR_EL1,
                self.running.cpu.read(SystemRegister::SPSR_EL1) & !MASKS | own,
            );
        }
    }

    /// The instruction before it executed, and what the machine shows after it.
    fn around(&self, next: &Next, in_run: bool, boundary: Boundary) -> (Before, After) {
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
    fn has_executed(&self, next: &Next, boundary: Boundary) -> bool {
        let (before, after) = self.around(next, false, boundary);
        has_executed(before, after, self.running.core.pc(), next.bytes)
    }

    /// As [`Stepper::has_executed`], after an interrupt that came before the step exception. What
    /// it leaves pending is not to be reported: the instruction is EL2's to carry out.
    fn has_executed_unreported(&mut self, next: &Next) -> bool {
        let boundary = Boundary { load_exclusive: false, syndrome_valid: false };
        let is_pending = self.running.core.engine.state() == StepState::ActivePending;
        let has_executed = is_pending && self.has_executed(next, boundary);
        if has_executed {
            let _boundary = self.running.core.engine.emulated();
        }
        has_executed
    }

    /// What an executed instruction leaves to do. `in_run`: it was not `next` but a plain one that
    /// the fast path began after it.
    fn after(&mut self, next: &Next, in_run: bool, boundary: Boundary) {
        let (before, after) = self.around(next, in_run, boundary);
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
            own_step::stepped(guest, next.pstate, load_exclusive)
        };
        core.context.spsr = pstate.0;
        match monitor {
            MonitorChange::Keep => {}
            MonitorChange::Clear => core.monitor.clear(),
            MonitorChange::Arm(load) => self.arm(load, next),
        }
        if is_other {
            // A known page has changed.
            self.running.core.context.forget_pages();
        }
        if spsr_el1.is_some() {
            self.emit_entry();
        }
        match plan {
            Plan::TranslationChange => {
                self.running.core.context.forget_pages();
                self.executed_page = None;
                self.emit_context();
            }
            // What was masked may be deliverable now.
            Plan::InterruptMask | Plan::PendingInterrupts => {
                interrupt::invalidate_interface(self.running)
            }
            // Those that went to EL1 are told already.
            _ if spsr_el1.is_some() => {}
            Plan::StoreExclusive(store) if store.rs < 31 => {
                let stored = self.running.core.context.register(store.rs) as u32 == 0;
                self.emit_exclusive(next.pc, stored);
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

fn exit_of(vector: Vector, esr: u64) -> Exit {
    let esr = EsrEl2(esr);
    match (vector, esr.ec()) {
        (Vector::Synchronous, ec::SOFTWARE_STEP_LOWER) => Exit::SoftwareStep(esr.step()),
        // QEMU fetches, and finds that stage 2 forbids it, before it looks at the pending step.
        (Vector::Synchronous, ec::BREAKPOINT_LOWER | ec::IABT_LOWER) => Exit::Breakpoint,
        (Vector::Synchronous, _) => Exit::Synchronous,
        _ => Exit::Asynchronous,
    }
}
