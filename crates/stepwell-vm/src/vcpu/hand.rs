//! The instruction that is being stepped, as a value: what was seen of it before, and how it is let
//! execute.

use crate::vcpu::interrupt::Asynchronous;
use crate::vcpu::roots::Root;
use stepwell_arch::{Instruction, LoadStore, Pstate, Va};
use stepwell_engine::Plan;

/// What masks asynchronous exceptions.
pub(super) const MASKS: u64 = Pstate::A | Pstate::I | Pstate::F;

/// The instruction that is being stepped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InHand {
    /// What was seen of it.
    pub(super) next: Next,
    /// What it is entered for.
    pub(super) purpose: Purpose,
    /// Steps that the fast path may take with it.
    pub(super) limit: u64,
    /// What is at the PC was begun by the fast path after it: plain, and not known which.
    pub(super) in_run: bool,
    /// A breakpoint or watchpoint hit that is not wanted where the guest is: it is let past with all
    /// of them off.
    pub(super) is_let_past: bool,
    /// What it finds of the interrupts that are pending.
    pub(super) shown: Shown,
    /// It may look at the virtual CPU interface.
    pub(super) needs_interface: bool,
    /// What this entry has loaded.
    pub(super) entry: Entry,
    /// The stage-2 tables for it.
    pub(super) root: Root,
    /// The guest's counter before it, where that counts instructions.
    pub(super) clock: Option<u64>,
    /// Steps before it.
    pub(super) steps_before: u64,
    /// The page of the last load-exclusive that armed the monitor: the CPU has executed it.
    pub(super) executed_page: Option<Va>,
    /// The interrupt that is being entered.
    pub(super) intid: Option<u32>,
    /// What the CPU of a guest that runs would have taken right behind it, before anything else.
    pub(super) taken_behind: Option<Asynchronous>,
    /// It led to an exception.
    pub(super) has_entered: bool,
    /// It is an access of a device.
    pub(super) is_device: bool,
    /// It is a store-exclusive that stored.
    pub(super) has_stored: bool,
    /// What is kept from before it, where everything is recorded.
    pub(super) detail: Option<Before>,
}

/// What the CPU is entered for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and a step allocates nothing")]
pub(super) enum Purpose {
    /// It is to execute the instruction.
    Execute,
    /// It is asked what comes before an instruction that EL2 is to carry out.
    Ask(Question),
}

/// What is put back after the CPU was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) x: [u64; 31],
    pub(super) pc: u64,
    pub(super) pstate: u64,
    /// The CPU's waits trap meanwhile.
    pub(super) waits: bool,
    /// It was given another operand.
    pub(super) has_operand: bool,
}

/// What an entry has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// Where it began.
    pub(super) begun: Va,
    /// The guest's own masks, where all are set.
    pub(super) masks: Option<u64>,
    /// The virtual CPU interface.
    pub(super) interface: bool,
}

/// What a stepped instruction finds of the interrupts that are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shown {
    /// None: whatever it does, none comes.
    Nothing,
    /// All, under the guest's own masks, which keep all of them away.
    AsIs,
    /// All, with everything masked while it executes.
    Masked,
}

/// The instruction at the PC, about to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Next {
    pub(super) pc: Va,
    pub(super) pstate: Pstate,
    pub(super) plan: Plan,
    /// The instruction, if it was fetched and is A64.
    pub(super) word: Option<u32>,
    /// Its length: 4, or 2 of some T32 instructions.
    pub(super) bytes: u64,
    /// Known to be fetched from a page that the fast path may look into.
    pub(super) plain: bool,
    /// It was fetched and decoded.
    pub(super) is_known: bool,
    pub(super) svc: bool,
    /// It is the ESB of A32 or T32. A64's is known by its word.
    pub(super) esb32: bool,
    /// Base register of an exclusive.
    pub(super) base: u64,
    pub(super) spsr_el1: Pstate,
}

/// Memory operands of an instruction that is about to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Operands {
    pub(super) what: LoadStore,
    pub(super) address: u64,
    /// What an atomic finds.
    pub(super) before: [Option<u128>; 2],
}

/// What is kept from before an instruction of which everything is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Before {
    pub(super) operands: Option<Operands>,
}

impl InHand {
    /// None yet.
    pub(super) const NONE: Self = Self {
        next: Next::unknown(Va(0), Pstate(0)),
        purpose: Purpose::Execute,
        limit: 1,
        in_run: false,
        is_let_past: false,
        shown: Shown::Nothing,
        needs_interface: false,
        entry: Entry { begun: Va(0), masks: None, interface: false },
        root: Root::Guarded,
        clock: None,
        steps_before: 0,
        executed_page: None,
        intid: None,
        taken_behind: None,
        has_entered: false,
        is_device: false,
        has_stored: false,
        detail: None,
    };
}

impl Next {
    /// Whether it defers an SError.
    pub(super) fn is_esb(&self) -> bool {
        self.esb32 || self.word.is_some_and(Instruction::is_esb)
    }

    /// One that cannot be looked at.
    pub(super) const fn unknown(pc: Va, pstate: Pstate) -> Self {
        Self {
            pc,
            pstate,
            plan: Plan::Execute,
            word: None,
            bytes: 4,
            plain: false,
            is_known: false,
            svc: false,
            esb32: false,
            base: 0,
            spsr_el1: Pstate(0),
        }
    }
}
