//! The debugger's watchpoints as values: see [`super::watch`].

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
