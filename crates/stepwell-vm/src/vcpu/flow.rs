//! What a vCPU's loop is in the middle of, as a value.
//!
//! The loop ([`super::advance`]) goes from one entry into the guest to the next, and whatever outlives
//! an entry, or a wait, is here or in [`VcpuCore`](super::state::VcpuCore): plain values, which can be
//! copied, compared and gone on with anywhere. So a model can stop before every entry, look, and try
//! each thing that may happen there; and a vCPU can leave its CPU to another one.
//!
//! ```text
//!   Mode            what the vCPU does                                  its next step is
//!   Free            its guest runs                                      free.rs
//!   Step            its guest is stepped                                step/mod.rs
//!   Over            its guest is stepped, and runs a handler just now   free.rs, step/handler.rs
//!     + Detour      of a guest that runs: a few steps past something    step/detour.rs
//!   At              where between two events it is                      advance.rs
//! ```
//!
//! Deliberately absent: what lasts longer than an order.

use super::acknowledged::Acknowledged;
use super::hand::{InHand, Purpose};
use super::running::End;
use crate::domain::{Order, Role};
use stepwell_engine::{InterruptedContext, OthersPolicy, Plan, TimePolicy};
use stepwell_protocol::{InterruptPolicy, TraceDetail, Waiting};

/// What a vCPU's loop is in the middle of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Where it is.
    pub(super) at: At,
    /// What it does.
    pub(super) mode: Mode,
    /// What the order is.
    pub(super) order: Order,
    /// In a guest that runs: why it is stepped.
    pub(super) detour: Option<Detour>,
    /// Of a vCPU that began within an exclusive sequence: that is to be finished first.
    pub(super) is_armed: bool,
    /// Of a vCPU that runs: it has executed nothing yet of its order.
    pub(super) is_owed: bool,
    /// What holds for the steps that are being made.
    pub(super) rules: Rules,
    /// How many there have been, and are to be.
    pub(super) tally: Tally,
    /// How it is with the other vCPUs.
    pub(super) turn: Turn,
    /// The instruction that is being stepped.
    pub(super) hand: InHand,
    /// What a handler that is stepped over, unseen, has interrupted.
    pub(super) before: BeforeHandler,
    /// The next event has to wait until an instruction has executed.
    pub(super) must_move: bool,
    /// Rules and tally of the order's steps, while others are made.
    pub(super) aside: Option<(Rules, Tally)>,
}

/// What a vCPU does as ordered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u64)] // asked for at each boundary: a tag of its own is told in one comparison
pub(super) enum Mode {
    /// Its guest runs.
    Free,
    /// It steps.
    Step,
    /// It steps, and the handler of what has interrupted it runs, where the clock is the machine's.
    Over(Handler),
}

/// A handler that runs where steps go over it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handler {
    /// What it is to return to.
    pub(super) interrupted: InterruptedContext,
    /// What of the instruction there is acknowledged.
    pub(super) acknowledged: Option<Acknowledged>,
    /// The counter when the others had their last turn.
    pub(super) since: u64,
}

/// What steps were at when a handler began that is stepped over, unseen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BeforeHandler {
    /// Steps that were left.
    pub(super) left: u64,
    /// What of the instruction there is acknowledged.
    pub(super) acknowledged: Option<Acknowledged>,
    /// They are recorded.
    pub(super) record: bool,
    /// How time went.
    pub(super) time: TimePolicy,
}

impl BeforeHandler {
    const NONE: Self = Self { left: 0, acknowledged: None, record: false, time: TimePolicy::Real };
}

/// Why a guest that runs freely is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Detour {
    /// Past something in its way, and to the end of the exclusive sequence that is begun in it.
    /// `is_broken`: the exit has broken one around it, which is stepped afterwards; `has_loaded`: a
    /// load-exclusive has executed.
    Past { left: u64, is_broken: bool, has_loaded: bool },
    /// Through the page of virtual addresses that begins at `at`, which is withheld from fetches.
    Page { left: u64, at: u64 },
    /// Through an exclusive sequence that an exit has broken, round its loop and to its store.
    /// `level`: exception level that it is at; `is_armed`: its load has executed.
    Sequence { left: u64, level: u8, is_armed: bool },
    /// To where the handler of an interrupt returns that has broken an exclusive sequence.
    Handler { left: u64 },
    /// The guest steps itself, or needs all breakpoints of the CPU for its own.
    OwnStep { left: u64 },
    /// Its virtual timer's interrupt waits to be acknowledged, or withdrawn.
    Timer { in_sequence: u64 },
}

/// Where between two events a loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// It has not begun.
    Start,
    /// Between two instructions.
    Boundary,
    /// In the guest, which runs.
    Free,
    /// In the guest, for the instruction in hand.
    Step,
    /// It is quiesced for another one's exclusive sequence.
    Quiesced,
    /// The others are to be quiesced for the instruction in hand. `has_taken`: nobody else is asking
    /// for that.
    Quiescing { has_taken: bool },
    /// It waits for an interrupt. `is_begun`: in an instruction, which has not executed until then.
    Interrupt { is_begun: bool },
    /// It waits for its turn.
    Turn(TurnWait),
    /// It waits within CPU_SUSPEND of a guest that runs.
    Suspended,
    /// What it does ends.
    Ending(End),
    /// It is over.
    End(End),
}

/// What a vCPU that waits for its turn was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TurnWait {
    /// Others have had theirs, and may have been through before anybody looked.
    pub(super) has_waited: bool,
    /// What it waits for, and steps of the others when it began to.
    pub(super) told: Option<(Waiting, u64)>,
    /// Where it goes on.
    pub(super) then: Then,
}

/// Where a vCPU goes on when it has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Then {
    /// At the boundary where it was.
    Boundary,
    /// It goes on waiting for an interrupt.
    Interrupt { is_begun: bool },
    /// In the handler that it runs.
    Handler,
}

/// What holds for a stretch of steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) interrupts: InterruptPolicy,
    pub(super) time: TimePolicy,
    pub(super) record: bool,
    /// What is recorded beside PCs.
    pub(super) detail: TraceDetail,
    /// The guest runs freely, and what is pending is not offered to it by these steps.
    pub(super) is_stepping_past: bool,
    /// The others run meanwhile, and are quiesced for exclusive sequences.
    pub(super) quiesces_others: bool,
    /// The debugger steps this one while the others run, and wait where they change page tables.
    pub(super) is_beside_others: bool,
    /// The debugger has breakpoints in this domain. Neither these nor watchpoints change before
    /// all vCPUs are stopped.
    pub(super) has_breakpoints: bool,
    /// And watchpoints.
    pub(super) has_watchpoints: bool,
}

/// How far a stretch of steps has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tally {
    /// Steps.
    pub(super) steps: u64,
    /// Of these, in handlers that are stepped over, unseen.
    pub(super) unseen: u64,
    /// Steps at which it is to be seen whether there are to be more.
    pub(super) count: u64,
    /// Steps at which its turn was counted last.
    pub(super) counted_at: u64,
    /// Steps at which the clock is to be recorded again.
    pub(super) time_due: u64,
    /// When the virtual clock makes the next timer go off.
    pub(super) deadline: u64,
    /// Words that the trace ring is known to have room for.
    pub(super) ring_room: u64,
}

/// How a stepped vCPU is with the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) policy: OthersPolicy,
    /// Steps for which the turn goes on, or the others are quiesced, so that an exclusive sequence
    /// stays whole.
    pub(super) extra: u64,
    /// It has executed a WFE: what it waits for may be another's to do.
    pub(super) waits_for_event: bool,
    /// The others are quiesced.
    pub(super) has_quiesced_others: bool,
}

impl Flow {
    /// One that has not begun to do as ordered.
    #[must_use]
    pub const fn new(order: Order) -> Self {
        Self {
            at: At::Start,
            mode: Mode::Free,
            order,
            detour: None,
            is_armed: false,
            is_owed: false,
            rules: Rules::NONE,
            tally: Tally::NONE,
            turn: Turn::new(Role::Alone(u64::MAX), OthersPolicy::Stop),
            hand: InHand::NONE,
            before: BeforeHandler::NONE,
            must_move: false,
            aside: None,
        }
    }

    /// Whether what the vCPU executes is counted, and recorded if its steps are: not what it runs, nor
    /// steps that are made for another reason than its order.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        self.mode == Mode::Step && self.detour.is_none()
    }

    /// Whether the guest runs, or is about to.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.at == At::Free
    }

    /// Whether the CPU is asked what comes before an instruction that EL2 is to carry out: what it
    /// executes meanwhile is put back.
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        matches!(self.at, At::Step) && matches!(self.hand.purpose, Purpose::Ask(_))
    }

    /// What the instruction in hand needs.
    #[must_use]
    pub const fn plan_in_hand(&self) -> Plan {
        self.hand.next.plan
    }

    /// Whether it is quiesced for another one's exclusive sequence.
    #[must_use]
    pub fn is_quiesced(&self) -> bool {
        self.at == At::Quiesced
    }

    /// Whether the guest is let execute one instruction.
    #[must_use]
    pub fn is_stepping(&self) -> bool {
        self.at == At::Step
    }

    /// Whether a handler runs that steps go over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.mode, Mode::Over(_))
    }
}

impl Rules {
    pub(super) const NONE: Self = Self {
        interrupts: InterruptPolicy::Hold,
        time: TimePolicy::Real,
        record: false,
        detail: TraceDetail { registers: false, memory: false },
        is_stepping_past: false,
        quiesces_others: false,
        is_beside_others: false,
        has_breakpoints: false,
        has_watchpoints: false,
    };
}

impl Tally {
    pub(super) const NONE: Self = Self {
        steps: 0,
        unseen: 0,
        count: u64::MAX,
        counted_at: 0,
        time_due: 0,
        deadline: u64::MAX,
        ring_room: 0,
    };
}

impl Turn {
    pub(super) const fn new(role: Role, policy: OthersPolicy) -> Self {
        Self { role, policy, extra: 0, waits_for_event: false, has_quiesced_others: false }
    }

    /// Whether others get to move while this one waits.
    pub(super) const fn has_turns(&self) -> bool {
        !matches!(self.role, Role::Alone(_))
    }

    /// Whether the debugger steps this one, and the others only so that it makes progress.
    pub(super) fn leads(&self) -> bool {
        self.role == Role::Focus && self.policy == OthersPolicy::Stop
    }

    /// Whether the others do not move, whatever this one waits for.
    pub(super) fn freezes_others(&self) -> bool {
        self.role == Role::Focus && self.policy == OthersPolicy::Freeze
    }
}
