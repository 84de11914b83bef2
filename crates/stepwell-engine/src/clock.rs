//! The guest's virtual time.
//!
//! The guest's counter reads `CNTPCT_EL0 - CNTVOFF_EL2`. While the guest runs unstepped the offset
//! stands still and time passes as on any machine. While it is stepped, or stopped, the clock is
//! this value, and the offset is only computed from it when the guest is let go.

/// How the clock goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimePolicy {
    /// Stands while the domain is stopped and while EL2 works; a stepped instruction takes
    /// [`NOMINAL_STEP_NS`].
    #[default]
    Stopped,
    /// Stands while the domain is stopped; a stepped instruction takes so many nanoseconds.
    PerStep {
        /// Nanoseconds a step.
        ns: u32,
    },
    /// Goes on with the machine's clock, whatever the debugger does.
    Real,
}

/// What a stepped instruction takes under [`TimePolicy::Stopped`]: a CPU of 100 million
/// instructions a second. Without any, a stepped delay loop would never end.
pub const NOMINAL_STEP_NS: u32 = 10;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// The clock of one domain, in ticks of the counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtualClock {
    /// Counter frequency in Hz.
    frequency_hz: u64,
    /// The guest's counter, as long as it does not run freely.
    now: u64,
    /// What is left of a tick, in ticks times 10⁻⁹.
    remainder: u64,
}

impl VirtualClock {
    /// Makes a clock that shows 0 and ticks `frequency_hz` times a second.
    #[must_use]
    pub const fn new(frequency_hz: u64) -> Self {
        Self { frequency_hz, now: 0, remainder: 0 }
    }

    /// The guest's counter while it does not run freely.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Lets `steps` instructions pass.
    pub fn advance(&mut self, policy: TimePolicy, steps: u64) {
        let Some(ns) = step_ns(policy) else { return };
        let share = u128::from(ns)
            .saturating_mul(u128::from(steps))
            .saturating_mul(u128::from(self.frequency_hz))
            .saturating_add(u128::from(self.remainder));
        let ticks = share.checked_div(u128::from(NS_PER_SECOND)).unwrap_or(0);
        self.remainder = u64::try_from(share % u128::from(NS_PER_SECOND)).unwrap_or(0);
        self.now = self.now.wrapping_add(u64::try_from(ticks).unwrap_or(u64::MAX));
    }

    /// Moves the clock forward to `tick`, never back: an idle guest's next deadline.
    pub fn skip_to(&mut self, tick: u64) {
        self.now = self.now.max(tick);
    }

    /// How many steps may pass before the counter can reach `deadline`: at least 1.
    #[must_use]
    pub fn steps_until(&self, policy: TimePolicy, deadline: u64) -> u64 {
        let Some(ns) = step_ns(policy) else { return u64::MAX };
        let ticks = u128::from(deadline.saturating_sub(self.now));
        let share = ticks
            .saturating_mul(u128::from(NS_PER_SECOND))
            .saturating_sub(u128::from(self.remainder));
        let per_step = u128::from(ns).saturating_mul(u128::from(self.frequency_hz));
        match share.checked_div(per_step) {
            Some(steps) => u64::try_from(steps).unwrap_or(u64::MAX).max(1),
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

fn step_ns(policy: TimePolicy) -> Option<u32> {
    match policy {
        TimePolicy::Stopped => Some(NOMINAL_STEP_NS),
        TimePolicy::PerStep { ns } => Some(ns),
        TimePolicy::Real => None,
    }
}
