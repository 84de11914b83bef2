//! The local exclusive monitor of a stepped vCPU.
//!
//! Exception entry and return clear the local monitor, and a step is both: a stepped
//! store-exclusive always fails, and a loop around it never ends. So the engine keeps a monitor of
//! its own. The load executes on the machine, with the machine's own faults; the store is decided
//! here and performed at EL2 by a compare-and-swap against what the load returned.
//!
//! The store need not be of the size of the load. CPUs let a store-exclusive succeed to where the
//! load was from, whatever either transfers (the architecture leaves it open), and code relies on
//! it, such as LDXR of X and STXR of W. What of the store's bytes the load did not read nobody has
//! changed meanwhile but this vCPU itself, since the others are stopped: so only the bytes that
//! both transfer are compared.
//!
//! A store-exclusive to another address is left to the machine, where it fails: the architecture
//! allows a store-exclusive to fail for any reason, and guests retry.
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

/// What registers transfer, as it lies in memory: an integer of `bytes` bytes, the first byte in
/// bits 7:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// The bytes.
    pub value: u128,
    /// How many: 1, 2, 4, 8 or 16.
    pub bytes: u8,
}

impl Image {
    /// Lays one register, or a pair, of `bytes` bytes each, into memory in the guest's byte order.
    #[must_use]
    pub const fn of(registers: [u64; 2], bytes: u8, pair: bool, big_endian: bool) -> Self {
        let [first, second] = registers;
        let first = element(first, bytes, big_endian);
        if !pair {
            return Self { value: first as u128, bytes };
        }
        let second = element(second, bytes, big_endian);
        let shift = 8_u32.wrapping_mul(bytes as u32);
        let value = first as u128 | (second as u128).wrapping_shl(shift);
        Self { value, bytes: bytes.wrapping_mul(2) }
    }

    /// Replaces bytes, from the one at `offset` on, by those of `part`: all that it has, or as many
    /// as there are here.
    #[must_use]
    pub const fn with_part(self, part: Self, offset: u8) -> Self {
        let room = self.bytes.saturating_sub(offset);
        let bytes = if part.bytes < room { part.bytes } else { room };
        let shift = 8_u32.wrapping_mul(offset as u32);
        let mask = if bytes == 0 { 0 } else { ones(bytes).wrapping_shl(shift) };
        let value = self.value & !mask | part.value.wrapping_shl(shift) & mask;
        Self { value, bytes: self.bytes }
    }

    /// The `bytes` bytes from the one at `offset` on.
    #[must_use]
    pub const fn part(self, offset: u8, bytes: u8) -> Self {
        let shift = 8_u32.wrapping_mul(offset as u32);
        Self { value: self.value.wrapping_shr(shift) & ones(bytes), bytes }
    }
}

/// The low bits of a register that `bytes` bytes are, in the order of memory.
const fn element(value: u64, bytes: u8, big_endian: bool) -> u64 {
    let unused = 64_u32.wrapping_sub(8_u32.wrapping_mul(bytes as u32));
    let value = value.wrapping_shl(unused).wrapping_shr(unused);
    if big_endian { value.swap_bytes().wrapping_shr(unused) } else { value }
}

const fn ones(bytes: u8) -> u128 {
    match bytes {
        0..=15 => 1_u128.wrapping_shl(8_u32.wrapping_mul(bytes as u32)).wrapping_sub(1),
        _ => u128::MAX,
    }
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
    /// Let it execute: nothing is marked, or another address is, and it fails by itself.
    Execute,
    /// Perform it at EL2: store the new value if memory still holds [`Armed::value`], as far as
    /// load and store are of the same bytes.
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

    /// Takes a call of the guest's to EL2: the exception and its return are the guest's own doing,
    /// and clear the monitor on every machine. What traps because of us, such as a register or a
    /// page, keeps it: on the guest's board that is an instruction like any other.
    pub fn called(&mut self) {
        if !mutation::is(Mutant::MonitorKeptOverCall) {
            self.clear();
        }
    }

    /// Tells whether the other vCPUs must stop while `next` executes: from before a load-exclusive
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

    /// Decides a store-exclusive to `address`. Whoever goes by that clears the monitor, as any
    /// store-exclusive does, unless an exception or a stop comes first.
    #[must_use]
    pub fn decide(&self, address: Va) -> StoreDecision {
        match self.armed {
            Some(armed) if armed.address == address => StoreDecision::CompareAndStore(armed),
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

    const STORE: StoreExclusive =
        StoreExclusive { bytes: 8, pair: false, rn: 1, rs: 3, rt: 0, rt2: 31 };

    #[test]
    fn an_open_monitor_leaves_the_store_to_the_cpu_where_it_fails() {
        let monitor = ExclusiveMonitor::new();
        assert_eq!(monitor.armed(), None);
        assert_eq!(monitor.decide(LOCK), StoreDecision::Execute);
    }

    #[test]
    fn a_stepped_lock_is_taken_and_does_not_livelock() {
        // Mistake 7: without a monitor of our own, STXR of a stepped loop fails for ever.
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(4, false), LOCK, [0, 0]);
        let expected = Armed { address: LOCK, bytes: 4, pair: false, value: [0, 0] };
        assert_eq!(monitor.armed(), Some(expected));
        assert_eq!(monitor.decide(LOCK), StoreDecision::CompareAndStore(expected));
        monitor.clear();
        assert_eq!(monitor.decide(LOCK), StoreDecision::Execute, "only once");
    }

    #[test]
    fn a_later_load_replaces_the_mark() {
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(8, false), LOCK, [1, 0]);
        monitor.arm(load(4, false), Va(64), [2, 0]);
        assert_eq!(monitor.decide(LOCK), StoreDecision::Execute);
        monitor.arm(load(8, false), LOCK, [9, 0]);
        let last = Armed { address: LOCK, bytes: 8, pair: false, value: [9, 0] };
        let decision = monitor.decide(LOCK);
        assert_eq!(decision, StoreDecision::CompareAndStore(last), "with what was read last");
    }

    #[test]
    fn registers_lie_in_memory_in_the_guests_order() {
        let registers = [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00];
        let rows = [
            (1, false, false, 0x88),
            (2, false, true, 0x8877),
            (4, false, false, 0x5566_7788),
            (4, true, false, 0xddee_ff00_5566_7788),
            (4, true, true, 0x00ff_eedd_8877_6655),
            (8, false, true, 0x8877_6655_4433_2211),
            (8, true, false, 0x99aa_bbcc_ddee_ff00_1122_3344_5566_7788),
        ];
        for (bytes, pair, big_endian, value) in rows {
            let image = Image::of(registers, bytes, pair, big_endian);
            let all = if pair { 2 * bytes } else { bytes };
            assert_eq!(image, Image { value, bytes: all }, "{bytes} {pair} {big_endian}");
        }
    }

    #[test]
    fn only_bytes_that_both_transfer_are_compared() {
        let held = Image { value: 0x1111_2222_3333_4444, bytes: 8 };
        let word = Image { value: 0xaaaa_bbbb, bytes: 4 };
        let pair = Image { value: 0x5555 << 64 | 0xcccc_dddd_eeee_ffff, bytes: 16 };
        assert_eq!(held.with_part(word, 0), Image { value: 0x1111_2222_aaaa_bbbb, bytes: 8 });
        assert_eq!(held.with_part(pair, 0), Image { value: 0xcccc_dddd_eeee_ffff, bytes: 8 });
        assert_eq!(pair.with_part(pair, 0), pair);
        let byte = Image { value: 0x55, bytes: 1 };
        assert_eq!(held.with_part(byte, 3).value >> 24 & 0xff, 0x55);
        assert_eq!(held.with_part(byte, 3).part(3, 1), byte);
        assert_eq!(held.with_part(byte, 8), held, "it lies behind");
        assert_eq!(held.with_part(word, 6).part(0, 4), held.part(0, 4));
    }

    #[test]
    fn the_others_stand_from_before_the_load_until_nothing_is_marked() {
        let mut monitor = ExclusiveMonitor::new();
        assert!(!monitor.needs_others_stopped(Plan::Execute));
        assert!(!monitor.needs_others_stopped(Plan::StoreExclusive(STORE)));
        assert!(monitor.needs_others_stopped(Plan::LoadExclusive(load(8, false))));
        monitor.arm(load(8, false), LOCK, [7, 0]);
        assert!(monitor.needs_others_stopped(Plan::Execute));
        monitor.called();
        assert_eq!(monitor.armed(), None);
        assert!(!monitor.needs_others_stopped(Plan::Execute));
    }

    #[test]
    fn clrex_and_an_exception_open_the_monitor() {
        let mut monitor = ExclusiveMonitor::new();
        monitor.arm(load(8, true), LOCK, [1, 2]);
        monitor.clear();
        assert_eq!(monitor, ExclusiveMonitor::default());
        assert_eq!(monitor.decide(LOCK), StoreDecision::Execute);
    }

    proptest! {
        #[test]
        fn a_store_is_performed_exactly_where_its_load_was(
            loaded in 0..4_u32, pair: bool, offset in 0..17_u64, value: [u64; 2],
        ) {
            let loaded = 1_u8 << loaded;
            let mut monitor = ExclusiveMonitor::new();
            monitor.arm(load(loaded, pair), LOCK, value);
            let decision = monitor.decide(Va(LOCK.0 + offset));
            let expected = if offset == 0 {
                let armed = Armed { address: LOCK, bytes: loaded, pair, value };
                StoreDecision::CompareAndStore(armed)
            } else {
                StoreDecision::Execute
            };
            prop_assert_eq!(decision, expected);
        }
    }
}
