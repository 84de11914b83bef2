//! vCPUs that wait for something, who has waited for longest first.

use heapless::Vec;
use stepwell_protocol::{MAX_VCPUS, vcpu_bit as bit};

/// vCPUs that wait for something, each once, in the order in which they began to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Queue(Vec<u8, MAX_VCPUS>);

impl Queue {
    /// A vCPU waits from now on, unless it did already.
    pub fn add(&mut self, vcpu: usize) {
        if self.place(vcpu).is_none() {
            let _is_full = self.0.push(vcpu as u8);
        }
    }

    /// A vCPU waits no longer.
    pub fn remove(&mut self, vcpu: usize) {
        self.0.retain(|&other| usize::from(other) != vcpu);
    }

    /// Takes out who has waited for longest, of the vCPUs in a mask of one bit each.
    pub fn take(&mut self, vcpus: u8) -> Option<usize> {
        let mut waiting = self.0.iter().map(|&vcpu| usize::from(vcpu));
        let first = waiting.find(|&vcpu| vcpus & bit(vcpu) != 0)?;
        self.remove(first);
        Some(first)
    }

    /// Tells whether a vCPU has waited, and for longer than another one, if that has.
    #[must_use]
    pub fn is_before(&self, vcpu: usize, other: usize) -> bool {
        let place = self.place(vcpu);
        place.is_some_and(|place| self.place(other).is_none_or(|other| place < other))
    }

    fn place(&self, vcpu: usize) -> Option<usize> {
        self.0.iter().position(|&other| usize::from(other) == vcpu)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn who_has_waited_for_longest_is_first() {
        let mut queue = Queue::default();
        assert!(!queue.is_before(1, 2) && queue.take(u8::MAX).is_none());
        [2, 1, 2].into_iter().for_each(|vcpu| queue.add(vcpu));
        let before = [(2, 1), (1, 2), (1, 3), (3, 1), (2, 2)];
        let is_before = before.map(|(vcpu, other)| queue.is_before(vcpu, other));
        assert_eq!(is_before, [true, false, true, false, false]);
        assert_eq!(queue.take(0b1011), Some(1));
        assert_eq!((queue.take(0b1011), queue.take(0b100)), (None, Some(2)));
    }
}
