//! What happens: below EL2, and in the real loop after an exit, a wait, or an order.

use crate::alone;
use crate::board::Board;
use crate::exploration::Exploration;
use crate::pe::{self, Pe};
use crate::pool::Pooled;
use crate::world::{World, Wrong};
use std::rc::Rc;
use stepwell_arch::Pstate;
use stepwell_protocol::InterruptPolicy;
use stepwell_spec::{Choice, Class, Event, Op};
use stepwell_vm::cpu::Vector;
use stepwell_vm::vcpu::advance::Needs;
use stepwell_vm::vcpu::flow::Flow;
use stepwell_vm::vgic::CpuInterface;

impl World {
    /// Puts all of it into this thread's board.
    pub(crate) fn put(&self, exploration: &Exploration) -> Rc<Board> {
        let program = exploration.program(self);
        let board = exploration.board(program);
        let on = self.turn.as_ref().map(|turn| turn.on);
        board.put_shared(&self.shared, &self.vgic, on);
        pe::with(|place| {
            place.program = program;
            place.kicks = self.kicks;
            place.is_late = self.turn.as_ref().is_some_and(|turn| turn.is_late);
            for (n, pe) in self.pes.iter().enumerate() {
                // Whose list registers it has: nobody's are as good as any.
                let owner = on.map_or(n, |on| on.unwrap_or(0));
                place.pes[n] = Pe {
                    machine: pe.machine,
                    has_acknowledged: pe.has_acknowledged,
                    interface: CpuInterface::clone(&self.vcpus[owner].values.cold.interface),
                };
            }
        });
        for (n, vcpu) in self.vcpus.iter().enumerate() {
            board.put(n, &vcpu.values);
        }
        board
    }

    /// Takes it out again.
    pub(crate) fn take(&mut self, board: &Board) {
        (self.shared, self.vgic) = board.take_shared(Some((&self.shared, &self.vgic)));
        pe::with(|place| {
            for (pe, place) in self.pes.iter_mut().zip(&place.pes) {
                (pe.machine, pe.has_acknowledged) = (place.machine, place.has_acknowledged);
            }
            self.kicks = place.kicks;
        });
        for n in 0..self.vcpus.len() {
            let vcpu = &mut self.vcpus[n];
            vcpu.values = board.take(n, Some(&vcpu.values));
        }
    }

    /// A vCPU that has a CPU for itself begins with its order.
    pub(crate) fn begin(&mut self, exploration: &Exploration, n: usize) {
        let board = self.put(exploration);
        let Some(order) = board.order(n) else { return };
        let flow = board.begin(n, order);
        self.go_on(exploration, &board, n, flow, None);
    }

    /// vCPU `n` goes on from an exit, from a wait, or with an order, on a CPU of its own.
    fn go_on(
        &mut self,
        exploration: &Exploration,
        board: &Board,
        n: usize,
        mut flow: Flow,
        left: Option<Vector>,
    ) {
        let was_counting = self.vcpus[n].is_counting();
        let needs = board.go_on(n, &mut flow, left);
        let is_over = matches!(needs, Needs::Nothing(_));
        let counts_steps = flow.is_counting();
        self.vcpus[n].needs = (!is_over).then_some(needs);
        self.vcpus[n].values.set_flow((!is_over).then_some(&flow));
        self.has_gone_on(exploration, board, n, (was_counting, counts_steps));
    }

    /// The shared CPU goes on with the vCPU that it has, or with the next one.
    fn go_on_in_turn(&mut self, exploration: &Exploration, board: &Board, left: Option<Vector>) {
        let Some(turn) = self.turn.as_mut() else { return };
        let mut kept = (*turn.kept).clone();
        let Some(mut in_turn) = board.in_turn(turn.on.take(), &mut kept) else { return };
        let n = in_turn.index;
        let was_counting = self.vcpus[n].is_counting();
        self.vcpus[n].values.set_flow(Some(&in_turn.paused.flow));
        let was_counting = was_counting || self.vcpus[n].is_counting();
        let needs = board.advance_in_turn(&mut in_turn, left);
        let flow = in_turn.paused.flow.clone();
        let counts_steps = flow.is_counting();
        match needs {
            Needs::Entry | Needs::Others => {
                drop(in_turn);
                turn.on = Some(n);
            }
            _ => {
                if in_turn.end(needs) {
                    kept.forget(n);
                }
                turn.is_late = false;
            }
        }
        turn.kept = Pooled::of(&kept);
        let is_over = matches!(needs, Needs::Nothing(_));
        self.vcpus[n].needs = (!is_over).then_some(needs);
        self.vcpus[n].values.set_flow((!is_over).then_some(&flow));
        self.has_gone_on(exploration, board, n, (was_counting, counts_steps));
    }

    /// A CPU that several vCPUs share lets the next one move.
    pub(crate) fn next_turn(&mut self, exploration: &Exploration) {
        let board = self.put(exploration);
        pe::take_all(0);
        self.go_on_in_turn(exploration, &board, None);
    }

    fn has_gone_on(
        &mut self,
        exploration: &Exploration,
        board: &Board,
        n: usize,
        (was_counting, counts_steps): (bool, bool),
    ) {
        let line = self.machine(n).line;
        self.take(board);
        let cpu = self.cpu_of(n);
        let is_on = self.is_on_cpu(n);
        let (pe, vcpu) = (&mut self.pes[cpu].machine, &mut self.vcpus[n]);
        if pe.virq_class == Class::SystemError {
            // EL2 may have entered it in the CPU's place.
            vcpu.virq = vcpu.values.cold.serror.is_some();
        }
        if is_on {
            pe.virq = vcpu.virq;
        }
        // A return from EL2 makes an SS 0 that means nothing.
        if vcpu.is_in_guest() && !vcpu.is_stepping() && !alone::is_ss_alive(&vcpu.alone) {
            vcpu.alone.pstate.ss &= pe.pstate.ss;
        }
        let now = pe.line;
        let is_counting = counts_steps && self.vcpus[n].values.cold.handler_of.is_none();
        self.catch_up(exploration, n, was_counting || is_counting);
        if now != line {
            // EL2 has stored in its place.
            for (_, other) in self.vcpus.iter_mut().enumerate().filter(|(other, _)| *other != n) {
                other.alone.written_by_another(now);
            }
        }
        self.check_ring();
        self.check_told();
    }

    /// What EL2 did in the guest's place, the one that runs alone does, too.
    fn catch_up(&mut self, exploration: &Exploration, n: usize, mut counts: bool) {
        let program = exploration.program(self);
        let policy = self.shared.control.interrupts;
        let guest = self.guest(n);
        let World { vcpus, wrong, .. } = self;
        let vcpu = &mut vcpus[n];
        let Some((alone, things)) = alone::catch_up(&vcpu.alone, &guest, program) else {
            let wrong = alone::why_not(&vcpu.alone, &guest, program);
            self.is_wrong(wrong);
            return;
        };
        vcpu.alone = alone;
        for thing in things {
            if thing.is_interrupt && counts && policy == InterruptPolicy::Hold {
                wrong.get_or_insert(Wrong::Held);
            }
            // The handler of an interrupt that is stepped over is not counted, nor is its entry.
            counts &= !(thing.is_interrupt && policy == InterruptPolicy::Over);
            vcpu.take(thing, counts);
        }
    }

    /// The machine of vCPU `n` does something below EL2.
    pub(crate) fn proceed(&mut self, exploration: &Exploration, n: usize, choice: Choice) {
        let program = exploration.program(self);
        let cpu = self.cpu_of(n);
        let pe = &mut self.pes[cpu];
        let (pc, op, line) = (pe.machine.pc, program.fetch(pe.machine.pc), pe.machine.line);
        let event = pe.machine.advance(program, choice);
        if event == Event::ExitedToEl2 {
            return self.exited(exploration, n);
        }
        let is_other = choice == Choice::VirtualInterrupt;
        pe.has_acknowledged |= op == Op::Acknowledge && !is_other;
        let machine = pe.machine;
        let vcpu = &mut self.vcpus[n];
        vcpu.virq = machine.virq;
        if vcpu.values.flow.as_ref().is_some_and(|flow| flow.is_asking()) {
            // It is put back, or found out about by `catch_up`.
            return;
        }
        let counts = vcpu.is_counting();
        let failed = op == Op::StoreExclusive && machine.status && !is_other;
        let choice = if failed { Choice::StoreFails } else { choice };
        let before = vcpu.alone;
        let thing = alone::follow(&mut vcpu.alone, program, choice);
        let is_breakpoint = self.shared.control.breakpoints.contains(&pe::address_of(pc));
        if is_breakpoint && thing.begun == Some(pc) && vcpu.may_pass != Some(pc) {
            self.wrong.get_or_insert(Wrong::Breakpoint);
        }
        vcpu.take(thing, counts);
        if !alone::same_but_debug(&machine, &vcpu.alone) {
            let wrong = alone::why_not(&before, &machine, program);
            self.is_wrong(wrong);
        }
        if machine.line != line {
            self.written(Some(cpu), Some(n), machine.line);
        }
    }

    /// The guest of vCPU `n` has left for EL2.
    fn exited(&mut self, exploration: &Exploration, n: usize) {
        let board = self.put(exploration);
        let program = exploration.program(self);
        match board.leave(n, self.cpu_of(n), program) {
            None => self.take(&board),
            Some(vector) if self.turn.is_some() => {
                self.go_on_in_turn(exploration, &board, Some(vector));
            }
            Some(vector) => {
                let Some(flow) = self.vcpus[n].values.flow.clone() else { return };
                self.go_on(exploration, &board, n, (*flow).clone(), Some(vector));
            }
        }
    }

    /// vCPU `n`, which waits, is called, or looks by itself.
    pub(crate) fn wake(&mut self, exploration: &Exploration, n: usize) {
        let board = self.put(exploration);
        if self.turn.is_some() {
            return self.go_on_in_turn(exploration, &board, None);
        }
        let Some(flow) = self.vcpus[n].values.flow.clone() else { return };
        self.go_on(exploration, &board, n, (*flow).clone(), None);
    }

    /// Makes the virtual interrupt of vCPU `n` pending, or what it is not.
    pub(crate) fn set_interrupt(
        &mut self,
        exploration: &Exploration,
        n: usize,
        pending: Option<bool>,
    ) {
        let is_pending = pending.unwrap_or(!self.vcpus[n].alone.virq);
        (self.vcpus[n].virq, self.vcpus[n].alone.virq) = (is_pending, is_pending);
        if self.is_on_cpu(n) {
            let cpu = self.cpu_of(n);
            self.pes[cpu].machine.virq = is_pending;
        }
        let board = self.put(exploration);
        if exploration.interrupt == Class::SystemError {
            board.with_core(n, |core| core.serror = is_pending.then_some(0));
        } else {
            board.set_interrupt(n, is_pending);
        }
        self.take(&board);
    }

    /// The debugger's view of vCPU 0's PSTATE and PC, where it is stopped.
    pub(crate) fn alone_is_at(&mut self, pstate: Pstate, pc: u64) {
        let vcpu = &mut self.vcpus[0];
        vcpu.alone.pstate = crate::bits::proc_state(pstate);
        vcpu.alone.pc = pe::number_of(pc);
        vcpu.may_pass = Some(vcpu.alone.pc);
        vcpu.told = None;
    }
}
