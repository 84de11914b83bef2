//! A vCPU's share of the time: what it has in its guest, beside what its exits take.
//!
//! Where an exit takes long, as on a host that is emulated itself, those of a tick's handler may take longer
//! than a tick. A guest whose every tick came when it is due would do nothing else. One of several vCPUs
//! whose clock cannot be stopped meanwhile (as that of a single one is) has its timer's interrupt late
//! instead, as on a busy host: once it has had as much time in the guest, since the last one, as exits took.

use std::cell::Cell;

/// Longer is no exit: the domain was stopped. And no interrupt is later than that, in microseconds.
const LONGEST_US: u64 = 10_000;
const US_PER_SECOND: u64 = 1_000_000;

/// What a vCPU had since its virtual timer's last interrupt, in ticks of the host's counter.
#[derive(Debug, Default)]
pub struct Share {
    inside: Cell<u64>,
    outside: Cell<u64>,
    left_at: Cell<Option<u64>>,
}

impl Share {
    /// The vCPU enters the guest. `frequency`: of the counter, in Hz.
    pub fn enters(&self, now: u64, frequency: u64) {
        let Some(left_at) = self.left_at.take() else { return };
        let outside = now.wrapping_sub(left_at);
        if outside <= longest(frequency) {
            self.outside.set(self.outside.get().saturating_add(outside));
        }
    }

    /// It has left the guest, in which it was since `entered`.
    pub fn leaves(&self, entered: u64, now: u64) {
        self.inside.set(self.inside.get().saturating_add(now.wrapping_sub(entered)));
        self.left_at.set(Some(now));
    }

    /// It has nothing to do, or its timer's interrupt comes: all begins anew.
    pub fn begin(&self) {
        self.inside.set(0);
        self.outside.set(0);
        self.left_at.set(None);
    }

    /// How many ticks the guest is to have before the interrupt comes.
    #[must_use]
    pub fn owed(&self, frequency: u64) -> u64 {
        self.outside.get().min(longest(frequency)).saturating_sub(self.inside.get())
    }
}

const fn longest(frequency: u64) -> u64 {
    frequency / US_PER_SECOND * LONGEST_US
}

#[cfg(test)]
mod tests {
    use super::Share;

    const HZ: u64 = 10_000_000;

    #[test]
    fn the_guest_has_as_much_as_its_exits_took() {
        let share = Share::default();
        share.enters(100, HZ);
        assert_eq!(share.owed(HZ), 0, "nothing was before");
        share.leaves(100, 150);
        share.enters(450, HZ);
        assert_eq!(share.owed(HZ), 250);
        share.leaves(450, 600);
        share.enters(650, HZ);
        share.leaves(650, 800);
        assert_eq!(share.owed(HZ), 0);
        share.begin();
        share.enters(900, HZ);
        assert_eq!(share.owed(HZ), 0);
    }

    #[test]
    fn a_stop_is_no_exit_and_nothing_is_later_than_ten_milliseconds() {
        let share = Share::default();
        share.leaves(0, 0);
        share.enters(100_001, HZ);
        assert_eq!(share.owed(HZ), 0);
        for _ in 0..3 {
            share.leaves(0, 0);
            share.enters(90_000, HZ);
        }
        assert_eq!(share.owed(HZ), 100_000);
    }
}
