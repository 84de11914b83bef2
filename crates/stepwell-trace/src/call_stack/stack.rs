//! The calls of one vCPU that have not ended.

use super::tasks::Task;
use super::{CallVisitor, Entry, Exit, Follow, FrameKind, FunctionId};
use crate::flow::Flow;
use crate::format::{ExceptionCause, ExceptionEntry};
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;

/// Deepest stack that is followed; a call beyond takes the place of the top frame.
const DEPTH_MAX: usize = 512;

/// ESR_ELx.EC of an SVC from AArch64. Arm ARM, DDI 0487 L.b, "ESR_EL1".
const EC_SVC32: u64 = 0x11;
const EC_SVC64: u64 = 0x15;

fn is_svc(entry: &ExceptionEntry) -> bool {
    entry.cause == ExceptionCause::Synchronous
        && matches!((entry.syndrome >> 26) & 0x3f, EC_SVC32 | EC_SVC64)
}

/// A call that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    /// The function that it is in, for jumps.
    pub(super) function: FunctionId,
    /// Where it was entered, or what it interrupted.
    pub(super) at: Va,
    pub(super) return_to: Option<Va>,
}

impl Frame {
    fn is_in(&self, function: FunctionId) -> bool {
        self.function == function && !self.kind.is_exception()
    }

    /// Tells whether it is an exception that ends when `pc` goes on: an SVC returns behind itself,
    /// a fault or an interrupt to where it was.
    pub(super) fn resumes_at(&self, pc: Va) -> bool {
        let from = self.return_to.filter(|_| self.kind.is_exception());
        from.is_some_and(|from| from == pc || from.offset(4) == pc)
    }
}

/// Returns the frame that the top frame was called as, before tail calls.
pub(super) fn chain_start(frames: &[Frame]) -> Option<usize> {
    let mut index = frames.len().checked_sub(1)?;
    while index > 0 && frames[index].kind == FrameKind::TailCall {
        index -= 1;
    }
    Some(index)
}

/// A task that was guessed to be the one that goes on, and what happened since.
#[derive(Debug)]
struct Guess {
    /// As it waited, to be put back if it was the wrong one.
    task: Task,
    /// Where its calls have returned to so far.
    returns: Vec<Va>,
    /// How many of its frames are left.
    left: usize,
}

/// The frames of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Stack {
    frames: Vec<Frame>,
    /// The instruction that was executed last.
    last: Option<Va>,
    /// What it executes, and what `last` was.
    set: InstructionSet,
    last_set: InstructionSet,
    /// An exception or interrupt was entered since.
    entered: bool,
    guess: Option<Guess>,
}

impl Stack {
    /// Follows a run.
    pub(super) fn run<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va, length: u32) {
        let (mut pc, mut left) = (pc, length);
        while let Some(before) = on.functions.until_switch(pc, left) {
            self.run_in_task(on, pc, before);
            (pc, left) = (pc.offset(u64::from(before) * 4), left - before);
        }
        self.run_in_task(on, pc, left);
    }

    /// Follows a run in which no task is switched but at its end.
    fn run_in_task<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va, length: u32) {
        let ran_over = self.end_if_run_over(on, pc);
        if self.entered {
            self.entered = false;
            self.call(on, FrameKind::Found, pc, None);
        } else if ran_over {
            // Where the last instruction led was followed when the interrupt came.
        } else if let Some(last) = self.last {
            self.follow(on, last, pc);
        }
        if self.frames.is_empty() {
            self.call(on, FrameKind::Found, pc, None);
        }
        on.visitor.execute(on.vcpu, pc, length);
        self.last = Some(pc.offset(u64::from(length.max(1) - 1) * 4));
        self.last_set = self.set;
    }

    /// Takes down what is executed from here on.
    pub(super) const fn execute_in(&mut self, set: InstructionSet) {
        self.set = set;
    }

    /// Follows an interrupt that was entered instead of the instruction at `pc`.
    pub(super) fn interrupt<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) {
        let is_there = self.end_if_run_over(on, pc);
        // The instruction before may have been a branch: be where it led first.
        if let Some(last) = self.last.filter(|_| !self.entered && !is_there) {
            self.follow(on, last, pc);
        }
        if self.frames.is_empty() {
            self.call(on, FrameKind::Found, pc, None);
        }
        self.call(on, FrameKind::Interrupt, pc, Some(pc));
        self.entered = true;
    }

    /// Ends an interrupt that came at `pc`, where the vCPU goes on: its handler was run over, and is
    /// not in the recording.
    fn end_if_run_over<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) -> bool {
        let top = self.frames.last();
        let is_over =
            self.entered && top.is_some_and(|top| top.kind == FrameKind::Interrupt && top.at == pc);
        if is_over {
            self.entered = false;
            self.close_down_to(on, self.frames.len() - 1, false);
        }
        is_over
    }

    /// Follows an exception, unless it is an interrupt that was told before.
    pub(super) fn exception<V: CallVisitor>(
        &mut self,
        on: &mut Follow<'_, '_, V>,
        entry: &ExceptionEntry,
    ) {
        if self.entered {
            return;
        }
        let back = entry.return_address;
        if let Some(last) = self.last {
            self.follow(on, last, back);
        }
        if self.frames.is_empty() {
            self.call(on, FrameKind::Found, back, None);
        }
        // An SVC is named by itself, though it returns behind itself.
        let behind = self.last.filter(|last| {
            let bytes = if self.last_set == InstructionSet::T32 { 2 } else { 4 };
            is_svc(entry) && last.offset(bytes) == back
        });
        let kind = match entry.cause {
            ExceptionCause::Synchronous | ExceptionCause::SError => FrameKind::Exception,
            ExceptionCause::Irq | ExceptionCause::Fiq => FrameKind::Interrupt,
        };
        self.call(on, kind, behind.unwrap_or(back), Some(back));
        self.entered = true;
    }

    /// Ends all calls.
    pub(super) fn finish<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>) {
        self.close_down_to(on, 0, false);
    }

    fn follow<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, last: Va, pc: Va) {
        let next = last.offset(4);
        if pc == next && !on.functions.switches_tasks(last) {
            return;
        }
        // Only A64 tells what its branches are for.
        let is_a64 = self.last_set == InstructionSet::A64;
        match on.functions.flow(last).filter(|_| is_a64) {
            Some(Flow::Call(_)) => self.call(on, FrameKind::Function, pc, Some(next)),
            Some(Flow::Return) if on.functions.switches_tasks(last) => self.switch_task(on, pc),
            Some(Flow::Return) => self.return_to(on, pc),
            Some(Flow::Jump(_)) => self.jump(on, pc),
            Some(Flow::ExceptionReturn) => self.exception_return(on, pc),
            Some(Flow::Next) => {
                self.call(on, FrameKind::Exception, last, Some(last));
                self.call(on, FrameKind::Found, pc, None);
            }
            None => self.guess_flow(on, next, pc),
        }
    }

    fn return_to<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) {
        if self.contradicts_guess(pc) {
            self.guess_again(on, |on, returns| on.tasks.returning(returns));
        } else if self.close_returning(on, pc) {
            return;
        } else if let Some(top) = chain_start(&self.frames) {
            self.close_down_to(on, top, false);
        }
        self.arrive(on, pc);
    }

    /// Ends the frames that `pc` is the return address of, if there are any.
    fn close_returning<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) -> bool {
        let found = self
            .frames
            .iter()
            .rposition(|frame| !frame.kind.is_exception() && frame.return_to == Some(pc));
        let start = found.and_then(|index| chain_start(&self.frames[..=index]));
        if let Some(start) = start {
            self.close_down_to(on, start, false);
        }
        start.is_some()
    }

    fn jump<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) {
        let Some(top) = self.frames.last() else { return };
        let at = on.functions.at(pc);
        if top.is_in(at.id) {
            return;
        }
        let (return_to, start) = (top.return_to, chain_start(&self.frames).unwrap_or(0));
        let in_chain = self.frames[start..].iter().rposition(|frame| frame.is_in(at.id));
        match in_chain.filter(|_| !at.first) {
            Some(back) => self.close_down_to(on, start + back + 1, false),
            None => self.call(on, FrameKind::TailCall, pc, return_to),
        }
    }

    fn exception_return<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) {
        if let Some(index) = self.frames.iter().rposition(|frame| frame.resumes_at(pc)) {
            self.close_down_to(on, index, false);
            return;
        }
        // Boot code changes its exception level by an ERET to its return address.
        if self.close_returning(on, pc) {
            return;
        }
        let innermost = self.frames.iter().rposition(|frame| frame.kind.is_exception());
        if self.guess.as_ref().is_some_and(|guess| innermost.is_none_or(|at| at < guess.left)) {
            self.guess_again(on, |on, _| on.tasks.interrupted_at(pc));
        } else if let Some(index) = innermost.or_else(|| chain_start(&self.frames)) {
            self.close_down_to(on, index, false);
        }
        self.arrive(on, pc);
    }

    /// Goes on in another task, which waited to go on at `pc` or is new.
    fn switch_task<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) {
        let switcher = chain_start(&self.frames).unwrap_or(0);
        let resumes_at = self.frames.get(switcher).and_then(|frame| frame.return_to);
        self.close_down_to(on, switcher, false);
        let next = on.tasks.guess(pc);
        self.guess = None;
        if !self.frames.is_empty() {
            on.tasks.park(Task { frames: self.frames.clone(), resumes_at });
        }
        self.close_down_to(on, 0, true);
        match next {
            Some(task) => {
                self.resume(on, &task.frames);
                let left = task.frames.len();
                self.guess = Some(Guess { task, returns: Vec::new(), left });
            }
            None => self.arrive(on, pc),
        }
    }

    /// Notes a return to `pc`, and tells whether the task that was guessed would not have returned
    /// there.
    fn contradicts_guess(&mut self, pc: Va) -> bool {
        let Some(guess) = &mut self.guess else { return false };
        if self.frames.len() > guess.left {
            return false;
        }
        guess.returns.push(pc);
        let top = self.frames.last();
        let right = top.is_some_and(|top| !top.kind.is_exception() && top.return_to == Some(pc));
        !right
    }

    /// Takes the task that `find` finds in place of the one that was guessed; none is an unknown
    /// task, whose stack is not known either.
    fn guess_again<V: CallVisitor>(
        &mut self,
        on: &mut Follow<'_, '_, V>,
        find: impl FnOnce(&mut Follow<'_, '_, V>, &[Va]) -> Option<(Task, usize)>,
    ) {
        let Some(guess) = self.guess.take() else { return };
        let found = find(on, &guess.returns);
        self.close_down_to(on, 0, true);
        if let Some((task, left)) = found {
            self.resume(on, &task.frames[..left]);
            self.guess = Some(Guess { task, returns: guess.returns, left });
        }
        on.tasks.put_back(guess.task);
    }

    /// Follows a change of place after an instruction that is not known.
    fn guess_flow<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, next: Va, pc: Va) {
        if self.close_returning(on, pc) {
            return;
        }
        let at = on.functions.at(pc);
        if self.frames.last().is_some_and(|top| top.is_in(at.id)) {
            return;
        }
        if at.first {
            self.call(on, FrameKind::Function, pc, Some(next));
            return;
        }
        match self.frames.iter().rposition(|frame| frame.is_in(at.id)) {
            Some(index) => self.close_down_to(on, index + 1, false),
            None => self.arrive(on, pc),
        }
    }

    /// Goes on in the function at `pc`, which no known frame led to.
    fn arrive<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, pc: Va) {
        let function = on.functions.at(pc).id;
        if !self.frames.last().is_some_and(|top| top.is_in(function)) {
            self.call(on, FrameKind::Found, pc, None);
        }
    }

    fn call<V: CallVisitor>(
        &mut self,
        on: &mut Follow<'_, '_, V>,
        kind: FrameKind,
        at: Va,
        return_to: Option<Va>,
    ) {
        if self.frames.len() >= DEPTH_MAX {
            self.close_down_to(on, DEPTH_MAX - 1, false);
        }
        let function = on.functions.at(at).id;
        self.open(on, Frame { kind, function, at, return_to }, false);
    }

    /// Enters the frames of a task that goes on.
    fn resume<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, frames: &[Frame]) {
        for &frame in frames {
            self.open(on, frame, true);
        }
    }

    fn open<V: CallVisitor>(&mut self, on: &mut Follow<'_, '_, V>, frame: Frame, resumed: bool) {
        let Frame { kind, function, at, .. } = frame;
        self.frames.push(frame);
        let name = on.functions.name(function);
        on.visitor.enter(Entry { vcpu: on.vcpu, kind, function, name, at, resumed });
    }

    /// Ends calls until `depth` are left.
    fn close_down_to<V: CallVisitor>(
        &mut self,
        on: &mut Follow<'_, '_, V>,
        depth: usize,
        suspended: bool,
    ) {
        while self.frames.len() > depth {
            let Some(Frame { kind, function, .. }) = self.frames.pop() else { break };
            on.visitor.leave(Exit { vcpu: on.vcpu, kind, function, suspended });
        }
        if let Some(guess) = &mut self.guess {
            guess.left = guess.left.min(depth);
        }
    }
}
