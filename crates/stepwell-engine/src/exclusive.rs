//! The local exclusive monitor of a stepped vCPU.
//!
//! Exception entry and return clear the local monitor, and a step is both: a stepped
//! store-exclusive always fails, and a loop around it never ends. So the engine keeps a monitor of
//! its own. The load executes on the machine, with the machine's own faults; the store is decided
//! here and performed at EL2 by a compare-and-swap against what the load returned.
//!
//! A store-exclusive that is not known to pair with the load is left to the machine, where it
//! fails: the architecture allows a store-exclusive to fail for any reason, and guests retry.
//!
//! Source: Arm ARM, DDI 0487 L.b, "Exclusive access instructions and Non-shareable memory
//! locations"; pseudocode `ClearExclusiveLocal` in `AArch64.ExceptionReturn`.

use crate::mutation::{self, Mutant};
use crate::plan::Plan;
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
        if !mutation::is(Mutant::ExclusivesLeftToCpu) {
            self.armed = Some(Armed { address, bytes: load.bytes, pair: load.pair, value });
        }
    }

    /// Clears the monitor: CLREX, exception entry or return, or the end of stepping.
    pub fn clear(&mut self) {
        self.armed = None;
    }

    /// Takes an exit that the guest makes when it runs alone, too: a trap that EL2 carries out.
    /// Exception entry and return clear the CPU's monitor then.
    pub fn trapped(&mut self) {
        if !mutation::is(Mutant::MonitorKeptOverTrap) {
            self.clear();
        }
    }

    /// Tells whether the other vCPUs must stand while `next` executes: from before a load-exclusive
    /// until nothing is marked any more.
    ///
    /// A compare-and-swap sees values and not writes. If another vCPU wrote the line and wrote back
    /// what was there, it would succeed where the CPU's own store-exclusive fails, and lists that
    /// are exchanged by exclusives because those see every write would break.
    #[must_use]
    pub fn needs_others_stopped(&self, next: Plan) -> bool {
        let marks = self.armed.is_some() || matches!(next, Plan::LoadExclusive(_));
        marks && !mutation::is(Mutant::OthersRunWhileMarked)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOCK: Va = Va(0xffff_8000_0100_0040);

    const fn load(bytes: u8, pair: bool) -> LoadExclusive {
        LoadExclusive { bytes, pair, rn: 1, rt: 0, rt2: if pair { 2 } else { 31 } }
    }

    const fn store(bytes: u8, pair: bool) -> StoreExclusive {
        StoreExclusive { bytes, pair, rn: 1, rs: 3, rt: 0, rt2: if pair { 2 } else { 31 } }
    }

    #[test]
    fn an_open_monitor_leaves_the_store_to_the_cpu_where_it_fails() {
        let mut monitor = ExclusiveMonitor::new();
        assert_eq!(monitor.armed(), None);
        assert_eq!(monitor.store(store(8, false), LOCK), StoreDecision::Execute);
    }

    #[test]
    fn a_stepped_lock_is_taken_and_does_not_livelock() {
        // Mistake 7: without a monitor of our own, STXR of a stepped loop fails for ever.
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(4, false), LOCK, [0, 0]);
        let expected = Armed { address: LOCK, bytes: 4, pair: false, value: [0, 0] };
        assert_eq!(monitor.armed(), Some(expected));
        assert_eq!(monitor.store(store(4, false), LOCK), StoreDecision::CompareAndStore(expected));
    }

    #[test]
    fn a_store_pairs_with_one_load_only_once() {
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(8, false), LOCK, [7, 0]);
        assert_ne!(monitor.store(store(8, false), LOCK), StoreDecision::Execute);
        assert_eq!(monitor.store(store(8, false), LOCK), StoreDecision::Execute);
    }

    #[test]
    fn a_store_that_does_not_pair_clears_the_monitor_too() {
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(8, false), LOCK, [7, 0]);
        assert_eq!(monitor.store(store(8, false), Va(LOCK.0 + 8)), StoreDecision::Execute);
        assert_eq!(monitor.armed(), None);
        assert_eq!(monitor.store(store(8, false), LOCK), StoreDecision::Execute);
    }

    #[test]
    fn a_later_load_replaces_the_mark() {
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(8, false), LOCK, [1, 0]);
        monitor.arm(load(4, false), Va(64), [2, 0]);
        assert_eq!(monitor.store(store(8, false), LOCK), StoreDecision::Execute);
        monitor.arm(load(8, false), LOCK, [1, 0]);
        monitor.arm(load(8, false), LOCK, [9, 0]);
        let last = Armed { address: LOCK, bytes: 8, pair: false, value: [9, 0] };
        let decision = monitor.store(store(8, false), LOCK);
        assert_eq!(decision, StoreDecision::CompareAndStore(last), "with what was read last");
    }

    #[test]
    fn the_others_stand_from_before_the_load_until_nothing_is_marked() {
        let mut monitor = ExclusiveMonitor::new();
        assert!(!monitor.needs_others_stopped(Plan::Execute));
        assert!(!monitor.needs_others_stopped(Plan::StoreExclusive(store(8, false))));
        assert!(monitor.needs_others_stopped(Plan::LoadExclusive(load(8, false))));
        monitor.arm(load(8, false), LOCK, [7, 0]);
        assert!(monitor.needs_others_stopped(Plan::Execute));
        monitor.trapped();
        assert_eq!(monitor.armed(), None);
        assert!(!monitor.needs_others_stopped(Plan::Execute));
    }

    #[test]
    fn clrex_and_an_exception_open_the_monitor() {
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(8, true), LOCK, [1, 2]);
        monitor.clear();
        assert_eq!(monitor, ExclusiveMonitor::default());
        assert_eq!(monitor.store(store(8, true), LOCK), StoreDecision::Execute);
    }

    proptest! {
        #[test]
        fn a_store_is_performed_exactly_where_it_pairs(
            loaded in 0..4_u32, stored in 0..4_u32,
            load_pair: bool, store_pair: bool,
            // Neighbouring granules and overlaps.
            offset in 0..17_u64, value: [u64; 2],
        ) {
            let (loaded, stored) = (1_u8 << loaded, 1_u8 << stored);
            let mut monitor = ExclusiveMonitor::new();
            monitor.arm(load(loaded, load_pair), LOCK, value);
            let decision = monitor.store(store(stored, store_pair), Va(LOCK.0 + offset));
            let pairs = loaded == stored && load_pair == store_pair && offset == 0;
            let expected = if pairs {
                StoreDecision::CompareAndStore(Armed {
                    address: LOCK, bytes: loaded, pair: load_pair, value,
                })
            } else {
                StoreDecision::Execute
            };
            prop_assert_eq!(decision, expected);
            prop_assert_eq!(monitor.armed(), None);
        }
    }
}
