//! Why something could not be done, and whether anything can be done after it.

use stepwell_protocol::Refusal;

/// Why a debuggee did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused, and nothing has changed. The next command may well succeed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The debuggee is out of reach for good: every further command fails.
    #[error(transparent)]
    Lost(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Tells whether every further command is bound to fail too.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Returns the refusal, where it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::Lost(_) => None,
        }
    }
}
