//! Why a guest told nothing about itself.

use crate::btf::BtfError;

/// Why a question about a Linux guest has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The debuggee refused, or is lost.
    #[error(transparent)]
    Debuggee(#[from] stepwell_debuggee::Error),
    /// The kernel's types are missing or damaged.
    #[error(transparent)]
    Types(#[from] BtfError),
    /// This is no Linux kernel, or one whose image cannot be read.
    #[error("the kernel's image is not one of Linux that can be read: {0}")]
    NotLinux(&'static str),
    /// A type or a member is not there: a kernel that is too old, too new, or configured away.
    #[error("this kernel's types have no {0}")]
    NoMember(String),
    /// A variable could not be found.
    #[error("cannot find the kernel's {0}: name an ELF with its symbols with --symbols")]
    NoVariable(&'static str),
    /// The kernel does not run where its image says it would, or not yet.
    #[error("the kernel is not at its addresses yet: let it run until start_kernel")]
    NotRunning,
    /// Nothing is mapped there.
    #[error("address {0:#x} is not mapped in the guest's kernel")]
    NotMapped(u64),
    /// A list is damaged, or was never one.
    #[error("the guest's list of {what} is damaged at {at:#x}")]
    Damaged {
        /// Of what.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// A list does not end.
    #[error("the guest's list of {what} has more than {most} entries")]
    Endless {
        /// Of what.
        what: &'static str,
        /// How many were read.
        most: usize,
    },
    /// What the guest has written leads on and on.
    #[error("the guest's lists lead through more memory than is read for one question")]
    TooMuch,
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(u32),
}

impl Error {
    /// Tells whether the debuggee is lost.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Debuggee(error) if error.is_fatal())
    }
}
