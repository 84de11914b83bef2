//! The calls of one vCPU that have not ended, rebuilt from jumps.
//!
//! A call pushes a frame that ends when its return address is reached. Some code does not play by
//! these rules, and each case has its answer:
//!
//! - A jump to another function is a tail call: its frame ends together with its caller's.
//! - A return to an address that nobody expects (a task switch, `longjmp`, a trace that began
//!   inside) ends the top frame; where it leads is shown as a frame that ends with the one below.
//! - A change of place that no instruction explains is an exception; it and an interrupt end where
//!   the interrupted code goes on.
//! - Where the code was not recorded, a function's first address counts as a call, and a return
//!   address as a return.

use super::tree::{OpenNode, Tree};
use crate::code::CodePages;
use crate::flow::Flow;
use crate::symbols::Symbols;
use stepwell_arch::address::Va;

/// Deepest stack that is followed; a call beyond takes the place of the top frame.
const DEPTH_MAX: usize = 512;

/// What gives names to addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) code: &'a CodePages,
    pub(super) symbols: &'a Symbols,
}

impl Names<'_> {
    fn flow(self, pc: Va) -> Option<Flow> {
        Some(Flow::of(self.code.word(pc)?, pc))
    }

    /// Returns the name of the function at `pc`, and whether `pc` is its first address.
    fn function(self, pc: Va) -> (String, bool) {
        match self.symbols.lookup(pc) {
            Some((name, offset)) => (name.to_owned(), offset == 0),
            None => ("(unknown)".to_owned(), false),
        }
    }

    /// Returns the name of what a call to `pc` calls.
    fn callee(self, pc: Va) -> String {
        match self.symbols.lookup(pc) {
            Some((name, 0)) => name.to_owned(),
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => format!("{pc}"),
        }
    }

    fn place(self, pc: Va) -> String {
        match self.symbols.lookup(pc) {
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => format!("{pc}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    /// Entered by a call, or first seen in the middle.
    Function,
    /// Entered by a jump: shares its caller's return address.
    TailCall,
    /// An interrupt or exception.
    Exception,
}

#[derive(Debug)]
struct Frame {
    node: OpenNode,
    kind: FrameKind,
    /// The function that it is in now, for jumps.
    function: u32,
    return_to: Option<Va>,
}

/// The frames of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Stack {
    frames: Vec<Frame>,
    /// What began the others: the trace itself.
    root: OpenNode,
    /// The instruction that was executed last.
    last: Option<Va>,
    /// An interrupt was entered since.
    interrupted: bool,
}

impl Stack {
    /// Follows a run.
    pub(super) fn run(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va, length: u32) {
        if self.interrupted {
            self.interrupted = false;
            self.open_function(tree, names, pc, None);
        } else if let Some(last) = self.last {
            self.follow(tree, names, last, pc);
        }
        if self.frames.is_empty() {
            self.open_function(tree, names, pc, None);
        }
        if let Some(top) = self.frames.last_mut() {
            top.node.instructions += u64::from(length);
        }
        self.last = Some(pc.offset(u64::from(length.max(1) - 1) * 4));
    }

    /// Follows an interrupt that was entered instead of the instruction at `pc`.
    pub(super) fn interrupt(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va) {
        // The instruction before may have been a branch: be where it led first.
        if let Some(last) = self.last.filter(|_| !self.interrupted) {
            self.follow(tree, names, last, pc);
        }
        if self.frames.is_empty() {
            self.open_function(tree, names, pc, None);
        }
        self.open_exception(tree, &format!("[interrupt at {}]", names.place(pc)), pc);
        self.interrupted = true;
    }

    /// Ends all calls.
    pub(super) fn finish(mut self, tree: &mut Tree) -> OpenNode {
        self.close_down_to(tree, 0);
        self.root
    }

    fn follow(&mut self, tree: &mut Tree, names: Names<'_>, last: Va, pc: Va) {
        let next = last.offset(4);
        if pc == next {
            return;
        }
        match names.flow(last) {
            Some(Flow::Call(_)) => self.call(tree, &names.callee(pc), names, pc, Some(next)),
            Some(Flow::Return) => self.return_to(tree, names, pc),
            Some(Flow::Jump(_)) => self.jump(tree, names, pc),
            Some(Flow::ExceptionReturn) => self.exception_return(tree, names, pc),
            Some(Flow::Next) => {
                let label = format!("[exception at {}]", names.place(last));
                self.open_exception(tree, &label, last);
                self.open_function(tree, names, pc, None);
            }
            None => self.guess(tree, names, next, pc),
        }
    }

    fn return_to(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va) {
        if self.close_returning(tree, pc) {
            return;
        }
        if let Some(top) = self.chain_start() {
            self.close_down_to(tree, top);
        }
        self.arrive(tree, names, pc);
    }

    /// Ends the frames that `pc` is the return address of, if there are any.
    fn close_returning(&mut self, tree: &mut Tree, pc: Va) -> bool {
        let found = self
            .frames
            .iter()
            .rposition(|frame| frame.kind != FrameKind::Exception && frame.return_to == Some(pc));
        let Some(mut index) = found else { return false };
        while index > 0 && self.frames[index].kind == FrameKind::TailCall {
            index -= 1;
        }
        self.close_down_to(tree, index);
        true
    }

    fn jump(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va) {
        let (name, first) = names.function(pc);
        let function = tree.label(&name);
        let Some(start) = self.chain_start() else { return };
        if !first && let Some(back) = self.in_chain(start, function) {
            self.close_down_to(tree, back + 1);
            return;
        }
        let top = &self.frames[self.frames.len() - 1];
        if top.function == function {
            return;
        }
        let return_to = top.return_to;
        let label = names.callee(pc);
        self.call(tree, &label, names, pc, return_to);
        if let Some(top) = self.frames.last_mut() {
            top.kind = FrameKind::TailCall;
        }
    }

    fn exception_return(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va) {
        // An SVC returns behind itself, a fault or an interrupt to where it was.
        let found = self.frames.iter().rposition(|frame| {
            let from = frame.return_to.filter(|_| frame.kind == FrameKind::Exception);
            from.is_some_and(|from| from == pc || from.offset(4) == pc)
        });
        if let Some(index) = found {
            self.close_down_to(tree, index);
            return;
        }
        // Boot code changes its exception level by an ERET to its return address.
        if self.close_returning(tree, pc) {
            return;
        }
        let innermost = self.frames.iter().rposition(|frame| frame.kind == FrameKind::Exception);
        if let Some(index) = innermost.or_else(|| self.chain_start()) {
            self.close_down_to(tree, index);
        }
        self.arrive(tree, names, pc);
    }

    /// Follows a change of place after an instruction that is not known.
    fn guess(&mut self, tree: &mut Tree, names: Names<'_>, next: Va, pc: Va) {
        if self.close_returning(tree, pc) {
            return;
        }
        let (name, first) = names.function(pc);
        let function = tree.label(&name);
        if self.frames.last().is_some_and(|top| top.function == function) {
            return;
        }
        if first {
            self.call(tree, &name, names, pc, Some(next));
            return;
        }
        match self.frames.iter().rposition(|frame| frame.function == function) {
            Some(index) => self.close_down_to(tree, index + 1),
            None => self.arrive(tree, names, pc),
        }
    }

    /// Goes on in the function at `pc`, which no known frame led to.
    fn arrive(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va) {
        let function = tree.label(&names.function(pc).0);
        if self.frames.last().is_none_or(|top| top.function != function) {
            self.open_function(tree, names, pc, None);
        }
    }

    /// Returns the frame that the top frame was called as, before tail calls.
    fn chain_start(&self) -> Option<usize> {
        let mut index = self.frames.len().checked_sub(1)?;
        while index > 0 && self.frames[index].kind == FrameKind::TailCall {
            index -= 1;
        }
        Some(index)
    }

    fn in_chain(&self, start: usize, function: u32) -> Option<usize> {
        let chain = &self.frames[start..];
        Some(start + chain.iter().rposition(|frame| frame.function == function)?)
    }

    fn open_function(&mut self, tree: &mut Tree, names: Names<'_>, pc: Va, return_to: Option<Va>) {
        let (name, _) = names.function(pc);
        self.call(tree, &name, names, pc, return_to);
    }

    fn call(
        &mut self,
        tree: &mut Tree,
        label: &str,
        names: Names<'_>,
        pc: Va,
        return_to: Option<Va>,
    ) {
        let function = tree.label(&names.function(pc).0);
        let node = OpenNode::new(tree.label(label));
        self.push(tree, Frame { node, kind: FrameKind::Function, function, return_to });
    }

    fn open_exception(&mut self, tree: &mut Tree, label: &str, from: Va) {
        let label = tree.label(label);
        let node = OpenNode::new(label);
        let return_to = Some(from);
        self.push(tree, Frame { node, kind: FrameKind::Exception, function: label, return_to });
    }

    fn push(&mut self, tree: &mut Tree, frame: Frame) {
        if self.frames.len() >= DEPTH_MAX {
            self.close_down_to(tree, DEPTH_MAX - 1);
        }
        self.frames.push(frame);
    }

    /// Ends calls until `depth` are left.
    fn close_down_to(&mut self, tree: &mut Tree, depth: usize) {
        while self.frames.len() > depth {
            let Some(frame) = self.frames.pop() else { return };
            let node = tree.close(frame.node);
            let parent = self.frames.last_mut().map_or(&mut self.root, |parent| &mut parent.node);
            tree.attach(parent, node);
        }
    }
}
