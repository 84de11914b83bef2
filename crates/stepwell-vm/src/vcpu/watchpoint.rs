//! The debugger's watchpoints as values: see [`super::watch`].

use stepwell_arch::Ipa;
use stepwell_arch::debug::Watchpoint as Registers;
use stepwell_protocol::Watchpoint;

/// A watchpoint that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    /// What is watched.
    pub what: Watchpoint,
    /// What a pair of the CPU's registers holds for it, if it has one.
    pub registers: Option<Registers>,
}

/// A part of a watchpoint without registers: in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The watchpoint.
    pub(super) what: Watchpoint,
    pub(super) va: u64,
    pub(super) ipa: Ipa,
    pub(super) bytes: u64,
}
