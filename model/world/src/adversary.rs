//! What may happen between two events, and what the adversary does of it.

use stepwell_protocol::InterruptPolicy;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The machine of this vCPU does what comes next.
    Proceed(u8),
    /// A physical interrupt comes before it: the guest exits for no reason of its own.
    PhysicalInterrupt(u8),
    /// The machine takes the virtual interrupt before it.
    VirtualInterrupt(u8),
    /// As [`Action::PhysicalInterrupt`], because this vCPU's turn on the CPU that it shares is over.
    TurnIsOver(u8),
    /// A vCPU begins with its order.
    Begin(u8),
    /// The CPU that vCPUs share lets the next one move.
    NextTurn,
    /// A vCPU that waits is called, or looks up by itself.
    Wake(u8),
    /// What a vCPU waits for comes: its interrupt.
    Arrive(u8),
    /// The tool gives a command.
    Command(Order),
    /// The tool gives the same command again.
    Again,
    /// The tool asks for a pause.
    Pause,
    /// What happens to interrupts while stepping is from now on this.
    SetPolicy(InterruptPolicy),
    /// The tool sets a breakpoint at this instruction, or clears it.
    ToggleBreakpoint(u8),
    /// The tool has SMC monitored, or no longer.
    ToggleMonitor,
    /// The virtual interrupt becomes pending, or is no longer.
    ToggleInterrupt,
    /// Somebody else writes the line.
    OtherWrites,
    /// Somebody else writes the value that the line has already.
    OtherRewrites,
    /// The debugger writes PSTATE: SS becomes what it is not.
    DebuggerWritesSs,
    /// The debugger writes PSTATE: D and what masks the interrupt become what they are not.
    DebuggerWritesMasks,
    /// The debugger sends the guest back to instruction 0.
    DebuggerWritesPc,
    /// The debugger toggles MDSCR_EL1.SS.
    DebuggerWritesMdscr,
}

/// What the tool has the guest do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// One step, recorded.
    Step,
    /// So many that a program comes to its end.
    Steps,
    /// Run.
    Continue,
}

impl Order {
    /// Steps that it asks for.
    #[must_use]
    pub const fn count(self) -> u64 {
        match self {
            Self::Step => 1,
            Self::Steps => 4,
            Self::Continue => 0,
        }
    }
}
