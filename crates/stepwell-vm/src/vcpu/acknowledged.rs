//! What a debugger knows already of the instruction at a vCPU's PC.

/// What of the instruction at a PC is acknowledged: the debugger was told, and it does not stop the
/// vCPU again before it has executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Acknowledged {
    /// Where the instruction is.
    pub pc: u64,
    /// Not only that the vCPU is there, but also what the instruction is about to do: an access that
    /// is watched, a call that is monitored.
    pub act: bool,
}
