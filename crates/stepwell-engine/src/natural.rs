//! What takes time on a CPU that nobody steps: instructions by their class, and what comes in between.
//!
//! A clock that gives each instruction the same time gives itself away: divisions are as fast as NOPs,
//! timers go off in the same round of a loop, and WFI ends on the tick. So instructions have a cost by
//! class, each time another one, *disturbances* (a cache that has to be filled, a tick of the firmware's)
//! take time in between, and who waits is woken late. None of it is a model of any CPU.
//!
//! All of it comes from a seed and from what the guest executes, so that two runs are one, and does not
//! depend on how many steps are asked for at a time: disturbances come after so many steps, costs and
//! wake-ups are drawn in the order of what they are for, and the two have streams of their own.
//!
//! Source: Arm ARM (DDI 0487, issue L.b), "A64 instruction set encoding", for the classes; what they take
//! is ours.

/// What an access of a device takes beside what any instruction does.
pub const DEVICE_NS: u32 = 400;
/// What entering an exception takes.
pub const ENTRY_NS: u32 = 120;
/// An instruction takes no longer than that, disturbances apart.
pub const STEP_MAX_NS: u32 = 700;
/// Steps between two disturbances, at most.
const DISTANCE_MAX: u64 = 64;
/// The least disturbance, of which each following one is twice as long and half as frequent.
const DISTURBANCE_NS: u32 = 4;
/// So often at most it is doubled.
const DOUBLINGS: u32 = 12;

/// Where the noise of a clock comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Noise {
    /// The stream of disturbances.
    disturbances: u64,
    /// The stream of costs and wake-ups.
    events: u64,
    /// Steps up to the next disturbance, at least 1.
    until_next: u64,
}

/// SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators".
const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Noise {
    /// Makes the noise of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut state = seed;
        let (mut disturbances, events) = (next(&mut state), next(&mut state));
        let until_next = Self::distance(next(&mut disturbances));
        Self { disturbances, events, until_next }
    }

    const fn distance(random: u64) -> u64 {
        (random % DISTANCE_MAX).wrapping_add(1)
    }

    /// Steps up to the next disturbance.
    #[must_use]
    pub const fn until_next(&self) -> u64 {
        self.until_next
    }

    /// Lets so many steps pass. Returns what the disturbances in them take, in nanoseconds.
    pub fn pass(&mut self, mut steps: u64) -> u64 {
        let mut ns = 0_u64;
        while steps >= self.until_next {
            steps = steps.saturating_sub(self.until_next);
            let random = next(&mut self.disturbances);
            let doublings = (random | 1 << DOUBLINGS).trailing_zeros();
            let least = u64::from(DISTURBANCE_NS).wrapping_shl(doublings);
            ns = ns.saturating_add(between(random >> 32, least));
            self.until_next = Self::distance(random >> 16);
        }
        self.until_next = self.until_next.saturating_sub(steps);
        ns
    }

    /// What something takes this time that takes so many nanoseconds on average.
    pub fn cost(&mut self, ns: u32) -> u64 {
        let half = u64::from(ns / 2);
        let whole = u64::from(ns).saturating_add(1);
        half.saturating_add(next(&mut self.events).checked_rem(whole).unwrap_or(0))
    }

    /// How late it is woken this time who waits for an interrupt, in nanoseconds.
    pub fn latency(&mut self) -> u64 {
        let random = next(&mut self.events);
        let doublings = (random | 1 << 6).trailing_zeros();
        between(random >> 32, 300_u64.wrapping_shl(doublings))
    }
}

/// From `least` up to twice as much.
const fn between(random: u64, least: u64) -> u64 {
    match random.checked_rem(least) {
        Some(more) => least.saturating_add(more),
        None => least,
    }
}

/// What an A64 instruction takes on average, in nanoseconds, beside what any does.
#[must_use]
pub const fn cost_ns(word: u32) -> u32 {
    match word >> 24 {
        // Exclusives, and LDAR, STLR, CAS.
        0x08 | 0x48 | 0x88 | 0xc8 => 20,
        // Exception generation.
        0xd4 => ENTRY_NS,
        0xd5 => system_cost_ns(word),
        0xd6 if word & 1 << 23 != 0 => 90, // ERET
        0x1a | 0x9a if word & 0x7fe0_f800 == 0x1ac0_0800 => 30, // UDIV and SDIV
        0x1b | 0x9b => 6,                  // multiplication
        _ if word & 0xff20_fc00 == 0x1e20_1800 => 40, // FDIV
        _ if word & 0xbfa0_fc00 == 0x2e20_fc00 => 60, // FDIV, vector
        _ if word >> 25 & 7 == 7 => 8,     // SIMD and floating point
        _ if word >> 25 & 5 == 4 => 4,     // loads and stores
        _ => 0,
    }
}

const fn system_cost_ns(word: u32) -> u32 {
    match word {
        _ if word & 0xffff_f000 == 0xd503_2000 => 0,   // hints
        _ if word & 0xffff_f000 == 0xd503_3000 => 40,  // barriers
        _ if word & 0xffd8_0000 == 0xd508_0000 => 150, // SYS and SYSL: caches, TLBs
        _ => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_have_costs() {
        for (word, ns) in [
            (0xd503_201f, 0),        // nop
            (0x9100_0421, 0),        // add x1, x1, #1
            (0x5400_0001, 0),        // b.ne
            (0x9ac2_0820, 30),       // udiv x0, x1, x2
            (0x1ac2_0c20, 30),       // sdiv w0, w1, w2
            (0x9a82_1020, 0),        // csel x0, x1, x2, ne
            (0x9b02_7c20, 6),        // mul x0, x1, x2
            (0x1e62_1820, 40),       // fdiv d0, d1, d2
            (0x6e62_fc20, 60),       // fdiv v0.2d, v1.2d, v2.2d
            (0x1e62_2820, 8),        // fadd d0, d1, d2
            (0x4ee2_8420, 8),        // add v0.2d, v1.2d, v2.2d
            (0xf940_0020, 4),        // ldr x0, [x1]
            (0xa9bf_7bfd, 4),        // stp x29, x30, [sp, #-16]!
            (0xc85f_7c20, 20),       // ldxr x0, [x1]
            (0xd503_3fdf, 40),       // isb
            (0xd508_871f, 150),      // tlbi vmalle1
            (0xd53b_e040, 15),       // mrs x0, cntvct_el0
            (0xd400_0001, ENTRY_NS), // svc #0
            (0xd69f_03e0, 90),       // eret
            (0xd65f_03c0, 0),        // ret
        ] {
            assert_eq!(cost_ns(word), ns, "{word:#x}");
        }
    }

    #[test]
    fn who_waits_is_woken_late_by_another_time() {
        let mut noise = Noise::new(1);
        let late: Vec<u64> = (0..1000).map(|_| noise.latency()).collect();
        assert!(late.iter().all(|ns| (300..40_000).contains(ns)));
        let different: std::collections::BTreeSet<_> = late.iter().collect();
        assert!(different.len() > 200, "{}", different.len());
        assert_eq!(between(5, 0), 0);
    }

    proptest! {
        /// Ten steps and ten times one are the same.
        #[test]
        fn disturbances_come_after_so_many_steps(
            seed: u64,
            parts in proptest::collection::vec(0..500_u64, 0..40),
        ) {
            let (mut many, mut one) = (Noise::new(seed), Noise::new(seed));
            let sum: u64 = parts.iter().map(|&steps| many.pass(steps)).sum();
            prop_assert_eq!(one.pass(parts.iter().sum()), sum);
            prop_assert_eq!(&many, &one);
            prop_assert!((1..=DISTANCE_MAX).contains(&one.until_next()));
            // Up to the next one there is none.
            prop_assert_eq!(one.clone().pass(one.until_next() - 1), 0);
            prop_assert!(one.pass(one.until_next()) > 0);
        }

        #[test]
        fn costs_lie_around_their_average(seed: u64, word: u32) {
            let (mut noise, ns) = (Noise::new(seed), cost_ns(word));
            let cost = noise.cost(ns);
            prop_assert!(cost >= u64::from(ns / 2) && cost <= u64::from(ns / 2 + ns));
            prop_assert!(ns + ns / 2 + crate::clock::NOMINAL_STEP_NS <= STEP_MAX_NS);
            prop_assert!(u64::from(DEVICE_NS + DEVICE_NS / 2) < u64::from(STEP_MAX_NS));
        }
    }
}
