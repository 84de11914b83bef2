//! The guest's virtual time.
//!
//! The guest's counter reads `CNTPCT_EL0 - CNTVOFF_EL2`. While the guest runs unstepped the offset
//! does not change and time passes as on any machine. While it is stepped, or stopped, the clock is
//! this value, and the offset is only computed from it when the guest is let go.
//!
//! Source: Arm ARM (DDI 0487, issue L.b), "The virtual counter" and CNTVOFF_EL2.

use crate::natural::{Noise, STEP_MAX_NS};
use stepwell_protocol::TimePolicy;

/// What a stepped instruction takes under [`TimePolicy::Stopped`]: a CPU of 100 million
/// instructions a second. Without any, a stepped delay loop would never end.
pub const NOMINAL_STEP_NS: u32 = 10;

/// What a guest's counter shows at reset, where timers respect a negative CNTVOFF_EL2.
///
/// A stopped guest's counter falls behind the machine's. As long as it is ahead nevertheless,
/// CNTVOFF_EL2 is negative, and the deadline in the machine's time of a CNTV_CVAL_EL0 that has not
/// passed is no more than 64 bits. QEMU 7.2 takes a deadline beyond that for one that has passed,
/// and then never comes back from its timers. 2³⁵ ticks are nine minutes of its counter; a guest
/// sees that the counter of its board was on before it was.
pub const COUNTER_AT_RESET: u64 = 1 << 35;

const NS_PER_SECOND: u128 = 1_000_000_000;

/// The clock of one domain, in ticks of the counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtualClock {
    /// Counter frequency in Hz.
    frequency_hz: u64,
    /// The guest's counter, as long as it does not run freely.
    now: u64,
    /// What is left of a tick, in ticks times 10⁻⁹.
    remainder: u64,
    /// What makes it natural.
    noise: Option<Noise>,
}

impl VirtualClock {
    /// Makes a clock that shows 0 and ticks `frequency_hz` times a second.
    #[must_use]
    pub const fn new(frequency_hz: u64) -> Self {
        Self::at_reset(frequency_hz, 0)
    }

    /// Makes a clock that shows `now` and ticks `frequency_hz` times a second.
    #[must_use]
    pub const fn at_reset(frequency_hz: u64, now: u64) -> Self {
        Self { frequency_hz, now, remainder: 0, noise: None }
    }

    /// The guest's counter while it does not run freely.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Lets `steps` instructions pass.
    pub fn advance(&mut self, policy: TimePolicy, steps: u64) {
        let Some(ns) = step_ns(policy) else { return };
        let noise = self.noise.as_mut().filter(|_| is_natural(policy));
        let more = noise.map_or(0, |noise| noise.pass(steps));
        let ns = u128::from(ns).saturating_mul(u128::from(steps));
        self.add(ns.saturating_add(u128::from(more)));
    }

    /// Makes the clock natural, from a seed, or plain again.
    pub fn set_noise(&mut self, seed: Option<u64>) {
        self.noise = seed.map(Noise::new);
    }

    /// Lets pass what something takes that takes so many nanoseconds on average, if the clock is
    /// natural.
    pub fn take(&mut self, ns: u32) {
        if let Some(noise) = &mut self.noise {
            let ns = noise.cost(ns);
            self.add(u128::from(ns));
        }
    }

    fn add(&mut self, ns: u128) {
        let share = ns
            .saturating_mul(u128::from(self.frequency_hz))
            .saturating_add(u128::from(self.remainder));
        self.remainder = (share % NS_PER_SECOND) as u64;
        // The counter has 64 bits and wraps, and so does what it advances by.
        self.now = self.now.wrapping_add((share / NS_PER_SECOND) as u64);
    }

    /// Moves the clock forward to `tick`, never back: an idle guest's next deadline. A natural one goes
    /// beyond it.
    pub fn skip_to(&mut self, tick: u64) {
        if tick > self.now {
            self.now = tick;
            let late = self.noise.as_mut().map_or(0, Noise::latency);
            self.add(u128::from(late));
        }
    }

    /// How many steps may pass without the counter going beyond the beginning of tick `deadline`:
    /// the most that may, but at least 1, so that the guest moves.
    #[must_use]
    pub fn steps_until(&self, policy: TimePolicy, deadline: u64) -> u64 {
        let Some(ns) = step_ns(policy) else { return u64::MAX };
        let ticks = u128::from(deadline.saturating_sub(self.now));
        let share = ticks.saturating_mul(NS_PER_SECOND).saturating_sub(u128::from(self.remainder));
        let noise = self.noise.as_ref().filter(|_| is_natural(policy));
        let (ns, most) = noise.map_or((ns, u64::MAX), |noise| (STEP_MAX_NS, noise.until_next()));
        let per_step = u128::from(ns).saturating_mul(u128::from(self.frequency_hz));
        match share.checked_div(per_step) {
            Some(steps) => u64::try_from(steps).unwrap_or(u64::MAX).min(most).max(1),
            None => u64::MAX,
        }
    }

    /// The guest is let go while the machine's counter shows `physical`: returns the CNTVOFF_EL2
    /// with which its counter goes on from [`VirtualClock::now`].
    #[must_use]
    pub const fn release(&self, physical: u64) -> u64 {
        physical.wrapping_sub(self.now)
    }

    /// The guest is stopped while the machine's counter shows `physical` and CNTVOFF_EL2 is
    /// `offset`.
    pub fn hold(&mut self, physical: u64, offset: u64) {
        self.now = physical.wrapping_sub(offset);
        self.remainder = 0;
    }
}

/// Tells whether the deadline of a compare value, in the machine's time, lies beyond 2⁶⁴ with this
/// CNTVOFF_EL2. An offset whose bit 63 is set is negative: the guest's counter is ahead.
#[must_use]
pub const fn deadline_wraps(compare: u64, offset: u64) -> bool {
    offset.cast_signed() > 0 && compare.checked_add(offset).is_none()
}

const fn is_natural(policy: TimePolicy) -> bool {
    matches!(policy, TimePolicy::Natural { .. })
}

fn step_ns(policy: TimePolicy) -> Option<u32> {
    match policy {
        TimePolicy::Stopped | TimePolicy::Natural { .. } => Some(NOMINAL_STEP_NS),
        TimePolicy::PerStep { ns } => Some(ns),
        TimePolicy::Real => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QEMU_7_HZ: u64 = 62_500_000;
    const QEMU_10_HZ: u64 = 1_000_000_000;

    fn per_step(ns: u32) -> TimePolicy {
        TimePolicy::PerStep { ns }
    }

    #[test]
    fn a_clock_begins_at_zero_and_stands() {
        assert_eq!(VirtualClock::new(QEMU_7_HZ).now(), 0);
    }

    #[test]
    fn a_guest_begins_ahead_of_the_machine_and_no_deadline_of_its_wraps() {
        let clock = VirtualClock::at_reset(QEMU_7_HZ, COUNTER_AT_RESET);
        assert_eq!(clock.now(), COUNTER_AT_RESET);
        // Eight minutes after the machine was switched on, all of which the guest was stopped.
        let offset = clock.release(480 * QEMU_7_HZ);
        for compare in [0, 1, COUNTER_AT_RESET, u64::MAX - 1, u64::MAX] {
            assert!(!deadline_wraps(compare, offset), "{compare:#x}");
        }
        assert!(!deadline_wraps(u64::MAX, 0));
    }

    #[test]
    fn behind_the_machine_deadlines_near_the_end_wrap() {
        assert!(deadline_wraps(u64::MAX, 1));
        assert!(deadline_wraps(u64::MAX - 1_000, 1_001));
        assert!(!deadline_wraps(u64::MAX - 1_000, 1_000));
        assert!(!deadline_wraps(0, i64::MAX as u64));
    }

    #[test]
    fn a_nominal_step_is_a_hundredth_of_a_microsecond() {
        let mut clock = VirtualClock::new(QEMU_10_HZ);
        clock.advance(TimePolicy::Stopped, 100);
        assert_eq!(clock.now(), 1000);
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.advance(TimePolicy::Stopped, 8);
        assert_eq!(clock.now(), 5, "80 ns at 16 ns a tick");
    }

    #[test]
    fn what_is_left_of_a_tick_is_kept() {
        // 10 ns a step, 16 ns a tick: ticks at 20, 40, 50, 70, 80 ns.
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        let seen: Vec<u64> = (0..8)
            .map(|_| {
                clock.advance(TimePolicy::Stopped, 1);
                clock.now()
            })
            .collect();
        assert_eq!(seen, [0, 1, 1, 2, 3, 3, 4, 5]);
    }

    #[test]
    fn a_step_of_no_time_leaves_the_clock_and_never_reaches_a_deadline() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.advance(per_step(0), u64::MAX);
        assert_eq!(clock.now(), 0);
        assert_eq!(clock.steps_until(per_step(0), 1), u64::MAX);
    }

    /// However many steps are asked for at a time, no deadline is met later than one step.
    #[test]
    fn a_natural_clock_notices_a_deadline_at_the_same_step() {
        for seed in 0..200 {
            let policy = TimePolicy::Natural { seed };
            let met = |at_once: u64| {
                let mut clock = VirtualClock::new(QEMU_7_HZ);
                clock.set_noise(Some(seed));
                let (mut steps, deadline) = (0, 300);
                while clock.now() < deadline {
                    let some = clock.steps_until(policy, deadline).min(at_once);
                    clock.advance(policy, some);
                    // Each of them a division, but the costs come behind all of them.
                    (0..some).for_each(|_| clock.take(30));
                    steps += some;
                }
                (steps, clock.now())
            };
            assert_eq!(met(u64::MAX), met(1), "seed {seed}");
            assert_eq!(met(7), met(1), "seed {seed}");
        }
    }

    #[test]
    fn a_natural_clock_wakes_late_and_a_plain_one_on_the_tick() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.set_noise(Some(3));
        clock.skip_to(1_000);
        assert!(clock.now() > 1_000);
        let before = clock.now();
        clock.skip_to(500);
        assert_eq!(clock.now(), before);
        clock.set_noise(None);
        clock.skip_to(before + 5);
        clock.take(1_000);
        assert_eq!(clock.now(), before + 5);
    }

    #[test]
    fn the_real_clock_is_the_machines_not_ours() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.advance(TimePolicy::Real, 1_000_000);
        assert_eq!(clock.now(), 0);
        assert_eq!(clock.steps_until(TimePolicy::Real, 1), u64::MAX);
    }

    #[test]
    fn a_deadline_that_is_past_allows_one_step() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.skip_to(100);
        assert_eq!(clock.steps_until(TimePolicy::Stopped, 100), 1);
        assert_eq!(clock.steps_until(TimePolicy::Stopped, 0), 1);
    }

    #[test]
    fn a_deadline_that_never_comes_is_no_overflow() {
        let clock = VirtualClock::new(QEMU_10_HZ);
        let steps = clock.steps_until(TimePolicy::Stopped, u64::MAX);
        assert_eq!(steps, u64::MAX / 10);
        assert_eq!(clock.steps_until(per_step(1), u64::MAX), u64::MAX);
        assert_eq!(VirtualClock::default().steps_until(per_step(1), 5), u64::MAX);
    }

    #[test]
    fn skipping_never_goes_back() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.skip_to(7);
        clock.skip_to(3);
        assert_eq!(clock.now(), 7);
    }

    #[test]
    fn an_hour_at_a_prompt_is_not_seen_by_the_guest() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.hold(1_000, 400);
        assert_eq!(clock.now(), 600);
        let hour_later = 1_000 + 3600 * QEMU_7_HZ;
        let offset = clock.release(hour_later);
        assert_eq!(hour_later.wrapping_sub(offset), 600);
    }

    #[test]
    fn a_guest_ahead_of_the_machine_has_an_offset_that_wraps() {
        let mut clock = VirtualClock::new(QEMU_7_HZ);
        clock.skip_to(1_000);
        let offset = clock.release(10);
        assert_eq!(10_u64.wrapping_sub(offset), 1_000);
        clock.hold(15, offset);
        assert_eq!(clock.now(), 1_005);
    }

    fn frequencies() -> impl Strategy<Value = u64> {
        prop_oneof![Just(QEMU_7_HZ), Just(QEMU_10_HZ), Just(24_000_000), 1..=QEMU_10_HZ]
    }

    fn policies() -> impl Strategy<Value = TimePolicy> {
        prop_oneof![Just(TimePolicy::Stopped), (0..2_000_000_u32).prop_map(per_step)]
    }

    proptest! {
        #[test]
        fn many_advances_equal_one(
            hz in frequencies(),
            policy in policies(),
            parts in proptest::collection::vec(0..100_000_u64, 0..40),
        ) {
            let (mut many, mut one) = (VirtualClock::new(hz), VirtualClock::new(hz));
            for &steps in &parts {
                let before = many.now();
                many.advance(policy, steps);
                prop_assert!(many.now() >= before, "monotone");
            }
            one.advance(policy, parts.iter().sum());
            prop_assert_eq!(many, one);
        }

        #[test]
        fn steps_until_is_the_most_that_does_not_go_beyond(
            hz in frequencies(),
            ns in 1..2_000_000_u32,
            begun in 0..1_000_u64,
            ahead in 0..1_000_000_u64,
        ) {
            let policy = per_step(ns);
            let mut clock = VirtualClock::new(hz);
            clock.advance(policy, begun);
            let deadline = clock.now() + ahead;
            let steps = clock.steps_until(policy, deadline);
            prop_assert!(steps >= 1);
            let mut one_less = clock.clone();
            one_less.advance(policy, steps - 1);
            prop_assert!(one_less.now() <= deadline);
            if steps > 1 {
                let mut all = clock.clone();
                all.advance(policy, steps);
                prop_assert!(all.now() <= deadline, "never beyond");
            }
            // And the next step gets there: nothing comes more than one step late.
            clock.advance(policy, steps + 1);
            prop_assert!(clock.now() >= deadline);
        }

        #[test]
        fn a_release_and_a_hold_at_once_change_nothing(now: u64, physical: u64) {
            let mut clock = VirtualClock::new(QEMU_7_HZ);
            clock.skip_to(now);
            let offset = clock.release(physical);
            clock.hold(physical, offset);
            prop_assert_eq!(clock.now(), now);
        }
    }
}
