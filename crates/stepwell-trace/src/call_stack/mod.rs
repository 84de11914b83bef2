//! Call stacks, rebuilt from a recording as it streams by.
//!
//! A recording holds jumps, not calls. [`CallStacks`] follows them and tells a [`CallVisitor`]
//! which function was entered and left, on which vCPU, and how many instructions each executed:
//! what the outline, flame graphs, timelines and the report are all made of.
//!
//! What a visitor is told is balanced on each vCPU: whatever is entered is left, the innermost
//! first, also where the guest does not play by the rules. When the guest's scheduler switches
//! tasks, the frames of the task that stops are left (`suspended`) and those of the task that goes
//! on are entered again (`resumed`), so a visitor needs to know nothing of tasks.
//!
//! Memory is bounded: 512 frames a stack, 1024 tasks that wait, and no event is ever kept.
//!
//! Some code does not call and return, and each case has its answer:
//!
//! - A jump to another function is a tail call: its frame ends together with its caller's.
//! - A return to an address that nobody expects (`longjmp`, a trace that began inside) ends the
//!   top frame; where it leads is shown as a frame that ends with the one below.
//! - A return out of the function that switches tasks leads into another task. Which one, the
//!   jumps do not say; see the `tasks` module for how it is found.
//! - Exceptions and interrupts end where the interrupted code goes on. In recordings that do not
//!   tell exceptions (version 1.0), a change of place that no instruction explains is one.
//! - Where the code was not recorded, a function's first address counts as a call, and a return
//!   address as a return.

mod functions;
mod stack;
mod tasks;

use crate::code::CodePages;
use crate::format::Record;
use crate::symbols::Symbols;
use functions::Functions;
pub(crate) use functions::is_task_switch;
use stack::Stack;
use std::collections::BTreeMap;
use stepwell_arch::address::Va;
use tasks::Tasks;

/// Stands for a function's name; functions of one name share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

impl FunctionId {
    /// Code that no symbol covers.
    pub const UNKNOWN: Self = Self(0);
    /// Code that no symbol covers, in the lower half of the addresses, while the symbols are those
    /// of a kernel in the upper half: a program of the guest's.
    pub const USER: Self = Self(1);

    /// Tells whether this is code without a name.
    #[must_use]
    pub const fn is_nameless(self) -> bool {
        self.0 <= Self::USER.0
    }
}

/// How a frame came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Entered by a call.
    Function,
    /// Not called: an exception led there, or it was in its middle when it was first seen.
    Found,
    /// Entered by a jump: ends together with the frame below it.
    TailCall,
    /// An exception that the instruction at the frame's address took.
    Exception,
    /// An interrupt, taken in place of the instruction at the frame's address.
    Interrupt,
}

impl FrameKind {
    /// Tells whether the frame stands for an exception or interrupt rather than for a function.
    #[must_use]
    pub const fn is_exception(self) -> bool {
        matches!(self, Self::Exception | Self::Interrupt)
    }
}

/// A frame that is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'n> {
    /// The vCPU.
    pub vcpu: u8,
    /// How.
    pub kind: FrameKind,
    /// The function, or the one that was interrupted.
    pub function: FunctionId,
    /// Its name.
    pub name: &'n str,
    /// The address at which the function was entered, or which was interrupted.
    pub at: Va,
    /// The frame is that of a task that goes on, not a new call.
    pub resumed: bool,
}

/// A frame that is left: always the one that was entered last on its vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The vCPU.
    pub vcpu: u8,
    /// How the frame was entered.
    pub kind: FrameKind,
    /// The function, or the one that was interrupted.
    pub function: FunctionId,
    /// The frame's task stops here and may go on later: the call has not ended.
    pub suspended: bool,
}

/// Is told what happens to the call stacks.
pub trait CallVisitor {
    /// A frame was entered; what is executed from here on belongs to it.
    fn enter(&mut self, entry: Entry<'_>);

    /// The top frame was left.
    fn leave(&mut self, exit: Exit);

    /// `length` instructions, 4 bytes apart, were executed from `pc` on in the top frame. There is
    /// always one.
    fn execute(&mut self, vcpu: u8, pc: Va, length: u32);
}

/// Follows the calls of every vCPU.
#[derive(Debug)]
pub struct CallStacks<'a> {
    functions: Functions<'a>,
    stacks: BTreeMap<u8, Stack>,
    tasks: Tasks,
}

impl<'a> CallStacks<'a> {
    /// Starts with empty stacks; `code` and `symbols` are those of the recording.
    #[must_use]
    pub fn new(code: &'a CodePages, symbols: &'a Symbols) -> Self {
        let functions = Functions::new(code, symbols);
        Self { functions, stacks: BTreeMap::new(), tasks: Tasks::default() }
    }

    /// Follows the next record.
    pub fn record(&mut self, record: &Record, visitor: &mut impl CallVisitor) {
        match *record {
            Record::Run { vcpu, pc, length } => {
                self.on(vcpu, visitor, |follow, stack| stack.run(follow, pc, length));
            }
            Record::Interrupt { vcpu, pc } => {
                self.on(vcpu, visitor, |follow, stack| stack.interrupt(follow, pc));
            }
            Record::ExceptionEntry(ref entry) => {
                self.on(entry.vcpu, visitor, |follow, stack| stack.exception(follow, entry));
            }
            Record::InstructionSet { vcpu, set } => {
                self.on(vcpu, visitor, |_, stack| stack.execute_in(set));
            }
            // The run that follows an exception return tells where it led.
            Record::ExceptionReturn { .. }
            | Record::Event(_)
            | Record::Exclusive { .. }
            | Record::Turns { .. }
            | Record::Context(_)
            | Record::Time { .. }
            | Record::Register { .. }
            | Record::Memory(_) => {}
        }
    }

    /// Leaves all frames: the recording is at its end.
    pub fn finish(&mut self, visitor: &mut impl CallVisitor) {
        for (vcpu, mut stack) in std::mem::take(&mut self.stacks) {
            let (functions, tasks) = (&mut self.functions, &mut self.tasks);
            stack.finish(&mut Follow { vcpu, functions, tasks, visitor });
        }
    }

    /// Returns the name of a function.
    #[must_use]
    pub fn name(&self, function: FunctionId) -> &'a str {
        self.functions.name(function)
    }

    /// Returns how many functions were seen: their [`FunctionId`]s are all below.
    #[must_use]
    pub fn function_count(&self) -> usize {
        self.functions.count()
    }

    /// Returns the function that the code at `pc` belongs to.
    pub fn function_at(&mut self, pc: Va) -> FunctionId {
        self.functions.at(pc).id
    }

    /// Returns the name of the function at `pc`, and how far into it that is, in bytes.
    #[must_use]
    pub fn place(&self, pc: Va) -> Option<(&'a str, u64)> {
        self.functions.place(pc)
    }

    fn on<V: CallVisitor>(
        &mut self,
        vcpu: u8,
        visitor: &mut V,
        work: impl FnOnce(&mut Follow<'_, 'a, V>, &mut Stack),
    ) {
        let stack = self.stacks.entry(vcpu).or_default();
        let (functions, tasks) = (&mut self.functions, &mut self.tasks);
        work(&mut Follow { vcpu, functions, tasks, visitor }, stack);
    }
}

/// What a stack needs to follow a record.
struct Follow<'f, 'a, V> {
    vcpu: u8,
    functions: &'f mut Functions<'a>,
    tasks: &'f mut Tasks,
    visitor: &'f mut V,
}

#[cfg(test)]
mod tests;
