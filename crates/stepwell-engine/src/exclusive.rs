//! The local exclusive monitor of a stepped vCPU.
//!
//! Exception entry and return clear the local monitor (Arm ARM, "Exclusive access instructions and
//! Non-shareable memory locations"; pseudocode `ClearExclusiveLocal` in `AArch64.ExceptionReturn`),
//! and a step is both: a stepped store-exclusive always fails, and a loop around it never ends.
//! So the engine keeps a monitor of its own. The load executes on the machine, with the machine's
//! own faults; the store is decided here and performed at EL2 by a compare-and-swap against what
//! the load returned.
//!
//! A store-exclusive that is not known to pair with the load is left to the machine, where it
//! fails: the architecture allows a store-exclusive to fail for any reason, and guests retry.

use stepwell_arch::Va;

/// A load-exclusive instruction. Register 31 is XZR, as the base the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadExclusive {
    /// Bytes of one register: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Two registers are loaded.
    pub pair: bool,
    /// Base register.
    pub rn: u8,
    /// Destination.
    pub rt: u8,
    /// Second destination of a pair.
    pub rt2: u8,
}

/// A store-exclusive instruction. Register 31 is XZR, as the base the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreExclusive {
    /// Bytes of one register: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Two registers are stored.
    pub pair: bool,
    /// Base register.
    pub rn: u8,
    /// Status: 0 stored, 1 not.
    pub rs: u8,
    /// Source.
    pub rt: u8,
    /// Second source of a pair.
    pub rt2: u8,
}

/// What a load-exclusive marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Armed {
    /// First byte marked.
    pub address: Va,
    /// Bytes of one register: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Two registers were loaded.
    pub pair: bool,
    /// What was read: one register, or two.
    pub value: [u64; 2],
}

/// What becomes of a store-exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDecision {
    /// Let it execute: nothing is marked, or something else is, and it fails by itself.
    Execute,
    /// Perform it at EL2: store the new value if memory still holds [`Armed::value`].
    CompareAndStore(Armed),
}

/// The monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExclusiveMonitor {
    armed: Option<Armed>,
}

impl ExclusiveMonitor {
    /// Makes a monitor in the open access state.
    #[must_use]
    pub const fn new() -> Self {
        Self { armed: None }
    }

    /// Marks what a stepped load-exclusive read: `load` executed with base address `address` and
    /// returned `value`.
    pub fn arm(&mut self, load: LoadExclusive, address: Va, value: [u64; 2]) {
        self.armed = Some(Armed { address, bytes: load.bytes, pair: load.pair, value });
    }

    /// Clears the monitor: CLREX, exception entry or return, or the end of stepping.
    pub fn clear(&mut self) {
        self.armed = None;
    }

    /// What is marked.
    #[must_use]
    pub const fn armed(&self) -> Option<Armed> {
        self.armed
    }

    /// Decides a store-exclusive to `address`, and clears the monitor as any store-exclusive does.
    pub fn store(&mut self, store: StoreExclusive, address: Va) -> StoreDecision {
        match self.armed.take() {
            Some(armed)
                if armed.address == address
                    && armed.bytes == store.bytes
                    && armed.pair == store.pair =>
            {
                StoreDecision::CompareAndStore(armed)
            }
            _ => StoreDecision::Execute,
        }
    }
}
