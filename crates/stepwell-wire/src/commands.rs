//! What is known of a command by its kind alone: its name, and whether it changes anything.

use crate::Command;

impl Command {
    /// Tells whether a command leaves every vCPU as it is.
    #[must_use]
    pub const fn changes_nothing(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::ReadRegisters { .. }
                | Self::ReadSimd { .. }
                | Self::ReadSystemRegister { .. }
                | Self::ReadMemory { .. }
                | Self::Translate { .. }
                | Self::VectorLength { .. }
                | Self::ReadSve { .. }
                | Self::ReadTimeline { .. }
                | Self::Keep { .. }
                | Self::Forget { .. }
                | Self::Wrote { .. }
                | Self::Fork { .. }
        )
    }

    /// Returns its name, for errors.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Status { .. } => "status",
            Self::Pause { .. } => "pause",
            Self::Continue { .. } => "continue",
            Self::Step { .. } => "step",
            Self::SetMonitor { .. } => "set-monitor",
            Self::SetInterruptPolicy { .. } => "set-interrupt-policy",
            Self::SetTimePolicy { .. } => "set-time-policy",
            Self::SetOthersPolicy { .. } => "set-others-policy",
            Self::SetBreakpoint { .. } => "set-breakpoint",
            Self::ClearBreakpoint { .. } => "clear-breakpoint",
            Self::ReadRegisters { .. } => "read-registers",
            Self::WriteRegisters { .. } => "write-registers",
            Self::ReadSimd { .. } => "read-simd",
            Self::WriteSimd { .. } => "write-simd",
            Self::VectorLength { .. } => "vector-length",
            Self::ReadSve { .. } => "read-sve",
            Self::WriteSve { .. } => "write-sve",
            Self::ReadSystemRegister { .. } => "read-system-register",
            Self::WriteSystemRegister { .. } => "write-system-register",
            Self::ReadMemory { .. } => "read-memory",
            Self::WriteMemory { .. } => "write-memory",
            Self::Translate { .. } => "translate",
            Self::ConsoleInput { .. } => "console-input",
            Self::PowerOff => "power-off",
            Self::SetDetail { .. } => "set-detail",
            Self::SetWatchpoint { .. } => "set-watchpoint",
            Self::ClearWatchpoint { .. } => "clear-watchpoint",
            Self::ReadTimeline { .. } => "read-timeline",
            Self::RunUntil { .. } => "run-until",
            Self::Keep { .. } => "keep",
            Self::GoTo { .. } => "go-to",
            Self::Forget { .. } => "forget",
            Self::Wrote { .. } => "wrote",
            Self::Fork { .. } => "fork",
            Self::AttachDevice { .. } => "attach-device",
        }
    }
}
