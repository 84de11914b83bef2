//! What a run of steps is about, as values.

use crate::cpu::Cpu;
use crate::domain::Role;
use crate::vcpu::roots::Root;
use crate::vcpu::running::{End, Running};
use stepwell_arch::{Pstate, Va};
use stepwell_engine::{OthersPolicy, Plan, SpinDetector, TimePolicy};
use stepwell_protocol::{InterruptPolicy, TraceDetail};

/// What a run of steps is about.
pub(super) struct Stepper<'a, 'b, C: Cpu> {
    pub(super) running: &'a mut Running<'b, C>,
    pub(super) interrupts: InterruptPolicy,
    pub(super) time: TimePolicy,
    /// Steps at which it is to be seen whether there are to be more.
    pub(super) count: u64,
    pub(super) steps: u64,
    /// Of these, in handlers that are stepped over.
    pub(super) unseen: u64,
    /// What such a handler interrupted.
    pub(super) before: BeforeHandler,
    /// The next event has to wait until an instruction has executed.
    pub(super) must_move: bool,
    pub(super) record: bool,
    /// Whether it is to be recorded what is not in such a handler.
    pub(super) is_recorded: bool,
    /// What is recorded beside PCs.
    pub(super) detail: TraceDetail,
    /// Steps at which the clock is to be told again.
    pub(super) time_due: u64,
    /// The interrupt that is being entered.
    pub(super) intid: Option<u32>,
    /// The page of the last load-exclusive that armed the monitor: the CPU has executed it.
    pub(super) executed_page: Option<Va>,
    /// The instruction in hand led to an exception.
    pub(super) has_entered: bool,
    /// The instruction in hand is an access of a device.
    pub(super) is_device: bool,
    /// The instruction in hand is a store-exclusive that stored.
    pub(super) has_stored: bool,
    pub(super) turn: Turn,
    /// Breakpoints are not armed before the first instruction has executed.
    pub(super) past_first: bool,
    /// The stage-2 tables for the instruction in hand.
    pub(super) root: Root,
    /// The vCPU runs freely, and is stepped past something in its way.
    pub(super) is_stepping_past: bool,
    /// The others run meanwhile, and are quiesced during exclusive sequences.
    pub(super) quiesces_others: bool,
    /// The debugger steps this one while the others run, and wait where they change page tables.
    pub(super) is_beside_others: bool,
    /// The others are quiesced.
    pub(super) has_quiesced_others: bool,
    /// The debugger has breakpoints in this domain. Neither these nor watchpoints change before
    /// all vCPUs are stopped.
    pub(super) has_breakpoints: bool,
    /// And watchpoints.
    pub(super) has_watchpoints: bool,
    /// When the virtual clock makes the next timer go off.
    pub(super) deadline: u64,
    /// Words that the trace ring is known to have room for.
    pub(super) ring_room: u64,
}

/// What steps were at when a handler began that is stepped over.
#[derive(Clone, Copy, Default)]
pub(super) struct BeforeHandler {
    /// Steps that were left.
    pub(super) left: u64,
    /// Breakpoints were not obeyed yet.
    pub(super) past_first: bool,
    /// How time went.
    pub(super) time: TimePolicy,
}

/// What a stepped vCPU knows of the others.
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) policy: OthersPolicy,
    /// Steps at which what it executed was told last.
    pub(super) emitted_at: u64,
    /// Steps for which the turn goes on, so that an exclusive sequence stays whole.
    pub(super) extra: u64,
    pub(super) spin: SpinDetector,
    /// It has executed a WFE: what it waits for may be another's to do.
    pub(super) waits_for_event: bool,
}

impl Turn {
    pub(super) const fn new(role: Role, policy: OthersPolicy) -> Self {
        let spin = SpinDetector::new();
        Self { role, policy, emitted_at: 0, extra: 0, spin, waits_for_event: false }
    }

    /// Whether others get to move while this one waits.
    pub(super) fn has_turns(&self) -> bool {
        !matches!(self.role, Role::Alone(_))
    }

    /// Whether the debugger steps this one, and the others only so that it makes progress.
    pub(super) fn is_focus_alone(&self) -> bool {
        self.role == Role::Focus && self.policy == OthersPolicy::Stop
    }

    /// Steps that may pass without a look.
    pub(super) fn watch_limit(&self) -> u64 {
        if self.is_focus_alone() { self.spin.wait().max(1) } else { u64::MAX }
    }

    pub(super) fn passed(&mut self, steps: u64) {
        self.spin.passed(steps);
    }
}

/// The instruction at the PC, about to execute.
#[derive(Clone, Copy)]
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
    /// Base register of an exclusive.
    pub(super) base: u64,
    pub(super) spsr_el1: Pstate,
}

impl Next {
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
            base: 0,
            spsr_el1: Pstate(0),
        }
    }
}

/// What the CPU makes of an instruction that EL2 is to carry out.
pub(super) enum Answer {
    /// It executes it. All is as before it.
    Accepted,
    /// Something else came first, and has been taken.
    Taken(Option<End>),
}

/// What became of an instruction that EL2 was to carry out.
pub(super) enum Carried {
    /// It was, or led to an exception; or the vCPU is to stop before it.
    Done(Option<End>),
    /// The CPU is to execute it after all: a store-exclusive, to fail.
    LeftToCpu,
}
