//! Why a conversation cannot go on.

/// What ends a session that nobody wanted to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The debuggee is gone for good.
    #[error(transparent)]
    Lost(#[from] stepwell_debuggee::Error),
    /// The client is to blame, or what leads to it.
    #[error("{0}")]
    Client(String),
}

/// The errno that a client is told of a refusal.
///
/// GDB shows the number and little else, so it has to say as much as a number can.
pub(crate) fn errno(refusal: stepwell_debuggee::Refusal) -> u8 {
    use stepwell_debuggee::Refusal;
    const ESRCH: u8 = 3;
    const ENXIO: u8 = 6;
    const EAGAIN: u8 = 11;
    const ENOMEM: u8 = 12;
    const EFAULT: u8 = 14;
    const EBUSY: u8 = 16;
    const EEXIST: u8 = 17;
    const EINVAL: u8 = 22;
    const ENOSPC: u8 = 28;
    const EOPNOTSUPP: u8 = 95;
    const EREMOTEIO: u8 = 121;
    match refusal {
        Refusal::NoSuchVcpu | Refusal::Off | Refusal::Ended => ESRCH,
        Refusal::NoSuchRegister => ENXIO,
        Refusal::Busy => EAGAIN,
        Refusal::NotMapped(_) => EFAULT,
        Refusal::NotStopped => EBUSY,
        Refusal::Breakpoint | Refusal::Watchpoint | Refusal::AlreadySet(_) => EEXIST,
        Refusal::NoSteps
        | Refusal::EmptyTurn
        | Refusal::Misaligned(_)
        | Refusal::WatchedRange
        | Refusal::TooLong(_)
        | Refusal::BadValue
        | Refusal::NotANumber => EINVAL,
        Refusal::NoBreakpointLeft(_) | Refusal::TooMany(_) => ENOSPC,
        Refusal::NoMemory => ENOMEM,
        Refusal::Unsupported => EOPNOTSUPP,
        _ => EREMOTEIO,
    }
}
